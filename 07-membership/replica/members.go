package replica

import (
	"context"

	"example.com/raftsteps/shared/core/api"
)

// Status returns how this replica sees itself and the cluster.
func (r *Replica[M]) Status(ctx context.Context) (api.ServerStatus, error) {
	a, err := r.look(ctx, api.Request{Op: api.Status}, nil)
	if err != nil {
		return api.ServerStatus{}, err
	}
	return api.DecodeStatus(a.Data)
}

// Members returns who the members are, as far as this replica knows: at a
// follower that may be old.
func (r *Replica[M]) Members(ctx context.Context) (api.Membership, error) {
	a, err := r.look(ctx, api.Request{Op: api.Members}, nil)
	if err != nil {
		return api.Membership{}, err
	}
	return api.DecodeMembership(a.Data)
}

// Change begins a change of the members at the leader: some come, some go, all
// at once. It returns when the change is committed, with the index of its
// entry; it then continues by itself, also under another leader, until Members
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
