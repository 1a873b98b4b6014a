package api

import (
	"cmp"
	"fmt"
	"sync/atomic"

	"example.com/raftsteps/shared/core/kv"
)

// Quota limits the size of a store. The server that receives a command checks it
// before the command is in any log. It is not checked when a command is applied:
// servers with different quotas must still hold the same content. It is safe for
// concurrent use.
type Quota struct {
	// Limit is how many bytes the store may hold, as kv.Store.Bytes counts them;
	// 0 is kv.StoreBytes.
	Limit int64

	// growing is how many bytes the commands without an answer may add.
	growing atomic.Int64
}

// Take returns the function by which the command must be answered, or says why it
// would not fit into the store. A command that does not make the store larger
// always fits, and so does every command if there is no store (nil).
func (q *Quota) Take(s *kv.Store, c kv.Command, reply func(Response)) (func(Response), *Error) {
	if s == nil {
		return reply, nil
	}
	grows := s.Growth(c)
	if grows == 0 {
		return reply, nil
	}
	limit := cmp.Or(q.Limit, kv.StoreBytes)
	if s.Bytes()+q.growing.Add(grows) > limit {
		q.growing.Add(-grows)
		return reply, &Error{Code: Full, Definite: true,
			Message: fmt.Sprintf("the store holds %d bytes and may hold %d; delete something first", s.Bytes(), limit)}
	}
	return func(r Response) {
		q.growing.Add(-grows)
		reply(r)
	}, nil
}
