package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The control channel is a TCP connection on the loopback interface for each
// command: one line of JSON is the request, one is the answer. A unix socket would need no token, but its
// path must be short and not every file system supports one. The token is in a
// file that only the owner can read.

// Bounds of the control channel.
const (
	maxControlLine  = 64 << 10
	controlReadTime = 2 * time.Second
	controlDialTime = time.Second
)

// ErrNotRunning means that no cluster is running in a data folder.
var ErrNotRunning = errors.New("no cluster is running")

// NoServerError is the error of a command that names a server that the cluster
// does not have. Nothing was done.
type NoServerError struct{ Message string }

func (e *NoServerError) Error() string { return e.Message }

// controlFile is the content of control.json.
type controlFile struct {
	PID     int    `json:"pid"`
	Address string `json:"address"`
	Token   string `json:"token"`

	// Trace is Options.Trace.
	Trace string `json:"trace,omitempty"`
}

// question and answer are the two lines of a connection.
type question struct {
	Token string `json:"token"`
	Command
}

type answer struct {
	Servers []Server `json:"servers"`
	Error   string   `json:"error,omitempty"`

	// NoServer is true if the error is a NoServerError.
	NoServer bool `json:"no_server,omitempty"`
}

// control is the supervisor's end of the control channel.
type control struct {
	listener net.Listener
	path     string
	token    string
	do       func(Command) ([]Server, error)

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	wait  sync.WaitGroup
}

func listenControl(dir, traces string, do func(Command) ([]Server, error)) (*control, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot open the port for commands: %w", err)
	}
	c := &control{
		listener: l,
		path:     filepath.Join(dir, controlName),
		token:    randomHex(32),
		do:       do,
		conns:    make(map[net.Conn]struct{}),
	}
	text, err := json.Marshal(controlFile{PID: os.Getpid(), Address: l.Addr().String(), Token: c.token, Trace: traces})
	if err == nil {
		err = writeFile(c.path, append(text, '\n'))
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot write the file for commands: %w", err)
	}
	return c, nil
}

// found reports whether commands find this supervisor: its file still exists, and
// was not replaced by another supervisor's after the folder was deleted.
func (c *control) found() bool {
	text, err := os.ReadFile(c.path)
	var f controlFile
	return err == nil && json.Unmarshal(text, &f) == nil && f.Token == c.token
}

// serve answers until close.
func (c *control) serve() error {
	for {
		conn, err := c.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Probably too many files are open; the next attempt may succeed.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if !c.track(conn) {
			conn.Close()
			continue
		}
		go func() {
			defer c.wait.Done()
			c.answer(conn)
			conn.Close()
			c.untrack(conn)
		}()
	}
}

// maxControlConns is the largest number of connections at once.
const maxControlConns = 64

func (c *control) track(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns == nil || len(c.conns) >= maxControlConns {
		return false
	}
	c.conns[conn] = struct{}{}
	c.wait.Add(1)
	return true
}

func (c *control) untrack(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// close ends the channel: it removes the file, accepts no more connections, and
// returns when the commands in progress were answered.
func (c *control) close() {
	if c.found() {
		os.Remove(c.path)
	}
	c.listener.Close()
	c.mu.Lock()
	for conn := range c.conns {
		// Do not wait for connections without a request.
		conn.SetReadDeadline(time.Now())
	}
	c.conns = nil
	c.mu.Unlock()
	c.wait.Wait()
}

func (c *control) answer(conn net.Conn) {
	conn.SetReadDeadline(time.Now().Add(controlReadTime))
	line, err := bufio.NewReader(io.LimitReader(conn, maxControlLine)).ReadBytes('\n')
	if err != nil {
		return
	}
	var q question
	var a answer
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	switch err := d.Decode(&q); {
	case err != nil:
		a.Error = "the command is not valid JSON"
	case subtle.ConstantTimeCompare([]byte(q.Token), []byte(c.token)) != 1:
		a.Error = "the token is wrong"
	default:
		a.Servers, err = c.do(q.Command)
		if err != nil {
			var none *NoServerError
			a.Error, a.NoServer = err.Error(), errors.As(err, &none)
		}
	}
	text, err := json.Marshal(a)
	if err != nil {
		return
	}
	conn.SetWriteDeadline(time.Now().Add(controlReadTime))
	conn.Write(append(text, '\n'))
}

// Remote sends commands to the supervisor of a running cluster. Each command uses
// a new connection.
type Remote struct {
	pid     int
	address string
	token   string
	traces  string
}

// Trace is Options.Trace.
func (r *Remote) Trace() string { return r.traces }

// Connect finds the supervisor of the cluster in a data folder. The error is
// ErrNotRunning if there is none.
func Connect(dir string) (*Remote, error) {
	text, err := os.ReadFile(filepath.Join(dir, controlName))
	if err != nil {
		return nil, ErrNotRunning
	}
	var f controlFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, ErrNotRunning
	}
	r := &Remote{pid: f.PID, address: f.Address, token: f.Token, traces: f.Trace}
	ctx, cancel := context.WithTimeout(context.Background(), controlDialTime)
	defer cancel()
	// A supervisor that was killed leaves its file behind, and another program
	// may use its port now. Only an answer shows that the supervisor is
	// running.
	if _, err := r.exchange(ctx, Command{Do: Ping}); err != nil {
		return nil, ErrNotRunning
	}
	return r, nil
}

// Do sends a command to the supervisor and waits until the supervisor has executed
// it. Do returns the servers that the command applied to.
func (r *Remote) Do(ctx context.Context, c Command) ([]Server, error) {
	a, err := r.exchange(ctx, c)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the cluster's supervisor (process %d) does not answer: %w", r.pid, err)
	case a.NoServer:
		return a.Servers, &NoServerError{a.Error}
	case a.Error != "":
		return a.Servers, errors.New(a.Error)
	}
	return a.Servers, nil
}

func (r *Remote) exchange(ctx context.Context, c Command) (answer, error) {
	var a answer
	dialer := net.Dialer{Timeout: controlDialTime}
	conn, err := dialer.DialContext(ctx, "tcp", r.address)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	// The end of ctx ends the read and the write.
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	line, err := json.Marshal(question{Token: r.token, Command: c})
	if err != nil {
		return a, err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return a, err
	}
	text, err := bufio.NewReader(io.LimitReader(conn, maxControlLine)).ReadBytes('\n')
	if err != nil {
		return a, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return a, d.Decode(&a)
}
