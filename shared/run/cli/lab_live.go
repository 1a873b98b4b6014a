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

// labLive follows the traces of the cluster that is running on a data folder. The
// servers write them whether somebody watches or not, and are never asked; so the lab
// cannot slow them down.
type labLive struct {
	shown *labShown
	dir   string

	// prefix is the beginning of the names of the traces.
	prefix string

	// tails are the traces, by the end of their names. Only run uses them.
	tails map[string]*tail
}

// tail is a file that grows. file is nil while it is not there yet.
type tail struct {
	number int
	file   *os.File
}

const (
	// liveRead is how often the traces are read, and liveLook how often the lab asks
	// which servers there are.
	liveRead = 100 * time.Millisecond
	liveLook = time.Second

	// liveBehind is how far the film is behind the servers: by then all of them have
	// written what they did.
	liveBehind = 10 * traceFlush

	// livePiece is how much of a trace is read at once.
	livePiece = 1 << 20

	// liveBytes bounds the recording: the page draws all of it again when it grows.
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
		return nil, fmt.Errorf("the cluster on %s writes no traces, so there is nothing to show; end it and start it again with: %s", a.flags.data, start)
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
			note = fmt.Sprintf("The lab follows the cluster no longer: %v.", err)
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

// look asks which servers there are, and returns what the page should say about it.
func (l *labLive) look(ctx context.Context) string {
	remote, err := cluster.Connect(l.dir)
	if err != nil {
		return "The cluster has ended. What it did can be watched."
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	servers, err := remote.Do(ctx, cluster.Command{Do: cluster.List})
	if err != nil {
		return "" // it is busy with another command
	}
	l.shown.mu.Lock()
	defer l.shown.mu.Unlock()
	for _, s := range servers {
		l.tail(node.Name(s.ID))
	}
	return ""
}

// read adds what the servers have written, and merges what happened before a moment.
// It reports whether there is more to show.
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

// labDeeds are what a page may do to the servers.
var labDeeds = map[string]string{
	"kill": cluster.Kill, "restart": cluster.Restart, "pause": cluster.Pause, "resume": cluster.Resume, "cut": cluster.Cut, "heal": cluster.Heal,
}

// maxDeed is how many bytes a deed has, and deedTime how long it may take.
const (
	maxDeed  = 4 << 10
	deedTime = 30 * time.Second
)

// serveDeed carries out what somebody does to the servers. The page does not have the
// token of the supervisor; the lab does.
func (l *labLive) serveDeed(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDeed))
	if err != nil {
		labRefuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("a deed may have %d bytes", maxDeed))
		return
	}
	c, err := decodeDeed(text)
	if err != nil {
		labRefuse(w, http.StatusBadRequest, err)
		return
	}
	remote, err := cluster.Connect(l.dir)
	if err != nil {
		labRefuse(w, http.StatusConflict, errors.New("the cluster has ended"))
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
	if links := do == "cut" || do == "heal"; !links && (len(c.IDs) == 0 || len(c.Others) > 0) || do == "cut" && (len(c.IDs) == 0 || len(c.Others) == 0) {
		return c, fmt.Errorf("%s lacks its servers", do)
	}
	return c, nil
}
