// Package httpapi serves the store over HTTP, for curl and for languages
// without a client. It listens on the port of the server.
//
//	GET    /v1/kv/{key}    the value, as it is; ?consistency=stale if the server supports stale reads
//	PUT    /v1/kv/{key}    sets the key to the body; with "If-None-Match: *" only if the key has no value
//	DELETE /v1/kv/{key}
//	       /v1/kv?key=     the same three, for keys that a client would resolve in a path, such as "a/../b"
//	GET    /v1/kv?prefix=  the keys that begin so, in order; also ?after=K, ?limit=N and ?keys_only=true
//	POST   /v1/command     any request as on the wire: {"op":"append","key":"x","value":"1"}
//	GET    /v1/status      how the server sees itself
//	GET    /v1/log         entries of its log from ?from=N on, as many as fit; next is the number of the first one left out
//	GET    /v1/members     the members, if the server supports changing them; a change is a POST to /v1/command
//	GET    /v1/watch       changes of keys as server-sent events, if the server supports it; ?prefix=, ?from=N
//	GET    /livez          200 while the process is running
//	GET    /readyz         200 while the server is ready: it is a voter, and has applied what was committed when it first
//	                       heard from its leader; else 503, and the body says what is missing
//	GET    /metrics        for Prometheus
//
// Where clients have roles (see package access), a client shows its token with
// "Authorization: Bearer TOKEN". Without one, or with a wrong one, the answer is 401
// if the client may not do this; with a role that is too small it is 403. /livez and
// /readyz are open to everyone, because load balancers have no token; but why a
// server is not ready is told only to clients with the role read, which /metrics
// needs, too.
//
// An error is the JSON of the wire, with the status code that fits: 400 for a bad
// request, 404 for a key without a value, 405 for a method that a path does not
// accept, 409 for a cas that found another value and for a change of the members
// that the server refuses in its present state, 410 for a session that has
// expired or log entries that were compacted, 412 for a create whose key has a
// value, 413 for a key, a value or a body that is too long, 507 for a store that
// is full. A server that is not the leader sends the client to the leader with
// 307, if it knows one. 503, with Retry-After, says that nothing happened; 504
// says that the outcome is unknown.
//
// A request for something that the server does not support is refused before
// anything is done: with 400, or with 415 if the body has an encoding or a type
// that it does not accept. A web page of another site cannot write (403), and a
// server answers only requests that name it by one of its own names (421).
package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// waitTime is how long a request may take before its outcome counts as unknown.
const waitTime = 10 * time.Second

// writeTime is how long a client may then take to accept the answer.
const writeTime = 10 * time.Second

// maxBody is the longest body, in bytes: that of a line on the wire.
const maxBody = 1 << 20

// Options are the options of the API.
type Options struct {
	// Ops are the operations of the server.
	Ops api.Ops

	// Ask passes a request to the server, which calls reply once, at any time,
	// from any goroutine.
	Ask func(r api.Request, reply func(api.Response))

	// Access says what clients may do; nil means that they may do everything.
	Access *guard.Guard

	// Hosts are the names, without a port, by which clients may call the server.
	// IP addresses and localhost need not be named.
	Hosts []string

	// Bodies limits the bytes of bodies that are still arriving and of answers
	// that are still leaving; nil means no limit.
	Bodies *wire.Budget

	// Metrics are collected in addition to those of the status; nil for none.
	Metrics []prometheus.Collector
}

// New returns a handler of the API. It is safe for concurrent use.
func New(o Options) http.Handler {
	h := &handler{Options: o, origins: http.NewCrossOriginProtection()}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&statusCollector{h: h})
	registry.MustRegister(o.Metrics...)

	key := map[string]action{
		http.MethodGet:    needs(kv.Get, action{query: []string{"consistency"}, do: h.get}),
		http.MethodPut:    needs(kv.Put, action{body: true, create: true, do: h.put}),
		http.MethodDelete: needs(kv.Delete, action{do: h.delete}),
	}
	only := func(method string, a action) map[string]action { return map[string]action{method: a} }
	h.routes = map[string]map[string]action{
		kvPath:        key,
		keyQueryPath:  h.withList(withKey(key)),
		"/v1/command": only("POST", action{what: "POST /v1/command", role: access.Read, body: true, do: h.command}),
		"/v1/status":  only("GET", needs(api.Status, action{do: h.data(api.Request{Op: api.Status})})),
		"/v1/log":     only("GET", needs(api.Log, action{query: []string{"from"}, do: h.log})),
		"/livez":      only("GET", action{do: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }}),
		"/readyz":     only("GET", action{do: h.ready}),
		"/metrics":    only("GET", action{what: "/metrics", role: access.Read, do: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP}),
	}
	if _, known := o.Ops[api.Members]; known {
		h.routes["/v1/members"] = only("GET", needs(api.Members, action{do: h.data(api.Request{Op: api.Members})}))
	}
	if _, known := o.Ops[api.Watch]; known {
		h.routes["/v1/watch"] = only("GET", needs(api.Watch, action{query: []string{prefixQuery, "from"}, do: h.watch}))
	}
	return h
}

