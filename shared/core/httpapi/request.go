package httpapi

import (
	"fmt"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/trust"
)

// A key is in one of two places: in the path after kvPath, or, at keyQueryPath,
// in the query parameter "key".
const (
	kvPath       = "/v1/kv/"
	keyQueryPath = "/v1/kv"
	keyQuery     = "key"
)

// prefixQuery is the query parameter that makes a GET a list, and listQueries are
// the others of a list.
const prefixQuery = "prefix"

var listQueries = []string{"after", "limit", "keys_only"}

// createOnly is the header that makes a PUT set the key only if the key has no
// value. The value of the header is "*".
const createOnly = "If-None-Match"

// action describes one method of one path.
type action struct {
	// role is the role that a client needs, and what is the name of the action in
	// a refusal.
	role access.Role
	what string

	// query are the query parameters that the action accepts.
	query []string

	// body is true if the action accepts a body.
	body bool

	// create is true if the action accepts "If-None-Match: *", and then sets only
	// a key that has no value.
	create bool

	do http.HandlerFunc
}

// needs returns an action that carries out an operation, with the role that this
// needs.
func needs(op string, a action) action {
	a.what, a.role = op, access.Needs(op)
	return a
}

// withKey returns the actions for a key that is in the query.
func withKey(actions map[string]action) map[string]action {
	out := make(map[string]action)
	for method, a := range actions {
		a.query = append([]string{keyQuery}, a.query...)
		out[method] = a
	}
	return out
}

// withList returns the actions with a list: a GET that has a prefix and no key.
func (h *handler) withList(actions map[string]action) map[string]action {
	a := actions[http.MethodGet]
	get := a.do
	a.query = append(append(a.query, prefixQuery), listQueries...)
	a.do = func(w http.ResponseWriter, r *http.Request) {
		if isList(r) {
			h.list(w, r)
			return
		}
		get(w, r)
	}
	actions[http.MethodGet] = a
	return actions
}

// isList reports whether a request asks for a list.
func isList(r *http.Request) bool {
	return r.URL.Path == keyQueryPath && r.URL.Query().Has(prefixQuery)
}

// keyOf returns the key that a request is about.
func keyOf(r *http.Request) string {
	if r.URL.Path == keyQueryPath {
		return r.URL.Query().Get(keyQuery)
	}
	return strings.TrimPrefix(r.URL.Path, kvPath)
}

