package replica

import (
	"context"
	"encoding/json"
	"fmt"

	"example.com/raftsteps/shared/core/api"
)

// Status is how a replica sees itself and the cluster.
type Status struct {
	// ID is the replica's own.
	ID uint64 `json:"id"`

	// Role is "leader", "follower" or "candidate".
	Role string `json:"role"`

	// Term is the highest that it has heard of, and Leader who leads it; 0 if it
	// does not know.
	Term   uint64 `json:"term"`
	Leader uint64 `json:"leader"`

	// Last is the last entry of its log; those up to Commit are committed, up to
	// Applied applied, and up to Snapshot in its snapshot.
	Last     uint64 `json:"last"`
	Commit   uint64 `json:"commit"`
	Applied  uint64 `json:"applied"`
	Snapshot uint64 `json:"snapshot"`

	// Removed is true if it is not a member any more; it can be closed then, and
	// its folder deleted.
	Removed bool `json:"removed"`
}

// Status returns how this replica sees itself.
func (r *Replica[M]) Status(ctx context.Context) (s Status, err error) {
	err = r.describe(ctx, api.Status, &s)
	return s, err
}

// Members are the servers of a cluster as a replica knows them.
type Members struct {
	// Config is the entry of the log that says so, and Committed whether it is
	// committed.
	Config    uint64 `json:"config"`
	Committed bool   `json:"committed"`

	// Phase is "stable", or that of a change: "learning" while new servers catch
	// up, "joint" while both the old and the new ones decide.
	Phase string `json:"phase"`

	// Members are in the order of their IDs. There are none at a replica that has
	// not joined yet.
	Members []Member `json:"members"`
}

// Member is one server of a cluster.
type Member struct {
	ID      uint64 `json:"id"`
	Address string `json:"address"`

	// Voter is true if it counts now, Next if it will when the change is done.
	Voter bool `json:"voter"`
	Next  bool `json:"next"`

	// Match is how much of the log it has, as the leader knows; 0 at others.
	Match uint64 `json:"match"`
}

// Members returns who the members are, as far as this replica knows: at a
// follower that may be old.
func (r *Replica[M]) Members(ctx context.Context) (m Members, err error) {
	err = r.describe(ctx, api.Members, &m)
	return m, err
}

func (r *Replica[M]) describe(ctx context.Context, op string, to any) error {
	a, err := r.look(ctx, api.Request{Op: op}, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(a.Data, to); err != nil {
		return fmt.Errorf("the server's answer to %s: %w", op, err)
	}
	return nil
}

// Change begins a change of the members at the leader: some come, some go, all
// at once. It returns when the change is committed, with the index of its
// entry; it then goes on by itself, also under another leader, until Members
// says "stable". Who comes must be running, and is caught up first. The code of
// the error is api.Refused if the change makes no sense or another is under
// way.
func (r *Replica[M]) Change(ctx context.Context, add []api.Member, remove []uint64) (index uint64, err error) {
	a, err := r.host.Do(ctx, api.Request{Op: api.Change, Add: add, Remove: remove})
	return a.Index, err
}

// Cancel calls off, at the leader, a change whose new servers do not count yet.
func (r *Replica[M]) Cancel(ctx context.Context) (index uint64, err error) {
	a, err := r.host.Do(ctx, api.Request{Op: api.Cancel})
	return a.Index, err
}

// Transfer hands the lead, at the leader, to another member, and returns when
// that one leads.
func (r *Replica[M]) Transfer(ctx context.Context, to uint64) error {
	_, err := r.host.Do(ctx, api.Request{Op: api.Transfer, To: to})
	return err
}