type handler struct {
	Options

	// origins recognizes the requests that a web page of another site makes.
	origins *http.CrossOriginProtection

	// routes are the paths, and the methods that each accepts. An http.ServeMux
	// would turn the key "a//b" into "a/b".
	routes map[string]map[string]action
}

// ServeHTTP answers one request, or refuses it.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A client that sends a request and never reads the answer must not hold the
	// connection forever. The call fails only for a writer that is not a
	// connection.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(waitTime + writeTime))
	if status, err := h.refuseSender(r); err != nil {
		h.fail(w, r, status, err)
		return
	}
	actions := h.find(r.URL.Path)
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	a, takes := actions[method]
	switch {
	case actions == nil:
		h.nothing(w, r)
		return
	case !takes:
		h.wrongMethod(w, r, actions)
		return
	}
	if status, err := h.refuseClient(w, r, a.what, a.role); err != nil {
		h.fail(w, r, status, err)
		return
	}
	if status, err := a.refuse(r); err != nil {
		if status == http.StatusUnsupportedMediaType && r.Header.Get("Content-Encoding") != "" {
			w.Header().Set("Accept-Encoding", "identity")
		}
		h.fail(w, r, status, err)
		return
	}
	a.do(w, r)
}

// find returns the actions of a path, or nil if there are none.
func (h *handler) find(path string) map[string]action {
	if strings.HasPrefix(path, kvPath) {
		path = kvPath
	}
	return h.routes[path]
}

func (h *handler) nothing(w http.ResponseWriter, r *http.Request) {
	paths := "/v1/kv/{key}, /v1/command, /v1/status, /v1/log, "
	if _, known := h.Ops[api.Members]; known {
		paths += "/v1/members, "
	}
	if _, known := h.Ops[api.Watch]; known {
		paths += "/v1/watch, "
	}
	h.fail(w, r, http.StatusNotFound, badRequest("there is no %s %s here; see %s/livez, /readyz, /metrics", r.Method, r.URL.Path, paths))
}

// wrongMethod answers a request for an existing path with a method that the path
// does not accept.
func (h *handler) wrongMethod(w http.ResponseWriter, r *http.Request, actions map[string]action) {
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPost} {
		if _, takes := actions[m]; takes {
			methods = append(methods, m)
		}
	}
	takes := strings.Join(methods, ", ")
	w.Header().Set("Allow", takes)
	e := badRequest("%s takes %s, not %s", r.URL.Path, takes, r.Method)
	if _, known := h.Ops[api.Change]; known && r.URL.Path == "/v1/members" {
		e.Message += `; a change of the members is a POST to /v1/command, such as {"op":"change","remove":[1]}`
	}
	h.fail(w, r, http.StatusMethodNotAllowed, e)
}

// ask passes a request to the server and waits for the answer, until waitTime has
// passed or the client has left.
func (h *handler) ask(r *http.Request, q api.Request) api.Response {
	answer := make(chan api.Response, 1)
	h.Ask(q, func(a api.Response) { answer <- a })
	late := time.NewTimer(waitTime)
	defer late.Stop()
	select {
	case a := <-answer:
		return a.WithData()
	case <-late.C:
	case <-r.Context().Done():
	}
	return api.Failed(q.ID, api.Lost("there was no answer in time"))
}

func (h *handler) get(w http.ResponseWriter, r *http.Request) {
	q := api.Request{Op: kv.Get, Key: keyOf(r), Consistency: r.URL.Query().Get("consistency")}
	if a, ok := h.do(w, r, q); ok {
		kind := "text/plain; charset=utf-8"
		if !utf8.ValidString(a.Value) {
			kind = "application/octet-stream"
		}
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, a.Value)
	}
}

// list answers a GET with a prefix.
func (h *handler) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	q := api.Request{Op: api.List, Prefix: query.Get(prefixQuery), After: query.Get("after"), Consistency: query.Get("consistency")}
	if text := query.Get("limit"); text != "" {
		limit, err := strconv.ParseUint(text, 10, 64)
		if err != nil || limit == 0 {
			h.fail(w, r, http.StatusBadRequest, badRequest("the query parameter \"limit\" is %q; it must be a whole number, at least 1", text))
			return
		}
		q.Limit = limit
	}
	switch text := query.Get("keys_only"); text {
	case "", "false":
	case "true":
		q.KeysOnly = true
	default:
		h.fail(w, r, http.StatusBadRequest, badRequest("the query parameter \"keys_only\" is %q; it must be true or false", text))
		return
	}
	h.data(q)(w, r)
}

