package film

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/lab/scenario"
)

// Script is everything that a film depends on, apart from the code.
type Script struct {
	// Stage is the folder of the stage, such as "05-election".
	Stage string

	// Seed determines all random choices.
	Seed uint64

	// Servers is the number of servers at first, 0 for five; Spare is the number
	// of further machines. A story brings its own.
	Servers int
	Spare   int

	// Story is a scenario that the stage declares, or "" for free play. It is
	// played up to the first deed.
	Story string

	// Edits are changes to the source of the stage, by name: the film shows what
	// they cause. The engine must have been built with exactly these.
	Edits []string

	// Steps and Time end the film; 0 means the defaults.
	Steps uint64
	Time  time.Duration

	// Deeds are what somebody does, in the order of their steps.
	Deeds []Deed
}

// Deed is one thing that somebody does to the cluster.
type Deed struct {
	// At is the step before which it happens, and Time the virtual time of that
	// moment, for people.
	At   uint64
	Time time.Duration

	// Do is what happens: one of the names below.
	Do string

	// Server is the server that it happens to; for a request without one, the
	// client finds a server by itself.
	Server uint64

	// From, To and Number name a message, and From and To a link.
	From, To, Number uint64

	// Groups are the sides of a partition.
	Groups [][]uint64

	// For is how long a message is delayed, or all of a link, or how much later the
	// copy of a message arrives.
	For time.Duration

	// Percent is the speed of a clock, 100 if it is right; or how many of the
	// messages of a link are lost or arrive twice.
	Percent uint64

	// Kind is the kind of a message: the name of its body on the wire, such as
	// requestVoteReply.
	Kind string

	// Client is who sends Request, a line of JSON as on the wire.
	Client  uint64
	Request string
}

// The deeds, by name.
const (
	Ask       = "request"
	Kill      = "kill"
	PowerCut  = "power-cut"
	CutWrite  = "power-cut-in-write"
	Restart   = "restart"
	Pause     = "pause"
	Resume    = "resume"
	FillDisk  = "full-disk"
	FailSync  = "failed-fsync"
	Cut       = "cut"
	Heal      = "heal"
	Partition = "partition"
	HealAll   = "heal-all"
	Lose      = "lose"
	Delay     = "delay"
	Repeat    = "repeat"
	Expire    = "expire"
	Clock     = "clock"

	// LoseNext loses the next message of a kind on a link. The others change a link
	// until they are done again with 0, or until HealAll.
	LoseNext   = "lose-next"
	LinkLoss   = "link-loss"
	LinkRepeat = "link-repeat"
	LinkDelay  = "link-delay"

	// These end what a story goes on doing after somebody has taken over from it:
	// its clients that ask by themselves, its rule about which messages are lost,
	// its faults at random, and what it has planned for later.
	EndLoads  = "end-loads"
	EndFilter = "end-filter"
	EndFaults = "end-faults"
	EndPlans  = "end-plans"
)

// needs says which fields a deed has.
type needs uint16

const (
	needsServer needs = 1 << iota
	needsLink
	needsNumber
	needsGroups
	needsRequest
	needsKind
	mayFor
	mayPercent
)

var deeds = map[string]needs{
	Ask:       needsRequest,
	Kill:      needsServer,
	PowerCut:  needsServer,
	CutWrite:  needsServer,
	Restart:   needsServer,
	Pause:     needsServer,
	Resume:    needsServer,
	FillDisk:  needsServer,
	FailSync:  needsServer,
	Cut:       needsLink,
	Heal:      needsLink,
	Partition: needsGroups,
	HealAll:   0,
	Lose:      needsLink | needsNumber,
	Delay:     needsLink | needsNumber | mayFor,
	Repeat:    needsLink | needsNumber | mayFor,
	Expire:    needsServer,
	Clock:     needsServer | mayPercent,

	LoseNext:   needsLink | needsKind,
	LinkLoss:   needsLink | mayPercent,
	LinkRepeat: needsLink | mayPercent,
	LinkDelay:  needsLink | mayFor,

	EndLoads:  0,
	EndFilter: 0,
	EndFaults: 0,
	EndPlans:  0,
}

// Kinds are the kinds of messages that servers send each other, in all stages.
var Kinds = []string{
	"replicate", "replicateReply", "appendEntries", "appendEntriesReply", "requestVote", "requestVoteReply",
	"readIndex", "readIndexReply", "installSnapshot", "installSnapshotReply", "timeoutNow",
}

// Limits of a script.
const (
	// MaxScript is the longest script, in bytes of JSON.
	MaxScript = 1 << 20

	// MaxServers bounds the machines of a cluster, MaxDeeds the deeds, and
	// MaxClients the clients.
	MaxServers = 9
	MaxDeeds   = 1000
	MaxClients = 100

	// MaxEdits bounds the edits of a script.
	MaxEdits = 8

	// maxPercent is the fastest clock, maxFor the longest delay.
	maxPercent = 1000
	maxFor     = time.Minute
)

func (s Script) servers() int { return cmp.Or(s.Servers, 5) }

