package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/lab/engine"
	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/page"
	"example.com/raftsteps/shared/lab/source"
	"example.com/raftsteps/shared/lab/tour"
)

// labFlags are the flags of the command lab.
type labFlags struct {
	port   int
	noOpen bool
	story  string
	tour   string
	seed   uint64
	edits  []string

	// unchecked are the invariants that an engine with edits does not check.
	unchecked []string
	engine    bool
	live      bool
}

func (a *app) labCommand() *cobra.Command {
	var f labFlags
	cmd := &cobra.Command{
		Use: "lab [FILE…]", Short: "Watch and break a cluster in the browser", GroupID: groupLearn,
		Long: `Serves a page on 127.0.0.1. On it, a cluster of this stage runs in virtual time, and you see every message and decision. You can go back
in time, and continue differently from any moment. The address in the browser holds the whole run: anyone who opens it in a lab of this
stage sees the same. ^C ends the lab.

With the files that "cluster --trace FILE" has written, the page shows what a real cluster did. With --live, it shows the cluster that is
running on this machine, and what you do on the page happens to the real servers.`,
		Args: a.takes(0, -1),
		RunE: func(cmd *cobra.Command, files []string) error {
			switch {
			case f.live || len(files) > 0:
				return a.labReal(cmd, f, files)
			case f.engine:
				return a.labEngine(cmd.Context(), f)
			case len(f.unchecked) > 0:
				return usagef("--unchecked needs --engine; without --engine, the file of the edit says what is not checked")
			}
			return a.lab(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.port, "port", 0, "the port of the page; 0 for a free one")
	flags.BoolVar(&f.noOpen, "no-open", false, "do not open a browser")
	flags.StringVar(&f.story, "story", "", "begin with this scenario")
	flags.StringVar(&f.tour, "tour", "", "begin with this guided tour")
	flags.Uint64Var(&f.seed, "seed", 1, "the seed of the run")
	flags.StringSliceVar(&f.edits, "edit", nil, "apply this edit, a file in shared/book/edits, to the code of the stage, and begin with the film that shows its effect, or with --story")
	flags.StringSliceVar(&f.unchecked, "unchecked", nil, "with --engine: invariants that are not checked, such as I10")
	flags.BoolVar(&f.live, "live", false, "show the cluster that is running on this machine, and act on its servers")
	flags.BoolVar(&f.engine, "engine", false, "read scripts from standard input, one per line, and write a film for each")
	_ = cmd.RegisterFlagCompletionFunc("story", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return slices.Concat(a.stage.Scenarios.Survives, a.stage.Scenarios.Fails), cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.RegisterFlagCompletionFunc("tour", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return a.tourNames(), cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.RegisterFlagCompletionFunc("edit", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return newLabEngines(cmd.Context(), a.scenarios()).complete(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// lab serves the page until ctx is done.
func (a *app) lab(ctx context.Context, f labFlags) error {
	script := film.Script{Stage: a.stage.Name, Seed: f.seed, Story: f.story, Edits: f.edits}
	stage := a.scenarios()
	stage.Edits = f.edits
	if err := script.Check(stage); err != nil {
		return usagef("%v", err)
	}
	engines := newLabEngines(ctx, a.scenarios())
	defer engines.close()
	if err := engines.check(f.edits); err != nil {
		return usagef("%v", err)
	}
	if len(f.edits) == 1 && f.story == "" {
		var err error
		if script, err = engines.film(f.edits[0]); err != nil {
			return usagef("%v", err)
		}
	}
	if err := a.checkTour(f); err != nil {
		return err
	}
	rest := labFragment(script)
	if f.tour != "" {
		rest = "?" + url.Values{"tour": {f.tour}}.Encode()
	}
	return a.serveLab(ctx, f, rest, func(port int) http.Handler { return a.labHandler(port, engines, nil) })
}

// serveLab serves the page until ctx is done. rest is what follows the path in the
// address of the page.
func (a *app) serveLab(ctx context.Context, f labFlags, rest string, handler func(port int) http.Handler) error {
	if f.port < 0 || f.port > 65535 {
		return usagef("--port is %d; it must be between 0 and 65535", f.port)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.port)))
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // the message below has the address already
		}
		return fmt.Errorf("the lab cannot listen on 127.0.0.1:%d: %w; choose another port with --port", f.port, err)
	}
	s := &http.Server{
		Handler:           handler(ln.Addr().(*net.TCPAddr).Port),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}
	link := (&url.URL{Scheme: "http", Host: ln.Addr().String(), Path: "/"}).String() + rest
	fmt.Fprintf(a.stdout, "The lab of %s is at\n\n    %s\n\n^C ends it.\n", a.stage.Name, link)
	if !f.noOpen && isTerminal(a.stdout) {
		openBrowser(link)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	select {
	case err := <-ended:
		return fmt.Errorf("the lab has ended: %w", err)
	case <-ctx.Done():
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("the lab did not end: %w", err)
	}
	return nil
}

// checkTour checks that the stage has the tour that the flags ask for.
func (a *app) checkTour(f labFlags) error {
	if f.tour == "" {
		return nil
	}
	if f.story != "" {
		return usagef("--tour and --story exclude each other: a tour has its own story; leave one of them out")
	}
	if names := a.tourNames(); !slices.Contains(names, f.tour) {
		return usagef("%s has no tour %.40q; it has %s", a.stage.Name, f.tour, strings.Join(names, ", "))
	}
	return nil
}

// tourNames returns the names of the stage's tours. It cannot fail: the files are
// embedded in the program, and a test reads them.
func (a *app) tourNames() []string {
	tours, err := tour.All()
	if err != nil {
		return nil
	}
	var names []string
	for _, t := range tours {
		if t.Stage == a.stage.Name {
			names = append(names, t.Name)
		}
	}
	return names
}

// labFragment returns the part of an address that holds a script.
func labFragment(s film.Script) string {
	return "#" + base64.RawURLEncoding.EncodeToString(s.AppendJSON(nil))
}

// openBrowser opens an address in the browser of this desktop, if there is one.
func openBrowser(address string) {
	name, args := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	}
	if path, err := exec.LookPath(name); err == nil {
		_ = exec.Command(path, args...).Start() // if this fails, the user can open the link
	}
}

// labHandler returns the handler for the requests of the page. It accepts requests
// only from its own page: it refuses those of other sites in the same browser. add
// adds the routes for a real cluster; nil for a simulated one.
func (a *app) labHandler(port int, engines *labEngines, add func(*http.ServeMux)) http.Handler {
	hosts := []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("localhost:%d", port)}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(page.Files))
	mux.HandleFunc("GET /stage", func(w http.ResponseWriter, r *http.Request) {
		labFilm(w, engines, r.URL.Query().Get("of"), nil, []byte(engine.Describe))
	})
	code := sync.OnceValues(func() (*source.Index, error) { return source.Read(a.stage.Source) })
	mux.HandleFunc("GET /source.json", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		x, err := engines.source(code, q.Get("of"), q["edit"])
		if err != nil {
			labRefuse(w, http.StatusBadRequest, err)
			return
		}
		labAnswer(w, http.StatusOK, x)
	})
	mux.HandleFunc("POST /film", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, engine.MaxQuestion))
		if err != nil {
			labRefuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("a question may have at most %d bytes, and a script at most %d", engine.MaxQuestion, film.MaxScript))
			return
		}
		q, err := engine.Read(text)
		if err != nil {
			labRefuse(w, http.StatusBadRequest, err)
			return
		}
		labFilm(w, engines, q.Script.Stage, q.Script.Edits, q.AppendJSON(nil))
	})
	if add != nil {
		add(mux)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		origin := r.Header.Get("Origin")
		switch {
		case !slices.Contains(hosts, r.Host):
			labRefuse(w, http.StatusMisdirectedRequest, fmt.Errorf("this is the lab at %s, not %.100q", hosts[0], r.Host))
		case origin != "" && !slices.Contains(hosts, trimScheme(origin)):
			labRefuse(w, http.StatusForbidden, fmt.Errorf("the lab accepts no requests from %.100q", origin))
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

func trimScheme(origin string) string {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" {
		return ""
	}
	return u.Host
}

// labFilm sends an engine's answer to the page: a film or a description.
func labFilm(w http.ResponseWriter, engines *labEngines, stage string, edits []string, question []byte) {
	text, err := engines.answer(stage, edits, question)
	if err != nil {
		labRefuse(w, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // the page is gone if this fails
}

func labRefuse(w http.ResponseWriter, status int, err error) {
	labAnswer(w, status, map[string]string{"error": err.Error()})
}

func labAnswer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the page is gone if this fails
}

// labEngine reads questions from standard input until its end, one per line. For each
// question it writes a line with the answer, or with {"error":…}. f.edits are the
// edits with which this program was built.
func (a *app) labEngine(ctx context.Context, f labFlags) error {
	stage := a.scenarios()
	stage.Edits, stage.Unchecked = f.edits, f.unchecked
	reading, stop := context.WithCancel(ctx)
	defer stop()
	questions, failed := scan(reading, a.stdin, engine.MaxQuestion)
	for {
		var out []byte
		select {
		case err := <-failed:
			if errors.Is(err, bufio.ErrTooLong) {
				return refused(api.TooLarge, "a question is longer than %d bytes", engine.MaxQuestion)
			}
			return err
		case <-ctx.Done():
			return errInterrupted
		case text := <-questions:
			answer, err := engine.Answer(stage, []byte(text))
			if out = answer; err != nil {
				out = engine.Failure(err)
			}
		}
		if _, err := a.stdout.Write(append(out, '\n')); err != nil {
			return fmt.Errorf("cannot write a film: %w", err)
		}
	}
}