func (h *handler) put(w http.ResponseWriter, r *http.Request) {
	value, ok := h.body(w, r, "value", kv.MaxValue)
	if !ok {
		return
	}
	op := kv.Put
	if len(r.Header.Values(createOnly)) > 0 {
		op = kv.Create
	}
	if a, ok := h.do(w, r, api.Request{Op: op, Key: keyOf(r), Value: string(value)}); ok {
		h.done(w, a)
	}
}

func (h *handler) delete(w http.ResponseWriter, r *http.Request) {
	if a, ok := h.do(w, r, api.Request{Op: kv.Delete, Key: keyOf(r)}); ok {
		h.done(w, a)
	}
}

// body reads the body of a request, up to a limit in bytes. Bodies that are still
// arriving use the budget Options.Bodies. After an error, body has answered the
// request and returns false.
func (h *handler) body(w http.ResponseWriter, r *http.Request, what string, limit int64) ([]byte, bool) {
	room := int(limit)
	if r.ContentLength >= 0 {
		room = int(min(limit, r.ContentLength))
	}
	if !h.Bodies.Take(room) {
		h.fail(w, r, http.StatusServiceUnavailable, h.crowded())
		return nil, false
	}
	defer h.Bodies.Give(room)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		h.fail(w, r, http.StatusRequestEntityTooLarge, &api.Error{Code: api.TooLarge, Definite: true, Message: fmt.Sprintf("the %s has more than %d bytes", what, limit)})
		return nil, false
	case err != nil:
		h.fail(w, r, http.StatusBadRequest, badRequest("the body could not be read: %v", err))
		return nil, false
	}
	return body, true
}

func (h *handler) crowded() *api.Error {
	return &api.Error{Code: api.Busy, Definite: true,
		Message: fmt.Sprintf("bodies that are still arriving or leaving hold %d bytes, which is the limit; this request changed nothing", h.Bodies.Limit())}
}

// command processes one request in the form that it has on the wire.
func (h *handler) command(w http.ResponseWriter, r *http.Request) {
	body, ok := h.body(w, r, "body", maxBody)
	if !ok {
		return
	}
	q, err := h.Ops.Decode(body)
	if err != nil {
		var e *api.Error
		errors.As(err, &e)
		h.failAs(w, r, q.ID, statusOf(e), e)
		return
	}
	if status, err := h.refuseClient(w, r, q.Op, access.Needs(q.Op)); err != nil {
		h.failAs(w, r, q.ID, status, err)
		return
	}
	a := h.ask(r, q)
	if a.Error != nil {
		h.failAs(w, r, q.ID, statusOf(a.Error), a.Error)
		return
	}
	if !h.Bodies.Take(len(a.Data)) {
		h.failAs(w, r, q.ID, http.StatusServiceUnavailable, h.crowded())
		return
	}
	defer h.Bodies.Give(len(a.Data))
	h.done(w, a)
}

// data answers with the data of an operation that is not a command.
func (h *handler) data(q api.Request) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, ok := h.do(w, r, q)
		if !ok {
			return
		}
		if !h.Bodies.Take(len(a.Data)) {
			h.fail(w, r, http.StatusServiceUnavailable, h.crowded())
			return
		}
		defer h.Bodies.Give(len(a.Data))
		writeJSON(w, http.StatusOK, a.Data)
	}
}

func (h *handler) log(w http.ResponseWriter, r *http.Request) {
	q := api.Request{Op: api.Log}
	if from := r.URL.Query().Get("from"); from != "" {
		n, err := strconv.ParseUint(from, 10, 64)
		if err != nil {
			h.fail(w, r, http.StatusBadRequest, badRequest("from is %q; want the number of an entry", from))
			return
		}
		q.From = n
	}
	h.data(q)(w, r)
}

