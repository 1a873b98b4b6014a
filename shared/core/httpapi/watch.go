package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/wire"
)

// lastEventID is the header with which a browser's EventSource continues a stream
// that broke: the id of the last event that it has.
const lastEventID = "Last-Event-ID"

// watch sends changes of keys as they come, as server-sent events, until the client
// leaves or the server stops. The id of an event is its index.
//
//	id: 118
//	data: {"index":118,"key":"x","value":"1"}
func (h *handler) watch(w http.ResponseWriter, r *http.Request) {
	q := api.Request{Op: api.Watch, Prefix: r.URL.Query().Get(prefixQuery)}
	var refusal *api.Error
	if q.From, refusal = watchFrom(r); refusal != nil {
		h.fail(w, r, http.StatusBadRequest, refusal)
		return
	}
	for began := false; r.Context().Err() == nil; began = true {
		a := h.ask(r, q)
		events, err := api.DecodeEvents(a.Data)
		if a.Error == nil && err != nil {
			a.Error = api.Lost("the server's answer is malformed: " + err.Error())
		}
		if _, refusal := h.refuseClient(w, r, api.Watch, access.Needs(api.Watch)); refusal != nil {
			a.Error, events = refusal, api.Events{} // its token was removed meanwhile
		}
		if a.Error == nil && stops(r) {
			a.Error = &api.Error{Code: api.Unavailable, Definite: true, Message: "the server is stopping; go on with another one"}
		}
		room := 0
		if len(events.Events) > 0 {
			room = len(a.Data)
		}
		if !h.Bodies.Take(room) {
			a.Error, events, room = h.crowded(), api.Events{}, 0
		}
		if a.Error != nil && !began {
			h.fail(w, r, statusOf(a.Error), a.Error)
			return
		}
		if !began {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Cache-Control", "no-store")
		}
		sent := sendEvents(w, events, a.Error)
		h.Bodies.Give(room)
		if !sent || a.Error != nil || r.Method == http.MethodHead {
			return
		}
		q.From = events.Next
	}
}

// stops reports whether the server of a request is stopping.
func stops(r *http.Request) bool {
	select {
	case <-wire.Stopping(r):
		return true
	default:
		return false
	}
}

// watchFrom returns the index from which a client wants changes, 0 for the next one.
func watchFrom(r *http.Request) (uint64, *api.Error) {
	text, after, name := r.URL.Query().Get("from"), uint64(0), `the query parameter "from"`
	if last := r.Header.Get(lastEventID); last != "" {
		text, after, name = last, 1, "the header "+lastEventID
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, badRequest("%s is %q; it must be the index of an entry", name, text)
	}
	return n + after, nil
}

// sendEvents sends events, and an error at the end of the stream. It returns false
// if the client has left. Without an event it sends a comment, so that proxies keep
// the connection.
func sendEvents(w http.ResponseWriter, events api.Events, e *api.Error) bool {
	var b []byte
	for _, event := range events.Events {
		b = event.AppendJSON(fmt.Appendf(b, "id: %d\ndata: ", event.Index))
		b = append(b, "\n\n"...)
	}
	switch {
	case e != nil:
		b = append(api.Failed(0, e).AppendJSON(append(b, "event: error\ndata: "...)), "\n\n"...)
	case len(b) == 0:
		b = append(b, ":\n\n"...)
	}
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(waitTime + writeTime)) // fails only for a writer that is no connection
	if _, err := w.Write(b); err != nil {
		return false
	}
	return c.Flush() == nil
}