// Decode reads a script. The error says where and what is wrong.
func Decode(text []byte) (Script, error) {
	var s Script
	if len(text) > MaxScript {
		return s, fmt.Errorf("a script of %d bytes is too long; %d are allowed", len(text), MaxScript)
	}
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "stage":
			s.Stage = d.String()
		case "seed":
			s.Seed = d.Uint()
		case "servers":
			s.Servers = int(min(d.Uint(), MaxServers+1))
		case "spare":
			s.Spare = int(min(d.Uint(), MaxServers+1))
		case "story":
			s.Story = d.String()
		case "edits":
			d.Array(func() {
				if len(s.Edits) == MaxEdits {
					d.Fail("more than %d edits", MaxEdits)
					return
				}
				s.Edits = append(s.Edits, d.String())
			})
		case "steps":
			s.Steps = d.Uint()
		case "time":
			s.Time = duration(&d)
		case "deeds":
			d.Array(func() {
				if len(s.Deeds) == MaxDeeds {
					d.Fail("more than %d deeds", MaxDeeds)
					return
				}
				s.Deeds = append(s.Deeds, decodeDeed(&d))
			})
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		return s, fmt.Errorf("the script: %w", err)
	}
	return s, nil
}

func decodeDeed(d *strict.Decoder) (e Deed) {
	d.Object(func(field []byte) {
		switch string(field) {
		case "at":
			e.At = d.Uint()
		case "time":
			e.Time = duration(d)
		case "do":
			e.Do = d.String()
		case "server":
			e.Server = d.Uint()
		case "from":
			e.From = d.Uint()
		case "to":
			e.To = d.Uint()
		case "number":
			e.Number = d.Uint()
		case "groups":
			d.Array(func() {
				var group []uint64
				d.Array(func() { group = append(group, d.Uint()) })
				e.Groups = append(e.Groups, group)
			})
		case "for":
			e.For = duration(d)
		case "percent":
			e.Percent = d.Uint()
		case "kind":
			e.Kind = d.String()
		case "client":
			e.Client = d.Uint()
		case "request":
			e.Request = d.String()
		default:
			d.Unknown()
		}
	})
	return e
}

// duration reads a number of nanoseconds.
func duration(d *strict.Decoder) time.Duration {
	const most = 365 * 24 * time.Hour
	n := d.Uint()
	if n > uint64(most) {
		d.Fail("%d ns are more than a year", n)
		return 0
	}
	return time.Duration(n)
}

// AppendJSON appends the script as a JSON object, on one line. Decode reads it.
func (s Script) AppendJSON(b []byte) []byte {
	b = append(b, `{"stage":`...)
	b = strict.AppendString(b, s.Stage)
	b = strict.AppendNumber(b, "seed", s.Seed)
	b = strict.AppendNumber(b, "servers", uint64(s.Servers))
	b = strict.AppendNumber(b, "spare", uint64(s.Spare))
	b = strict.AppendText(b, "story", s.Story)
	if len(s.Edits) > 0 {
		b = strict.AppendArray(b, "edits", s.Edits, func(b []byte, name string) []byte { return strict.AppendString(b, name) })
	}
	b = strict.AppendNumber(b, "steps", s.Steps)
	b = strict.AppendNumber(b, "time", uint64(s.Time))
	if len(s.Deeds) > 0 {
		b = strict.AppendArray(b, "deeds", s.Deeds, func(b []byte, e Deed) []byte { return e.appendJSON(b) })
	}
	return append(b, '}')
}

func (e Deed) appendJSON(b []byte) []byte {
	b = append(b, `{"at":`...)
	b = strconv.AppendUint(b, e.At, 10)
	b = strict.AppendNumber(b, "time", uint64(e.Time))
	b = strict.AppendText(b, "do", e.Do)
	b = strict.AppendNumber(b, "server", e.Server)
	b = strict.AppendNumber(b, "from", e.From)
	b = strict.AppendNumber(b, "to", e.To)
	b = strict.AppendNumber(b, "number", e.Number)
	if len(e.Groups) > 0 {
		b = strict.AppendArray(b, "groups", e.Groups, func(b []byte, group []uint64) []byte {
			b = append(b, '[')
			for _, id := range group {
				b = strconv.AppendUint(strict.AppendComma(b), id, 10)
			}
			return append(b, ']')
		})
	}
	b = strict.AppendNumber(b, "for", uint64(e.For))
	b = strict.AppendNumber(b, "percent", e.Percent)
	b = strict.AppendText(b, "kind", e.Kind)
	b = strict.AppendNumber(b, "client", e.Client)
	b = strict.AppendText(b, "request", e.Request)
	return append(b, '}')
}

// Deeds returns the names of all deeds, sorted.
func Deeds() []string { return slices.Sorted(maps.Keys(deeds)) }

// Fields returns the names of the fields that a deed may have, as in JSON, apart from
// at, time and do.
func Fields(deed string) []string {
	var names []string
	for _, f := range []struct {
		field needs
		names []string
	}{
		{needsServer, []string{"server"}}, {needsLink, []string{"from", "to"}}, {needsNumber, []string{"number"}}, {needsGroups, []string{"groups"}},
		{needsKind, []string{"kind"}}, {mayFor, []string{"for"}}, {mayPercent, []string{"percent"}}, {needsRequest, []string{"server", "client", "request"}},
	} {
		if deeds[deed]&f.field != 0 {
			names = append(names, f.names...)
		}
	}
	return names
}

