package cli

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/recording"
)

// labReal serves the page for a real cluster: from the traces that it has left, or
// while it is running.
func (a *app) labReal(cmd *cobra.Command, f labFlags, files []string) error {
	for _, name := range []string{"story", "tour", "seed", "edit", "engine", "unchecked"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s is for simulated clusters; leave it out, or leave out --live and the files", name)
		}
	}
	if f.live && len(files) > 0 {
		return usagef("--live and files exclude each other: --live finds the traces of the running cluster; leave the files out")
	}
	ctx := cmd.Context()
	shown := &labShown{key: labKey(), recording: recording.New(a.stage.Name), changed: make(chan struct{})}
	kind := "recorded"
	if f.live {
		live, err := a.openLive(shown)
		if err != nil {
			return err
		}
		kind = "live"
		ctx, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			live.run(ctx)
		}()
		defer func() { stop(); <-done }()
	} else if err := shown.read(ctx, files); err != nil {
		return err
	}
	engines := newLabEngines(ctx, a.scenarios())
	defer engines.close()
	rest := fmt.Sprintf("#real:%s:%s", kind, shown.key)
	return a.serveLab(ctx, f, rest, func(port int) http.Handler { return a.labHandler(port, engines, shown.routes) })
}

// labKey returns the key that the page must send. Traces hold the data of the clients,
// and only the owner of their files can read them. Without a key, other users of this
// machine could read them through the lab, or kill servers.
func labKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// labShown is what the page of a real cluster shows.
type labShown struct {
	key string

	// live is nil if files are shown.
	live *labLive

	mu        sync.Mutex
	recording *recording.Recording

	// note says what is wrong, such as that the cluster has stopped; "" for nothing.
	note string

	// changed is closed when there is something new.
	changed chan struct{}
}

// read reads whole traces, piece by piece, so that a long trace needs no more memory
// than a short one.
func (l *labShown) read(ctx context.Context, paths []string) (err error) {
	files := make([]*os.File, len(paths))
	defer func() {
		for _, file := range files {
			if file != nil {
				_ = file.Close() // it was only read
			}
		}
	}()
	for i, path := range paths {
		if files[i], err = openRegular(path); err != nil {
			return err
		}
		l.recording.Trace(path)
	}
	piece := make([]byte, 256<<10)
	for left := len(files); left > 0; {
		for i, file := range files {
			// Read each trace a little further than the events that are merged.
			for file != nil && l.recording.Waiting(i) < 512 {
				if err := ctx.Err(); err != nil {
					return errInterrupted
				}
				n, err := file.Read(piece)
				if add := l.recording.Add(i, piece[:n]); add != nil {
					return add
				}
				if err == nil {
					continue
				}
				if !errors.Is(err, io.EOF) {
					return err
				}
				if err := l.recording.End(i); err != nil {
					return err
				}
				_ = file.Close() // it was only read
				file, files[i] = nil, nil
				left--
			}
		}
		l.recording.Merge()
	}
	return nil
}

// openRegular opens a file that is neither a folder nor a pipe.
func openRegular(path string) (*os.File, error) {
	names := fmt.Sprintf("name the traces that %q has written: FILE.n1, FILE.n2, …, FILE.%s", "cluster --trace FILE", processesName)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w; %s", path, os.ErrNotExist, names)
	} else if err != nil {
		return nil, err
	}
	if !isRegular(path) {
		return nil, fmt.Errorf("%s is not a file; %s", path, names)
	}
	return os.Open(path)
}

// routes adds the routes for the page of a real cluster. Each of them needs the key.
func (l *labShown) routes(mux *http.ServeMux) {
	guard := func(serve http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if subtle.ConstantTimeCompare([]byte(r.URL.Query().Get("key")), []byte(l.key)) != 1 {
				labRefuse(w, http.StatusForbidden, errors.New("the key is missing or wrong; open the address that the lab has printed"))
				return
			}
			serve(w, r)
		}
	}
	mux.HandleFunc("GET /recording", guard(l.serveFilm))
	mux.HandleFunc("GET /live", guard(l.serveEvents))
	if l.live != nil {
		mux.HandleFunc("POST /deed", guard(l.live.serveDeed))
	}
}

func (l *labShown) serveFilm(w http.ResponseWriter, _ *http.Request) {
	text, _, _ := l.since(0)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // the page is gone if this fails
}

// since returns the text for the page about the events after a step, the last step,
// and a channel that is closed when there is more.
func (l *labShown) since(after uint64) (text []byte, last uint64, more <-chan struct{}) {
	l.mu.Lock()
	f, last, whole := l.recording.Film(after)
	left, note, more := l.recording.LeftOut(), l.note, l.changed
	l.mu.Unlock()
	return appendShown(nil, f, whole, left, note), last, more
}

// appendShown appends the text that the page gets, on one line.
func appendShown(b []byte, f *film.Film, whole bool, left, note string) []byte {
	b = fmt.Appendf(b, `{"whole":%t,"leftOut":%s,"note":%s,"film":`, whole, strict.AppendString(nil, left), strict.AppendString(nil, note))
	return append(f.AppendJSON(b), '}')
}

// The pace of the events of a running cluster. livePace is the shortest time between
// two messages to a page: short enough for a viewer, long enough for a page that
// redraws everything. liveAlive is how long the lab is silent at most, and how long a
// write may take.
const (
	livePace  = 300 * time.Millisecond
	liveAlive = 10 * time.Second
)

// serveEvents sends new events as server-sent events. A slow page gets fewer and
// longer messages. If events that it has not seen are no longer kept, it gets the
// whole film again, which says what was left out.
func (l *labShown) serveEvents(w http.ResponseWriter, r *http.Request) {
	out := http.NewResponseController(w)
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		labRefuse(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	after, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64) // 0 for a new page
	sentNote := "-"
	for {
		l.mu.Lock()
		note := l.note
		l.mu.Unlock()
		text, last, more := l.since(after)
		_ = out.SetWriteDeadline(time.Now().Add(liveAlive)) // the write fails if this does
		var err error
		if last != after || note != sentNote {
			_, err = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", last, text)
		} else {
			_, err = io.WriteString(w, ": alive\n\n")
		}
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			return // the page is gone
		}
		after, sentNote = last, note
		select {
		case <-r.Context().Done():
			return
		case <-more:
		case <-time.After(liveAlive):
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(livePace):
		}
	}
}

// grown tells all pages that there is something new. The caller holds mu.
func (l *labShown) grown() {
	close(l.changed)
	l.changed = make(chan struct{})
}
