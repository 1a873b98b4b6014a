// Example is a replicated queue of jobs: three processes, each with a replica of the
// queue, which talk to each other over TCP. Start them in three terminals:
//
//	go run ./07-membership/replica/example 1
//	go run ./07-membership/replica/example 2
//	go run ./07-membership/replica/example 3
//
// Each serves the queue over HTTP, and it does not matter which one is asked:
//
//	curl -X PUT -d 'paint the door' http://127.0.0.1:7911/jobs/door
//	curl -X POST http://127.0.0.1:7912/take/ann
//	curl http://127.0.0.1:7913/jobs
//	curl -X DELETE http://127.0.0.1:7911/jobs/door
//
// End one of them: the other two go on, and it catches up when it is started again.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"example.com/raftsteps/07-membership/replica"
	"example.com/raftsteps/shared/core/node"
)

const (
	// replicas is how many processes there are.
	replicas = 3

	// maxWork is how long the description of a job may be, in bytes.
	maxWork = 64 << 10

	// patience is how long a request over HTTP may wait for the cluster.
	patience = 10 * time.Second
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	base := flag.Int("base-port", 7900, "replica `i` listens on port base+i for its peers, and on base+10+i for HTTP")
	dir := flag.String("dir", filepath.Join(".raftsteps", "example"), "the `folder` for the data of all replicas")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: example [flags] ID\n\nID is the number of the replica to start, from 1 to %d.\n\n", replicas)
		flag.PrintDefaults()
	}
	flag.Parse()
	id, err := strconv.ParseUint(flag.Arg(0), 10, 64)
	if err != nil || id < 1 || id > replicas || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, id, *base, *dir, log); err != nil {
		log.Error(err.Error())
		os.Exit(1)
	}
}

// run runs a replica, and serves its queue over HTTP, until ctx is done or the replica
// stops.
func run(ctx context.Context, id uint64, base int, dir string, log *slog.Logger) error {
	// All replicas have the same configuration. This one is for a single machine; on
	// several, the secret must be a secret.
	config := node.Config{Cluster: "jobs", Secret: "an example that only this machine can reach"}
	for i := range replicas {
		config.Members = append(config.Members, node.Member{ID: uint64(i + 1), Address: fmt.Sprintf("127.0.0.1:%d", base+i+1)})
	}
	r, err := replica.Start(replica.Options[*queue]{
		ID:      id,
		Config:  config,
		Machine: newQueue,
		Dir:     filepath.Join(dir, node.Name(id)),
		Forward: true,
		Log:     log.With("node", node.Name(id)),
	})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+10+int(id)))
	if err != nil {
		return errors.Join(err, r.Close())
	}
	web := http.Server{Handler: (&service{r}).handler(), ReadHeaderTimeout: patience}
	go web.Serve(ln)
	fmt.Printf("%s serves the queue at http://%v/jobs\n", node.Name(id), ln.Addr())
	select {
	case <-ctx.Done():
	case <-r.Done(): // its disk failed, for example; Close says why
	}
	return errors.Join(web.Close(), r.Close())
}

// service serves the queue over HTTP.
type service struct{ replica *replica.Replica[*queue] }

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /jobs/{name}", func(w http.ResponseWriter, r *http.Request) {
		work, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWork))
		if err != nil {
			http.Error(w, fmt.Sprintf("the work of a job has at most %d bytes", maxWork), http.StatusRequestEntityTooLarge)
			return
		}
		s.propose(w, r, "add", work)
	})
	mux.HandleFunc("POST /take/{name}", func(w http.ResponseWriter, r *http.Request) { s.propose(w, r, "take", nil) })
	mux.HandleFunc("DELETE /jobs/{name}", func(w http.ResponseWriter, r *http.Request) { s.propose(w, r, "done", nil) })
	mux.HandleFunc("GET /jobs", s.list)
	mux.HandleFunc("GET /leader", s.leader)
	return mux
}

// nameForm is the form of the names of jobs and workers. They have no spaces, because
// commands are split at spaces.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// propose carries out an operation on the name in the path.
func (s *service) propose(w http.ResponseWriter, r *http.Request, op string, work []byte) {
	name := r.PathValue("name")
	if !nameForm.MatchString(name) {
		http.Error(w, "a name has 1 to 64 letters, digits, and . _ -", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	data, err := s.repeat(ctx, append([]byte(op+" "+name+" "), work...))
	var done result
	if err == nil {
		err = json.Unmarshal(data, &done)
	}
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case done.Job == nil:
		http.Error(w, done.Text, http.StatusNotFound)
	default:
		fmt.Fprintf(w, "%s: %s (%s)\n", done.Job.Name, done.Text, done.Job.Work)
	}
}

// repeat proposes a command until it is done or ctx is. An error says that it was not
// done, or that its outcome is unknown: then it may have been done. Repeating is right
// in both cases, because this machine's commands may be carried out twice.
func (s *service) repeat(ctx context.Context, command []byte) ([]byte, error) {
	for {
		data, _, err := s.replica.Propose(ctx, command)
		if err == nil || ctx.Err() != nil {
			return data, err
		}
		select {
		case <-time.After(50 * time.Millisecond): // an election is soon over
		case <-s.replica.Done():
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}

// list shows the queue as it is now: this replica asks the leader how far it must be.
func (s *service) list(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	var jobs []job
	err := s.replica.Read(ctx, func(q *queue) { jobs = append(jobs, q.jobs...) })
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	for _, j := range jobs {
		worker := "waits"
		if j.Worker != "" {
			worker = "taken by " + j.Worker
		}
		fmt.Fprintf(w, "%s: %s (%s)\n", j.Name, worker, j.Work)
	}
}

// leader says which replica leads.
func (s *service) leader(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	id, err := s.replica.Leader(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, node.Name(id))
}