// location returns the URL of a request on the leader. A client resolves the URL
// before it follows it, and may change a path with the segments "." or "..", or
// with an empty segment. A key with such a segment goes into the query, which no
// client changes.
func location(leader string, r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	u := url.URL{Scheme: scheme, Host: leader, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	if u.Path != keyQueryPath && !strings.HasPrefix(u.Path, kvPath) || isList(r) {
		return u.String()
	}
	key, query := keyOf(r), r.URL.Query()
	query.Del(keyQuery)
	if staysInPath(key) {
		u.Path, u.RawPath = kvPath+key, kvPath+url.PathEscape(key)
	} else {
		u.Path = keyQueryPath
		query.Set(keyQuery, key)
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// staysInPath reports whether every client keeps this key when it resolves a path
// that ends with it. Some clients decode "%2e" and "%2F" first.
func staysInPath(key string) bool {
	for segment := range strings.SplitSeq(strings.ReplaceAll(key, `\`, "/"), "/") {
		switch decoded, err := url.PathUnescape(segment); {
		case err != nil, decoded != segment, segment == "", segment == ".", segment == "..":
			return false
		}
	}
	return true
}

// refuseSender refuses a request that a page of another web site may have made in
// a user's browser. The page can send a POST to an address that only the browser
// can reach, and its site can make its own name resolve to that address (DNS
// rebinding). The page cannot hide the Origin or the Host.
func (h *handler) refuseSender(r *http.Request) (status int, e *api.Error) {
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	switch {
	case !h.knowsHost(r.Host):
		return http.StatusMisdirectedRequest, badRequest("this server is not known as %q; use its IP address, or add the name to http_hosts in its cluster.json", r.Host)
	case h.origins.Check(r) != nil:
		return http.StatusForbidden, badRequest("a page of another site (Origin %q, Sec-Fetch-Site %q) may not send a %s; nothing was changed", origin, site, r.Method)
	case r.Method == http.MethodPost && (origin != "" || site != "") && mediaType(r) != "application/json":
		return http.StatusUnsupportedMediaType, badRequest("a POST from a web page must have the Content-Type application/json, not %q; nothing was changed", r.Header.Get("Content-Type"))
	}
	return 0, nil
}

// refuseClient refuses a client that lacks a role, and tells it how to get one.
func (h *handler) refuseClient(w http.ResponseWriter, r *http.Request, what string, role access.Role) (status int, e *api.Error) {
	if role == access.None || h.Access.Open() {
		return 0, nil
	}
	const challenge = `Bearer realm="raftsteps"`
	certified, _ := access.ParseRole(trust.Role(r.TLS)) // "" for a client without a certificate
	c := h.Access.Client(certified)
	if values := r.Header.Values("Authorization"); len(values) > 0 {
		scheme, token, _ := strings.Cut(values[0], " ")
		if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
			w.Header().Set("WWW-Authenticate", challenge)
			return http.StatusUnauthorized, &api.Error{Code: api.Denied, Definite: true, Message: "the header Authorization must be Bearer, a space and a token; nothing was done"}
		}
		if e := c.Show(strings.TrimSpace(token), r.RemoteAddr); e != nil {
			w.Header().Set("WWW-Authenticate", challenge+`, error="invalid_token"`)
			return http.StatusUnauthorized, e
		}
	}
	if e = c.Lacks(what, role); e == nil {
		return 0, nil
	}
	if !c.Shown() && certified == access.None {
		w.Header().Set("WWW-Authenticate", challenge)
		return http.StatusUnauthorized, e
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`%s, error="insufficient_scope", scope="%v"`, challenge, role))
	return http.StatusForbidden, e
}

// knowsHost reports whether a Host may name this server: an IP address,
// localhost, or one of the server's names. A request of HTTP/1.0 may have no
// Host.
func (h *handler) knowsHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if _, err := netip.ParseAddr(host); err == nil || host == "" || strings.EqualFold(host, "localhost") {
		return true
	}
	return slices.ContainsFunc(h.Hosts, func(name string) bool { return strings.EqualFold(host, strings.TrimSuffix(name, ".")) })
}

func mediaType(r *http.Request) string {
	name, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // "" if it is missing or malformed
	return name
}

// unsupported are the headers that ask for a feature that this server does not
// have. If the server ignored one of them, it would not do what the client asked
// for.
var unsupported = []struct {
	name   string
	status int
	why    string
}{
	{"If-Match", http.StatusBadRequest, `values have no ETags; POST {"op":"cas",…} to /v1/command compares values`},
	{createOnly, http.StatusBadRequest, "values have no ETags; a PUT with If-None-Match: * sets a key only if it has no value"},
	{"If-Modified-Since", http.StatusBadRequest, "values have no dates"},
	{"If-Unmodified-Since", http.StatusBadRequest, "values have no dates"},
	{"If-Range", http.StatusBadRequest, "values have no ETags and no dates"},
	{"Content-Range", http.StatusBadRequest, "a value is written as a whole"},
	{"Content-Encoding", http.StatusUnsupportedMediaType, "the server does not decode a body, so send it without an encoding"},
	{"Idempotency-Key", http.StatusBadRequest, "a POST to /v1/command with the fields session, since and seq is applied only once"},
	{"X-Http-Method-Override", http.StatusBadRequest, "send the method itself"},
}

// refuse refuses a request for a feature that the action does not have, before
// anything is done.
func (a action) refuse(r *http.Request) (status int, e *api.Error) {
	for _, u := range unsupported {
		values := r.Header.Values(u.name)
		if u.name == createOnly && a.create && slices.Equal(values, []string{"*"}) {
			continue
		}
		if len(values) > 0 {
			return u.status, badRequest("the header %s: %s is not supported: %s", u.name, strings.Join(values, ", "), u.why)
		}
	}
	switch {
	case !a.body && r.ContentLength != 0:
		return http.StatusBadRequest, badRequest("%s %s takes no body", r.Method, r.URL.Path)
	case strings.HasPrefix(mediaType(r), "multipart/"):
		return http.StatusUnsupportedMediaType, badRequest("this server does not support the Content-Type %s; send the body itself, as curl does with --data-binary", mediaType(r))
	}
	if e := a.refuseQuery(r); e != nil {
		return http.StatusBadRequest, e
	}
	return 0, nil
}

// refuseQuery refuses query parameters that the action does not accept, and those
// that are empty or given twice.
func (a action) refuseQuery(r *http.Request) *api.Error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("the query is malformed: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch values := query[name]; {
		case !slices.Contains(a.query, name):
			return badRequest("unknown query parameter %q; %s %s takes %s", name, r.Method, r.URL.Path, a.takes())
		case len(values) > 1:
			return badRequest("the query parameter %q is given %d times", name, len(values))
		case values[0] == "" && name != prefixQuery:
			return badRequest("the query parameter %q is empty", name)
		}
	}
	if slices.Contains(a.query, keyQuery) {
		return refuseKeyOrList(a, query)
	}
	return nil
}

// refuseKeyOrList refuses a query that names neither a key nor a list, or both.
func refuseKeyOrList(a action, query url.Values) *api.Error {
	lists := slices.Contains(a.query, prefixQuery)
	switch key, list := query.Has(keyQuery), query.Has(prefixQuery); {
	case key && list:
		return badRequest("a key and a prefix are in the query; leave one of them out")
	case !key && !list && lists:
		return badRequest("the key is missing: write /v1/kv/{key}, or /v1/kv?key={key}; for a list write /v1/kv?prefix=")
	case !key && !list:
		return badRequest("the key is missing: write /v1/kv/{key}, or /v1/kv?key={key}")
	case list:
		return nil
	}
	for _, name := range listQueries {
		if query.Has(name) {
			return badRequest("the query parameter %q is for a list, which has a prefix and no key", name)
		}
	}
	return nil
}

// takes lists the query parameters that an action accepts.
func (a action) takes() string {
	if len(a.query) == 0 {
		return "none"
	}
	return fmt.Sprintf("only %s", strings.Join(a.query, " and "))
}