// Check returns what is wrong with a script for a stage, or nil.
func (s Script) Check(stage scenario.Stage) error {
	switch {
	case s.Stage != stage.Name:
		return fmt.Errorf("the script is for %q, and this is %s", s.Stage, stage.Name)
	case !slices.Equal(s.Edits, stage.Edits):
		return fmt.Errorf("the script needs %s with %s, and this engine has %s", stage.Name, withEdits(s.Edits), withEdits(stage.Edits))
	case s.Servers < 0 || s.Spare < 0 || s.servers()+s.Spare > MaxServers:
		return fmt.Errorf("the script has more than %d servers", MaxServers)
	case s.Steps > MaxSteps:
		return fmt.Errorf("the script has %d steps; %d are allowed", s.Steps, MaxSteps)
	case s.Time < 0 || s.Time > MaxTime:
		return fmt.Errorf("the script takes %v; %v are allowed", s.Time, MaxTime)
	case len(s.Deeds) > MaxDeeds:
		return fmt.Errorf("the script has %d deeds; %d are allowed", len(s.Deeds), MaxDeeds)
	case s.Story != "" && (s.Servers != 0 || s.Spare != 0):
		return fmt.Errorf("the story %s brings its own servers: take out servers and spare", s.Story)
	case s.Story != "" && !stage.Applies(s.Story):
		return fmt.Errorf("%s does not play %.40q; it plays %s", stage.Name, s.Story, strings.Join(slices.Concat(stage.Survives, stage.Fails), ", "))
	}
	before := uint64(1)
	for i, e := range s.Deeds {
		if err := e.check(s, stage.Ops); err != nil {
			return fmt.Errorf("deed %d: %w", i+1, err)
		}
		if e.At < before {
			return fmt.Errorf("deed %d: step %d comes before step %d of the deed before it; the first step is 1", i+1, e.At, before)
		}
		before = e.At
	}
	return nil
}

// withEdits names edits in words.
func withEdits(names []string) string {
	switch len(names) {
	case 0:
		return "no edit"
	case 1:
		return fmt.Sprintf("the edit %.60q", names[0])
	}
	return fmt.Sprintf("the edits %.60q", names)
}

// check returns what is wrong with a deed, or nil. A story may have more machines
// than is known here, so whether a server exists is asked when the deed is done.
func (e Deed) check(s Script, ops api.Ops) error {
	wants, known := deeds[e.Do]
	if !known {
		return fmt.Errorf("there is no deed %.40q; there are %s", e.Do, strings.Join(Deeds(), ", "))
	}
	given := needs(0)
	for _, f := range []struct {
		field needs
		is    bool
	}{
		{needsServer, e.Server != 0}, {needsLink, e.From != 0 || e.To != 0}, {needsNumber, e.Number != 0}, {needsGroups, len(e.Groups) > 0},
		{needsRequest, e.Request != "" || e.Client != 0}, {mayFor, e.For != 0}, {mayPercent, e.Percent != 0},
		{needsKind, e.Kind != ""},
	} {
		if f.is {
			given |= f.field
		}
	}
	if wants&needsRequest != 0 {
		given &^= needsServer // a request may name one
	}
	const optional = mayFor | mayPercent
	switch {
	case given&^wants != 0:
		return fmt.Errorf("%s has a field that it does not take", e.Do)
	case wants&^(given|optional) != 0:
		return fmt.Errorf("%s lacks a field", e.Do)
	case wants&needsLink != 0 && (e.From == 0 || e.To == 0 || e.From == e.To):
		return fmt.Errorf("%s needs two different servers, from and to", e.Do)
	case e.For < 0 || e.For > maxFor:
		return fmt.Errorf("%v is too long; %v are allowed", e.For, maxFor)
	case e.Do == Clock && e.Percent > maxPercent:
		return fmt.Errorf("a clock may run at %d %% at most", maxPercent)
	case e.Do != Clock && e.Percent > 100:
		return fmt.Errorf("%d %% of the messages are more than all", e.Percent)
	case e.Kind != "" && !slices.Contains(Kinds, e.Kind):
		return fmt.Errorf("there is no kind of message %.40q; there are %s", e.Kind, strings.Join(Kinds, ", "))
	case e.Client > MaxClients:
		return fmt.Errorf("there are %d clients at most", MaxClients)
	case len(e.Groups) > MaxServers:
		return fmt.Errorf("a partition has %d sides at most", MaxServers)
	case wants&needsRequest != 0 && e.Client == 0:
		return fmt.Errorf("%s needs a client", e.Do)
	}
	if wants&needsRequest != 0 {
		if _, err := ops.Decode([]byte(e.Request)); err != nil {
			return fmt.Errorf("the request: %w", err)
		}
	}
	return nil
}

// unknownServer says that a deed names a machine that the cluster does not have.
func unknownServer(id uint64) string { return node.Name(id) + " does not exist" }
