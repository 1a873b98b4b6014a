package replica_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"example.com/raftsteps/07-membership/replica"
	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/core/node"
)

// bank is the state machine: accounts that cannot be overdrawn. It remembers
// its transfers, so that a duplicate is made only once.
type bank struct {
	Balance map[string]int
	Made    map[string]string
}

type transfer struct {
	Name, From, To string
	Amount         int
}

func newBank() *bank { return &bank{Balance: map[string]int{"ann": 100}, Made: map[string]string{}} }

func (b *bank) Apply(_ uint64, command []byte) any {
	var t transfer
	if err := json.Unmarshal(command, &t); err != nil || t.Amount < 0 {
		return "not a transfer"
	}
	if _, again := b.Made[t.Name]; again {
		return b.Made[t.Name]
	}
	if b.Balance[t.From] < t.Amount {
		b.Made[t.Name] = fmt.Sprintf("%s has only %d", t.From, b.Balance[t.From])
		return b.Made[t.Name]
	}
	b.Balance[t.From] -= t.Amount
	b.Balance[t.To] += t.Amount
	b.Made[t.Name] = "done"
	return b.Made[t.Name]
}

// A small state is simply written into one line. A larger one would have one
// line per account.
func (b *bank) Snapshot() server.View {
	text, err := json.Marshal(b)
	return view{text, err}
}

func (b *bank) Restore(line []byte) error { return json.Unmarshal(line, b) }

type view struct {
	text []byte
	err  error
}

func (v view) Save(line func(add func(b []byte) []byte)) error {
	line(func(b []byte) []byte { return append(b, v.text...) })
	return v.err
}

func (v view) Close() {}

// Three servers in one process replicate a bank. In production each server
// would run on its own machine, with the addresses in Members and no Transport.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "bank")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	config := node.Config{Cluster: "bank", Members: []node.Member{{ID: 1, Address: "one:1"}, {ID: 2, Address: "two:1"}, {ID: 3, Address: "three:1"}}}
	var network replica.Network
	replicas := make(map[uint64]*replica.Replica[*bank])
	for _, m := range config.Members {
		r, err := replica.Start(replica.Options[*bank]{
			ID: m.ID, Config: config, Machine: newBank, Dir: filepath.Join(dir, m.Address), Transport: network.Transport(m.ID),
		})
		if err != nil {
			log.Fatal(err)
		}
		defer r.Close()
		replicas[m.ID] = r
	}

	// The leader accepts commands. If the leader has changed, or the answer was
	// lost, the same transfer can be sent again.
	transfers := []string{
		`{"name":"rent","from":"ann","to":"bob","amount":70}`,
		`{"name":"shoes","from":"ann","to":"carl","amount":50}`,
		`{"name":"lunch","from":"bob","to":"carl","amount":10}`,
	}
	for _, t := range transfers {
		for {
			leader, err := replicas[1].Leader(ctx)
			if err != nil {
				log.Fatal(err)
			}
			if result, _, err := replicas[leader].Propose(ctx, []byte(t)); err == nil {
				fmt.Println(string(result))
				break
			}
		}
	}

	// Every replica can be read, and none returns a stale value.
	for _, m := range config.Members {
		err := replicas[m.ID].Read(ctx, func(b *bank) { fmt.Println(b.Balance) })
		if err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// "done"
	// "ann has only 30"
	// "done"
	// map[ann:30 bob:60 carl:10]
	// map[ann:30 bob:60 carl:10]
	// map[ann:30 bob:60 carl:10]
}
