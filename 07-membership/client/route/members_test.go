package route

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// of is what a server answers that follows a leader, or 0 for none: which members
// there are by the configuration at an index.
func of(leader, config int, addresses ...string) api.Response {
	var list []string
	for i, address := range addresses {
		list = append(list, fmt.Sprintf(`{"id":%d,"address":%q,"voter":true}`, i+1, address))
	}
	return api.Response{Data: fmt.Appendf(nil, `{"id":1,"leader":%d,"config":%d,"phase":"stable","members":[%s]}`, leader, config, strings.Join(list, ","))}
}

// own are those of the steps that belong to the route's own calls.
func own(steps []node.Step) (lines []string) {
	for _, s := range steps {
		if s.Call >= node.Own {
			lines = append(lines, fmt.Sprintf("%d: %s after %v, for %v: %s", s.Call-node.Own, s.To, s.After, s.Timeout, s.Request.Op))
		}
	}
	return lines
}

// A client in use asks for the members now and then, soon if a server fails it, and
// at once if another leads.
func TestWhenAClientAsksForTheMembers(t *testing.T) {
	r := client()
	require.Equal(t, []string{"1: a after 2s, for 250ms: members"}, own(r.Begin(1, get)))
	require.Empty(t, own(r.Begin(2, get)))
	require.Equal(t, []string{"2: a after 100ms, for 250ms: members"}, own(r.Answered(1, api.Response{}, down)))
	require.Empty(t, own(r.Answered(1, api.Response{}, down)))
	require.Empty(t, r.Answered(node.Own+1, of(1, 9, "a", "b", "c"), nil))
	require.Equal(t, []string{"3: a after 2s, for 250ms: members"}, own(r.Begin(3, put)))
	r.Answered(3, api.Response{}, leads("b"))
	require.Empty(t, own(r.Answered(3, api.Response{Index: 5}, nil)))
	require.Equal(t, []string{"4: b after 0s, for 250ms: members"}, own(r.Begin(4, get)))
	require.Empty(t, own(r.Begin(5, get)))
	require.Len(t, r.questions, 3)
	for id := range uint64(4) {
		require.Empty(t, r.GaveUp(node.Own+1+id, nil, "in time"))
	}
	require.Empty(t, r.questions)
}

// Each server is asked once, until one follows a leader. A server that follows none
// may name others.
func TestAQuestionGoesFromServerToServer(t *testing.T) {
	r := client()
	r.Begin(1, get)
	require.Equal(t, []string{"1: b after 0s, for 250ms: members"}, own(r.Answered(node.Own+1, api.Response{}, lost)))
	require.Equal(t, []string{"1: c after 0s, for 250ms: members"}, own(r.Answered(node.Own+1, of(0, 9, "a", "d"), nil)))
	require.Equal(t, []string{"a", "b", "c", "d"}, r.servers)
	require.Equal(t, []string{"1: d after 0s, for 250ms: members"}, own(r.Answered(node.Own+1, api.Response{}, down)))
	require.Empty(t, r.Answered(node.Own+1, of(1, 7, "e", "d"), nil))
	require.Equal(t, []string{"e", "d", "a", "b", "c"}, r.servers)
	require.Equal(t, "e", r.reader, "reads go to members only")
	require.Equal(t, "a", r.leader, "it says itself if it is not")

	r.Begin(2, get)
	for range 5 {
		r.Answered(node.Own+2, api.Response{}, lost)
	}
	require.Empty(t, r.questions, "all have been asked")
}

// An answer that is older than what is known is not taken: the server may have been
// removed.
func TestOldMembersAreNotAdopted(t *testing.T) {
	r := client()
	for _, answer := range []api.Response{of(1, 9, "c"), of(1, 8, "b"), of(1, 10)} {
		r.Begin(1, get)
		r.Answered(1, api.Response{}, nil)
		r.Answered(node.Own+r.asked, answer, nil)
		require.Equal(t, []string{"c", "a", "b"}, r.servers)
	}
}

// A change goes to the leader, after the server has answered a read. It is not sent
// again once it may have been done.
func TestAChange(t *testing.T) {
	change := api.Request{Op: api.Change, Remove: []uint64{1}}
	for _, test := range []struct {
		answers []*api.Error
		want    []string
	}{
		{[]*api.Error{nil, nil}, []string{"1 asks a after 0s: members", "1 asks a after 0s: change", "1 ends: index 7"}},
		{[]*api.Error{lost, nil, leads("a"), nil, nil}, []string{
			"1 asks a after 0s: members", "1 asks b after 2.5ms: members", "1 asks b after 0s: change",
			"1 asks a after 5ms: members", "1 asks a after 0s: change", "1 ends: index 7"}},
		{[]*api.Error{nil, lost}, []string{"1 asks a after 0s: members", "1 asks a after 0s: change", "1 ends: unknown, definite false"}},
		{[]*api.Error{nil, {Code: api.Refused, Definite: true}}, []string{"1 asks a after 0s: members", "1 asks a after 0s: change", "1 ends: refused, definite true"}},
	} {
		r := client()
		got := tell(r.Begin(1, change))
		for _, e := range test.answers {
			steps := r.Answered(1, api.Response{Index: 7}, e)
			got = append(got, tell(steps)...)
			for _, s := range steps {
				require.Equal(t, s.Request.Op == api.Members, s.Timeout > 0, "the client waits for a change as long as the caller does")
			}
		}
		require.Equal(t, test.want, got)
	}
	r := client()
	r.Begin(1, change)
	require.Equal(t, []string{"1 ends: unavailable, definite true"}, tell(r.GaveUp(1, lost, "in time")), "it was not sent")
}