// ready is for load balancers: the server's status says whether it can serve
// requests, and if not, why.
func (h *handler) ready(w http.ResponseWriter, r *http.Request) {
	a := h.ask(r, api.Request{Op: api.Status})
	status, err := api.DecodeStatus(a.Data)
	switch {
	case a.Error != nil:
		status.Unready = a.Error.Message
	case err != nil:
		status.Unready = "the server's status is malformed"
	case status.Ready != nil && *status.Ready:
		fmt.Fprintln(w, "ok")
		return
	}
	w.Header().Set("Retry-After", "1")
	if _, err := h.refuseClient(w, r, "/readyz", access.Read); err != nil {
		w.Header().Del("WWW-Authenticate") // it is not why the server refuses
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	http.Error(w, "not ready: "+status.Unready, http.StatusServiceUnavailable)
}

// do checks a request and sends it to the server. After an error, do has answered
// the request and returns false.
func (h *handler) do(w http.ResponseWriter, r *http.Request, q api.Request) (api.Response, bool) {
	if err := h.check(q); err != nil {
		h.fail(w, r, statusOf(err), err)
		return api.Response{}, false
	}
	a := h.ask(r, q)
	if a.Error != nil {
		h.fail(w, r, statusOf(a.Error), a.Error)
		return a, false
	}
	return a, true
}

// check makes the checks that api.Ops.Decode makes for a line.
func (h *handler) check(q api.Request) *api.Error {
	op, known := h.Ops[q.Op]
	switch {
	case !known:
		return badRequest("this server does not know %s; it knows %s", q.Op, h.Ops.Names())
	case q.Consistency != "" && op.May&api.Consistency == 0:
		return badRequest("%s takes no consistency here", q.Op)
	}
	if op.Needs&api.Key != 0 {
		return api.CheckCommand(q.Command())
	}
	var e *api.Error
	errors.As(h.Ops.Check(q), &e)
	return e
}

func badRequest(format string, args ...any) *api.Error {
	return &api.Error{Code: api.BadRequest, Message: fmt.Sprintf(format, args...), Definite: true}
}

func (h *handler) done(w http.ResponseWriter, a api.Response) {
	writeJSON(w, http.StatusOK, a.AppendJSON(nil))
}

// fail answers a request with an error.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, status int, e *api.Error) {
	h.failAs(w, r, 0, status, e)
}

// failAs answers the request with this id with an error, which may be a redirect
// to the leader.
func (h *handler) failAs(w http.ResponseWriter, r *http.Request, id uint64, status int, e *api.Error) {
	switch {
	case status == http.StatusTemporaryRedirect:
		w.Header().Set("Location", location(e.Leader, r))
	case status == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, api.Failed(id, e).AppendJSON(nil))
}

func statusOf(e *api.Error) int {
	switch e.Code {
	case api.BadRequest:
		return http.StatusBadRequest
	case api.NotFound:
		return http.StatusNotFound
	case api.Denied:
		return http.StatusForbidden
	case api.Mismatch, api.Refused:
		return http.StatusConflict
	case api.Exists:
		return http.StatusPreconditionFailed
	case api.TooLarge:
		return http.StatusRequestEntityTooLarge
	case api.NoSession, api.Compacted:
		return http.StatusGone
	case api.Full:
		return http.StatusInsufficientStorage
	case api.NotLeader:
		if e.Leader != "" {
			return http.StatusTemporaryRedirect
		}
		return http.StatusServiceUnavailable
	case api.Unknown:
		return http.StatusGatewayTimeout
	default:
		return http.StatusServiceUnavailable
	}
}

func writeJSON(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client may have left
}

// statusCollector provides the status as metrics.
type statusCollector struct{ h *handler }

// Describe sends nothing: the metrics depend on the stage.
func (c *statusCollector) Describe(chan<- *prometheus.Desc) {}

// Collect asks the server for its status.
func (c *statusCollector) Collect(out chan<- prometheus.Metric) {
	answer := make(chan api.Response, 1)
	c.h.Ask(api.Request{Op: api.Status}, func(a api.Response) { answer <- a })
	var a api.Response
	select {
	case a = <-answer:
	case <-time.After(waitTime):
		return
	}
	s, err := api.DecodeStatus(a.Data)
	if a.Error != nil || err != nil {
		return
	}
	for _, m := range []struct {
		name  string
		value uint64
	}{{"id", s.ID}, {"term", s.Term}, {"leader", s.Leader}, {"snapshot", s.Snapshot}, {"last", s.Last}, {"commit", s.Commit}, {"applied", s.Applied}} {
		gauge(out, "raft_"+m.name, "The field "+m.name+" of the status.", float64(m.value))
	}
	for name, count := range map[string]*int{"keys": s.Keys, "sessions": s.Sessions} {
		if count != nil {
			gauge(out, "raft_"+name, "The field "+name+" of the status.", float64(*count))
		}
	}
	if s.Ready != nil {
		gauge(out, "raft_ready", "1 if clients should be sent to this server.", isTrue(*s.Ready))
	}
	if s.Phase != "" {
		gauge(out, "raft_removed", "1 if the server was removed from the cluster.", isTrue(s.Removed))
	}
	gauge(out, "raft_is_leader", "1 if the server leads.", isTrue(s.Role == "leader"))
}

func gauge(out chan<- prometheus.Metric, name, help string, v float64) {
	desc := prometheus.NewDesc(name, help, nil, nil)
	out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v)
}

func isTrue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
