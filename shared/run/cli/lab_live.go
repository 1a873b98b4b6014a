package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/run/cluster"
)

// labLive follows the traces of the cluster that is running in a data folder. The
// servers write them even if nobody watches, and the lab sends the servers no
// requests, so it does not slow them down.
type labLive struct {
	shown *labShown
	dir   string

	// prefix is the beginning of the names of the traces.
	prefix string

	// tails are the traces, by the end of their names. After openLive, only run
	// uses them.
	tails map[string]*tail
}

// tail is a trace that grows. number is its number in the recording. file is nil
// as long as the file does not exist.
type tail struct {
	number int
	file   *os.File
}

const (
	// liveRead is how often the lab reads the traces, and liveLook how often it asks
	// the supervisor for the servers.
	liveRead = 100 * time.Millisecond
	liveLook = time.Second

	// liveBehind is how far the film lags behind the servers, so that all of them
	// have written the events that it shows.
	liveBehind = 10 * traceFlush

	// livePiece is how much of a trace is read at once, in bytes.
	livePiece = 1 << 20

	// liveBytes bounds the recording, because the page redraws all of it when it
	// grows.
	liveBytes = 3 << 20
)

// openLive finds the running cluster.
func (a *app) openLive(shown *labShown) (*labLive, error) {
	if err := cluster.CheckStage(a.flags.data, a.stage.Name); err != nil {
		return nil, err
	}
	start := a.startCommand() + a.dataFlag() + " --trace FILE"
	remote, err := cluster.Connect(a.flags.data)
	if errors.Is(err, cluster.ErrNotRunning) {
		return nil, fmt.Errorf("%w on %s; start one with: %s", err, a.flags.data, start)
	}
	if err != nil {
		return nil, err
	}
	if remote.Trace() == "" {
		return nil, fmt.Errorf("the cluster on %s writes no traces, so there is nothing to show; stop it and start it again with: %s", a.flags.data, start)
	}
	l := &labLive{shown: shown, dir: a.flags.data, prefix: remote.Trace(), tails: make(map[string]*tail)}
	shown.live, shown.recording.Most = l, liveBytes
	l.tail(processesName)
	return l, nil
}

func (l *labLive) tail(end string) {
	if l.tails[end] == nil {
		l.tails[end] = &tail{number: l.shown.recording.Trace(l.prefix + "." + end)}
	}
}

// run follows the cluster until ctx is done or a trace cannot be read.
func (l *labLive) run(ctx context.Context) {
	defer func() {
		for _, t := range l.tails {
			if t.file != nil {
				_ = t.file.Close() // it was only read
			}
		}
	}()
	ticker := time.NewTicker(liveRead)
	defer ticker.Stop()
	looked := time.Time{}
	for {
		note := ""
		if time.Since(looked) >= liveLook {
			looked = time.Now()
			note = l.look(ctx)
		} else {
			l.shown.mu.Lock()
			note = l.shown.note
			l.shown.mu.Unlock()
		}
		more, err := l.read(time.Now().Add(-liveBehind))
		if err != nil {
			note = fmt.Sprintf("The lab no longer follows the cluster: %v.", err)
		}
		l.shown.mu.Lock()
		if more || note != l.shown.note {
			l.shown.note = note
			l.shown.grown()
		}
		l.shown.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look asks the supervisor for the servers, adds their traces, and returns the note
// for the page.
func (l *labLive) look(ctx context.Context) string {
	remote, err := cluster.Connect(l.dir)
	if err != nil {
		return "The cluster has stopped. You can still watch what it did."
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	servers, err := remote.Do(ctx, cluster.Command{Do: cluster.List})
	if err != nil {
		return "" // the supervisor is busy with another command
	}
	l.shown.mu.Lock()
	defer l.shown.mu.Unlock()
	for _, s := range servers {
		l.tail(node.Name(s.ID))
	}
	return ""
}

// read reads what the servers have written, and adds the events before until to the
// film. It reports whether there are new events to show.
func (l *labLive) read(until time.Time) (bool, error) {
	piece := make([]byte, livePiece)
	behind := false
	l.shown.mu.Lock()
	defer l.shown.mu.Unlock()
	before := l.shown.recording.Steps()
	for _, end := range slices.Sorted(maps.Keys(l.tails)) {
		t := l.tails[end]
		if t.file == nil {
			file, err := openRegular(l.prefix + "." + end)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return false, err
			}
			t.file = file
		}
		n, err := t.file.Read(piece)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		behind = behind || n == len(piece)
		if err := l.shown.recording.Add(t.number, piece[:n]); err != nil {
			return false, err
		}
	}
	if behind {
		l.shown.recording.Merge() // the rest of a long trace follows
	} else {
		l.shown.recording.Pause(until)
	}
	return l.shown.recording.Steps() != before, nil
}

// labDeeds are the deeds of the page that the supervisor can carry out, and its
// commands for them.
var labDeeds = map[string]string{
	"kill": cluster.Kill, "restart": cluster.Restart, "pause": cluster.Pause, "resume": cluster.Resume, "cut": cluster.Cut, "heal": cluster.Heal,
}

// maxDeed is the largest size of a deed in bytes, and deedTime is how long it may
// take.
const (
	maxDeed  = 4 << 10
	deedTime = 30 * time.Second
)

// serveDeed passes a deed of the page on to the supervisor. The lab has the token of
// the supervisor; the page does not.
func (l *labLive) serveDeed(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDeed))
	if err != nil {
		labRefuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("a deed may have at most %d bytes", maxDeed))
		return
	}
	c, err := decodeDeed(text)
	if err != nil {
		labRefuse(w, http.StatusBadRequest, err)
		return
	}
	remote, err := cluster.Connect(l.dir)
	if err != nil {
		labRefuse(w, http.StatusConflict, errors.New("the cluster has stopped"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), deedTime)
	defer cancel()
	if _, err := remote.Do(ctx, c); err != nil {
		labRefuse(w, http.StatusConflict, err)
		return
	}
	labAnswer(w, http.StatusOK, struct{}{})
}

// decodeDeed reads {"do":"cut","servers":[1],"others":[2,3]}.
func decodeDeed(text []byte) (cluster.Command, error) {
	var c cluster.Command
	d := strict.NewDecoder(text)
	do := ""
	d.Object(func(field []byte) {
		switch string(field) {
		case "do":
			do = d.String()
		case "servers":
			d.Array(func() { c.IDs = append(c.IDs, d.Uint()) })
		case "others":
			d.Array(func() { c.Others = append(c.Others, d.Uint()) })
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		return c, fmt.Errorf("the deed: %w", err)
	}
	known := false
	if c.Do, known = labDeeds[do]; !known {
		return c, fmt.Errorf("there is no deed %.40q for the servers of a real cluster", do)
	}
	needs := "servers, and no others"
	if do == "cut" {
		needs = "servers and others"
	}
	if links := do == "cut" || do == "heal"; !links && (len(c.IDs) == 0 || len(c.Others) > 0) || do == "cut" && (len(c.IDs) == 0 || len(c.Others) == 0) {
		return c, fmt.Errorf("%s needs its servers: %s", do, needs)
	}
	return c, nil
}
