package journal_test

import (
	"bytes"
	"fmt"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/journal"
)

// A server saves a term and a vote, then two entries, then removes the second.
// The tabs that are written in advance are left out.
func Example() {
	d := disk.NewSim("n2")
	j, _, err := journal.Open(d, "journal", journal.Header{Stage: "05-election", Cluster: "c1", ID: 2, Incarnation: 0x5eed0fa11d15c5})
	if err != nil {
		fmt.Println(err)
		return
	}
	j.SetState(journal.State{Term: 4, Vote: 2})
	j.Append(journal.Entry{Index: 1, Term: 4, Kind: "noop"})
	j.Append(journal.Entry{Index: 2, Term: 4, Command: []byte(`{"op":"put","key":"x","value":"1"}`)})
	fmt.Println("saved:", j.Sync())
	j.Truncate(2)
	fmt.Println("saved:", j.Sync())

	text, _ := disk.ReadFile(d, "journal")
	fmt.Printf("%s", bytes.TrimRight(text, "\t"))

	// Output:
	// saved: <nil>
	// saved: <nil>
	// b722f8cd {"journal":{"version":1,"stage":"05-election","cluster":"c1","id":2,"incarnation":"005eed0fa11d15c5","lines":1},"synced":0}
	// 39f3ba1d {"state":{"term":4,"vote":2},"synced":133}
	// 78fcc55a {"entry":{"index":1,"term":4,"kind":"noop"},"synced":133}
	// b30cc2e9 {"entry":{"index":2,"term":4,"command":{"op":"put","key":"x","value":"1"}},"synced":133}
	// 7e3d85f3 {"truncate":{"from":2},"synced":350}
}
