package replica

import (
	"context"

	"example.com/raftsteps/shared/core/api"
)

// Status returns this replica's view of itself and of the cluster.
func (r *Replica[M]) Status(ctx context.Context) (api.ServerStatus, error) {
	a, err := r.look(ctx, api.Request{Op: api.Status}, nil)
	if err != nil {
		return api.ServerStatus{}, err
	}
	return api.DecodeStatus(a.Data)
}

// Members returns the members as this replica knows them; at a follower this
// may be stale.
func (r *Replica[M]) Members(ctx context.Context) (api.Membership, error) {
	a, err := r.look(ctx, api.Request{Op: api.Members}, nil)
	if err != nil {
		return api.Membership{}, err
	}
	return api.DecodeMembership(a.Data)
}

// Change begins a membership change at the leader, which adds and removes
// servers at once. It returns when the change is committed, with the index of
// its entry; it then continues by itself, also under another leader, until
// Members says "stable". New servers must be running; they catch up first. The
// code of the error is api.Refused if the change makes no sense or another is
// under way.
func (r *Replica[M]) Change(ctx context.Context, add []api.Member, remove []uint64) (index uint64, err error) {
	a, err := r.host.Do(ctx, api.Request{Op: api.Change, Add: add, Remove: remove})
	return a.Index, err
}

// Cancel cancels, at the leader, a change whose new servers do not vote yet.
func (r *Replica[M]) Cancel(ctx context.Context) (index uint64, err error) {
	a, err := r.host.Do(ctx, api.Request{Op: api.Cancel})
	return a.Index, err
}

// Transfer, at the leader, transfers leadership to another member and returns
// when that member leads.
func (r *Replica[M]) Transfer(ctx context.Context, to uint64) error {
	_, err := r.host.Do(ctx, api.Request{Op: api.Transfer, To: to})
	return err
}
