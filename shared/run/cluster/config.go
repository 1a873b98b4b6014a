package cluster

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/transport"
)

// Limits of cluster.json.
const (
	// MaxServers is the largest number of members in one file.
	MaxServers = api.MaxMembers

	// MaxTimeout is the longest timeout.
	MaxTimeout = time.Hour

	// minSecret is the shortest secret, in bytes.
	minSecret = 16

	// minDistinct is the smallest number of different characters in a secret.
	// Of random secrets of 16 hexadecimal digits, fewer than one in a million
	// have fewer.
	minDistinct = 5

	// maxName is the longest name of a cluster, in bytes.
	maxName = 128

	// MinCompact and MaxCompact are the range of compact_bytes: from a journal
	// that is compacted all the time to one larger than any disk.
	MinCompact = 4 << 10
	MaxCompact = 1 << 40

	// maxHosts is how many names http_hosts may have.
	maxHosts = 100

	// The range of store_bytes.
	minStore = 4 << 10
	maxStore = 1 << 40

	// maxFile is how long a cluster.json may be, in bytes.
	maxFile = 1 << 20
)

// Transports are the names that "transport" may have. A program need not contain
// all of them.
var Transports = []string{transport.TCP, "udp", grpc}

// grpc is the transport that only a program with the build tag of this name
// contains.
const grpc = "grpc"

// The default timeouts.
var (
	defaultElectionTimeout = [2]time.Duration{150 * time.Millisecond, 300 * time.Millisecond}
	defaultHeartbeat       = 50 * time.Millisecond
)

// File is the content of a cluster.json.
//
//	{
//	  "cluster": "02-naive-replication-6e2c51",
//	  "secret": "…",
//	  "members": [
//	    {"id": 1, "address": "127.0.0.1:7021"},
//	    {"id": 2, "address": "127.0.0.1:7022"},
//	    {"id": 3, "address": "127.0.0.1:7023"}
//	  ],
//	  "leader": 1,
//	  "transport": "udp",
//	  "tls": {"ca": "tls/ca.crt", "cert": "tls/n{id}.crt", "key": "tls/n{id}.key", "client_auth": "none"},
//	  "election_timeout_ms": [150, 300],
//	  "heartbeat_ms": 50,
//	  "compact_bytes": 16777216,
//	  "store_bytes": 1073741824,
//	  "data_dir": ".",
//	  "fsync": true
//	}
//
// cluster, secret and members are required. leader is required in stages in which
// an operator appoints the leader, and refused in the others. Stages that compact
// their log accept compact_bytes, stages whose servers speak HTTP accept
// http_hosts, a list of names, and stages whose members can change accept joiners.
// joiners has the form of members: it lists the servers that were started later,
// whether they have become members or not. transport says what carries messages
// between the servers, by default tcp. The other fields have defaults.
//
// With tls, the servers speak only TLS, to each other and to clients. The paths are
// relative to the folder of the file, and {id} stands for the number of a server, so one
// cluster.json serves all of them. Each server needs a certificate with its number (see
// package trust); clients need one if client_auth is "require" in place of "none".
//
// An address is where the other servers and the clients reach a server. A server
// that listens on another address has "listen" too, such as "0.0.0.0:7021".
type File struct {
	// Config is the configuration that all servers share.
	Config node.Config

	// DataDir is the folder of the servers' data, as in the file: a relative
	// path is relative to the folder of the file. "" means the same as ".".
	DataDir string

	// TLS has the files for TLS; nil if the servers speak no TLS.
	TLS *TLS
}

// Data returns the folder of the servers' data, for a file at path.
func (f File) Data(path string) string {
	if filepath.IsAbs(f.DataDir) {
		return filepath.Clean(f.DataDir)
	}
	return filepath.Join(filepath.Dir(path), f.DataDir)
}

// New returns the configuration of a new cluster of n servers on this machine.
// Server i listens on the port base+i. The secret is new. leader is the
// appointed leader, or 0 if the servers elect one.
func New(stage string, n, base int, leader uint64) (File, error) {
	switch {
	case n < 1 || n > MaxServers:
		return File{}, fmt.Errorf("a cluster has 1 to %d servers, not %d", MaxServers, n)
	case base < 1 || base+n > 65535:
		return File{}, fmt.Errorf("base port %d leaves no room for %d servers: the ports go from 1 to 65535", base, n)
	}
	var members []node.Member
	for i := 1; i <= n; i++ {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(base+i))
		members = append(members, node.Member{ID: uint64(i), Address: address})
	}
	return NewOf(stage, members, leader), nil
}

// NewOf is New for servers on any machines.
func NewOf(stage string, members []node.Member, leader uint64) File {
	return File{Config: node.Config{
		Cluster:         stage + "-" + randomHex(3),
		Secret:          randomHex(32),
		Members:         members,
		Leader:          leader,
		ElectionTimeout: defaultElectionTimeout,
		Heartbeat:       defaultHeartbeat,
		Fsync:           true,
	}, DataDir: "."}
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// Load reads a cluster.json. It returns an error for text that is not JSON, for
// an unknown or duplicate field, for a wrong type, and for the errors of Check.
// The error names the file, the place and what to do.
func Load(path string) (File, error) {
	text, err := readFile(path)
	if err != nil {
		return File{}, err
	}
	f, err := decode(text)
	if err != nil {
		return File{}, place(path, text, err)
	}
	if err := f.Check(); err != nil {
		return File{}, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// missing is the error for a file that does not exist. It is an fs.ErrNotExist
// with a clearer message.
type missing string

func (m missing) Error() string        { return "there is no file " + string(m) }
func (m missing) Is(target error) bool { return target == fs.ErrNotExist }

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, missing(path)
	case err != nil:
		return nil, fmt.Errorf("the configuration: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder; name the file, such as %s", path, filepath.Join(path, ConfigName))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file but a pipe or a device; write the configuration to a file, which is read again at each start", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes; a configuration has at most %d", path, info.Size(), maxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	return text, nil
}

// Exposed returns a warning if users other than its owner can read or change a
// cluster.json; "" if they cannot, or if there is no such file.
func Exposed(path string) string {
	if !exposed(path) {
		return ""
	}
	return fmt.Sprintf("other users of this machine can read or change %s, which holds the cluster's secret: anyone who knows it is trusted as a server; protect it with: chmod 600 %[1]s", path)
}

// exposed reports whether users other than its owner can read or change a file.
func exposed(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows"
}

// place adds the file and the line to an error of the decoder.
func place(path string, text []byte, err error) error {
	var e *strict.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", path, err)
	}
	line := 1 + strings.Count(string(text[:min(e.Offset, len(text))]), "\n")
	if e.Field == "" {
		return fmt.Errorf("%s, line %d: %s", path, line, e.Message)
	}
	return fmt.Errorf("%s, line %d: field %q: %s", path, line, e.Field, e.Message)
}

func decode(text []byte) (File, error) {
	f := File{Config: node.Config{
		ElectionTimeout: defaultElectionTimeout,
		Heartbeat:       defaultHeartbeat,
		Fsync:           true,
	}}
	c := &f.Config
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "cluster":
			c.Cluster = d.String()
		case "secret":
			c.Secret = d.String()
		case "members":
			d.Array(func() { c.Members = append(c.Members, decodeMember(&d, c)) })
		case "joiners":
			d.Array(func() { c.Joiners = append(c.Joiners, decodeMember(&d, c)) })
		case "http_hosts":
			c.HTTPHosts = decodeHosts(&d)
		case "access":
			c.Access = access.Decode(&d)
		case "leader":
			c.Leader = d.Uint()
			if !d.Failed() && c.Leader == 0 {
				d.Fail("0 is not a server; leave the field out if no leader is appointed")
			}
		case "transport":
			c.Transport = d.String()
			if !d.Failed() && !slices.Contains(Transports, c.Transport) && !slices.Contains(transport.Names(), c.Transport) {
				d.Fail("there is no transport %q; choose one of %s, or leave the field out for tcp", c.Transport, strings.Join(Transports, ", "))
			}
		case "tls":
			f.TLS = decodeTLS(&d)
		case "election_timeout_ms":
			c.ElectionTimeout = decodeRange(&d)
		case "heartbeat_ms":
			c.Heartbeat = decodeMilliseconds(&d)
		case "compact_bytes":
			c.CompactBytes = decodeBytes(&d, MinCompact, MaxCompact)
		case "store_bytes":
			c.StoreBytes = decodeBytes(&d, minStore, maxStore)
		case "data_dir":
			f.DataDir = d.String()
		case "fsync":
			c.Fsync = d.Bool()
		default:
			d.Fail("unknown field; the fields are cluster, secret, members, joiners, http_hosts, access, leader, transport, tls, election_timeout_ms, heartbeat_ms, compact_bytes, store_bytes, data_dir and fsync")
		}
	})
	return f, d.End()
}

// decodeBytes reads a number of bytes in a range.
func decodeBytes(d *strict.Decoder, low, high uint64) int64 {
	n := d.Uint()
	if !d.Failed() && (n < low || n > high) {
		d.Fail("%d bytes; it must be from %d to %d; leave the field out for the default", n, low, high)
		return 0
	}
	return int64(n)
}

// decodeMember reads a server. Its listen address goes to c.
func decodeMember(d *strict.Decoder, c *node.Config) node.Member {
	var m node.Member
	var listen string
	d.Object(func(field []byte) {
		switch string(field) {
		case "id":
			m.ID = d.Uint()
		case "address":
			m.Address = d.String()
		case "listen":
			if listen = d.String(); !d.Failed() {
				if err := api.CheckAddress(listen); err != nil {
					d.Fail("%v", err)
				}
			}
		default:
			d.Fail("unknown field; the fields of a server are id, address and listen")
		}
	})
	if listen != "" {
		if c.Listen == nil {
			c.Listen = make(map[uint64]string)
		}
		c.Listen[m.ID] = listen
	}
	return m
}

// decodeHosts reads the names of http_hosts.
func decodeHosts(d *strict.Decoder) []string {
	var names []string
	d.Array(func() {
		name := d.String()
		switch {
		case d.Failed():
		case name == "" || strings.ContainsAny(name, ":/* ") || strings.ContainsFunc(name, isControl):
			d.Fail("%q is not a host name, such as kv.example.org: without a port and without *", name)
		case len(names) == maxHosts:
			d.Fail("more than %d names", maxHosts)
		}
		names = append(names, name)
	})
	return names
}

func decodeRange(d *strict.Decoder) [2]time.Duration {
	var r []time.Duration
	d.Array(func() {
		if len(r) == 2 {
			d.Fail("more than two numbers; it must be [lowest, highest]")
		}
		r = append(r, decodeMilliseconds(d))
	})
	if len(r) != 2 {
		d.Fail("%d numbers; it must be [lowest, highest]", len(r))
		return [2]time.Duration{}
	}
	return [2]time.Duration(r)
}

func decodeMilliseconds(d *strict.Decoder) time.Duration {
	ms := d.Uint()
	switch {
	case d.Failed():
		return 0
	case ms == 0:
		d.Fail("0 milliseconds; it must be at least 1")
		return 0
	case ms > uint64(MaxTimeout.Milliseconds()):
		d.Fail("%d milliseconds; it must be at most %d", ms, MaxTimeout.Milliseconds())
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// Check returns an error if the configuration is wrong. It sorts the members
// and the joiners by ID.
func (f *File) Check() error {
	c := &f.Config
	switch {
	case c.Cluster == "":
		return errors.New(`field "cluster" is missing: give the cluster a name`)
	case len(c.Cluster) > maxName || strings.ContainsFunc(c.Cluster, isControl):
		return fmt.Errorf(`field "cluster": a name has at most %d bytes and no control characters`, maxName)
	case c.Secret == "":
		return errors.New(`field "secret" is missing: with it, servers prove that they belong to the cluster; generate one, such as with: openssl rand -hex 32`)
	case len(c.Secret) < minSecret:
		return fmt.Errorf(`field "secret" has %d characters, so it can be guessed; use at least %d`, len(c.Secret), minSecret)
	case distinct(c.Secret) < minDistinct:
		return fmt.Errorf(`field "secret" has only %d different characters, so it can be guessed; generate a random one, such as with: openssl rand -hex 32`, distinct(c.Secret))
	case node.Ticks(c.Heartbeat) >= node.Ticks(c.ElectionTimeout[0]) && c.ElectionTimeout[0] <= c.ElectionTimeout[1]:
		return fmt.Errorf(`field "heartbeat_ms" is %d, but must be less than the lowest election timeout, %d, in steps of %d ms: otherwise followers start elections against a working leader`,
			c.Heartbeat.Milliseconds(), c.ElectionTimeout[0].Milliseconds(), node.TickInterval.Milliseconds())
	case c.ElectionTimeout[0] > c.ElectionTimeout[1]:
		return fmt.Errorf(`field "election_timeout_ms": the lowest, %d, is above the highest, %d; write [%[2]d, %[1]d]`,
			c.ElectionTimeout[0].Milliseconds(), c.ElectionTimeout[1].Milliseconds())
	}
	if err := checkServers(c.Members, c.Joiners); err != nil {
		return err
	}
	for _, servers := range [][]node.Member{c.Members, c.Joiners} {
		slices.SortFunc(servers, func(a, b node.Member) int { return cmp.Compare(a.ID, b.ID) })
	}
	if err := f.TLS.check(*c); err != nil {
		return err
	}
	if c.Leader != 0 && !slices.ContainsFunc(c.Members, func(m node.Member) bool { return m.ID == c.Leader }) {
		return fmt.Errorf(`field "leader" is %d, which is not a member; the members are %s`, c.Leader, MemberList(*c))
	}
	return nil
}

// distinct returns the number of different characters in a text.
func distinct(text string) int {
	seen := make(map[rune]bool)
	for _, r := range text {
		seen[r] = true
	}
	return len(seen)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7F }

func checkServers(members, joiners []node.Member) error {
	switch {
	case len(members) == 0:
		return errors.New(`field "members" is missing or empty: a cluster has at least one server`)
	case len(members) > MaxServers:
		return fmt.Errorf(`field "members" has %d servers; at most %d are allowed`, len(members), MaxServers)
	case len(members)+len(joiners) > MaxServers:
		return fmt.Errorf(`fields "members" and "joiners" have %d servers; at most %d are allowed`, len(members)+len(joiners), MaxServers)
	}
	all := slices.Concat(members, joiners)
	at := func(i int) string {
		if i < len(members) {
			return fmt.Sprintf("members[%d]", i)
		}
		return fmt.Sprintf("joiners[%d]", i-len(members))
	}
	for i, m := range all {
		switch {
		case m.ID == 0:
			return fmt.Errorf(`field "%s.id" is missing or 0; IDs start at 1`, at(i))
		case m.ID > api.MaxID:
			return fmt.Errorf(`field "%s.id" is %d; at most 2^53 is allowed`, at(i), m.ID)
		case m.Address == "":
			return fmt.Errorf(`field "%s.address" is missing: it is host:port, such as "127.0.0.1:7021"`, at(i))
		}
		if err := api.CheckMemberAddress(m.Address); err != nil {
			return fmt.Errorf(`field "%s.address": %w`, at(i), err)
		}
		for j, other := range all[:i] {
			if other.ID == m.ID {
				return fmt.Errorf(`field "%s.id": the id %d is taken by %s; each server has its own`, at(i), m.ID, at(j))
			}
			if other.Address == m.Address {
				return fmt.Errorf(`field "%s.address": the address %s is taken by %s; each server has its own`, at(i), m.Address, node.Name(other.ID))
			}
		}
	}
	return nil
}

// MemberList names the members for a message: n1 (127.0.0.1:7021), ….
func MemberList(c node.Config) string { return list(c.Members) }

// ServerList names the members and the joiners.
func ServerList(c node.Config) string { return list(slices.Concat(c.Members, c.Joiners)) }

func list(servers []node.Member) string {
	names := make([]string, len(servers))
	for i, m := range servers {
		names[i] = fmt.Sprintf("%s (%s)", node.Name(m.ID), m.Address)
	}
	return strings.Join(names, ", ")
}

// Needs says which optional fields a stage uses.
type Needs struct {
	// Appointed is true if the configuration names the stage's leader.
	Appointed bool

	// Compacts is true if the configuration may say when to compact the log.
	Compacts bool

	// Changes is true if the members can change, so that there may be joiners.
	Changes bool

	// HTTP is true if the servers speak HTTP, so that there may be http_hosts.
	HTTP bool

	// GRPC is the command that builds the stage with the transport grpc; "" if the
	// stage does not have it.
	GRPC string
}

// CheckStage returns an error if the file lacks a field that the stage needs,
// or has one that it does not use.
func (f File) CheckStage(n Needs) error {
	switch {
	case n.Appointed && f.Config.Leader == 0:
		return errors.New(`field "leader" is missing: this stage has no elections, so name the id of the leader`)
	case !n.Appointed && f.Config.Leader != 0:
		return errors.New(`field "leader": in this stage the servers elect their leader; leave the field out`)
	case !n.Compacts && f.Config.CompactBytes != 0:
		return errors.New(`field "compact_bytes": in this stage the log is not compacted; leave the field out`)
	case !n.HTTP && f.Config.HTTPHosts != nil:
		return errors.New(`field "http_hosts": in this stage the servers do not speak HTTP; leave the field out`)
	case !n.Changes && f.Config.Joiners != nil:
		return errors.New(`field "joiners": in this stage the members are fixed, so no server can join them; leave the field out`)
	}
	if err := n.CheckTransport(f.Config.Transport); err != nil {
		return fmt.Errorf(`field "transport": %w`, err)
	}
	return nil
}

// CheckTransport returns an error if this program does not contain a transport;
// "" is tcp.
func (n Needs) CheckTransport(name string) error {
	have := transport.Names()
	switch {
	case name == "" || slices.Contains(have, name):
		return nil
	case name == grpc && n.GRPC != "":
		return fmt.Errorf("this program was built without grpc; run it as %s …", n.GRPC)
	}
	return fmt.Errorf("this program has no transport %q; it has %s", name, strings.Join(have, ", "))
}

// Save writes the file atomically, indented, and readable only by its owner,
// because it contains the secret.
func (f File) Save(path string) error {
	text, err := json.MarshalIndent(f.onDisk(), "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, append(text, '\n'))
}

// fileOnDisk defines the names and the order of the fields.
type fileOnDisk struct {
	Cluster         string         `json:"cluster"`
	Secret          string         `json:"secret"`
	Members         []memberOnDisk `json:"members"`
	Joiners         []memberOnDisk `json:"joiners,omitempty"`
	HTTPHosts       []string       `json:"http_hosts,omitempty"`
	Access          any            `json:"access,omitempty"`
	Leader          uint64         `json:"leader,omitempty"`
	Transport       string         `json:"transport,omitempty"`
	TLS             *tlsOnDisk     `json:"tls,omitempty"`
	ElectionTimeout [2]int64       `json:"election_timeout_ms"`
	Heartbeat       int64          `json:"heartbeat_ms"`
	CompactBytes    int64          `json:"compact_bytes,omitempty"`
	StoreBytes      int64          `json:"store_bytes,omitempty"`
	DataDir         string         `json:"data_dir"`
	Fsync           bool           `json:"fsync"`
}

type memberOnDisk struct {
	ID      uint64 `json:"id"`
	Address string `json:"address"`
	Listen  string `json:"listen,omitempty"`
}

func (f File) onDisk() fileOnDisk {
	c := f.Config
	out := fileOnDisk{
		Cluster:         c.Cluster,
		Secret:          c.Secret,
		HTTPHosts:       c.HTTPHosts,
		Access:          c.Access.Encoded(),
		Leader:          c.Leader,
		Transport:       c.Transport,
		TLS:             f.TLS.onDisk(),
		ElectionTimeout: [2]int64{c.ElectionTimeout[0].Milliseconds(), c.ElectionTimeout[1].Milliseconds()},
		Heartbeat:       c.Heartbeat.Milliseconds(),
		CompactBytes:    c.CompactBytes,
		StoreBytes:      c.StoreBytes,
		DataDir:         f.DataDir,
		Fsync:           c.Fsync,
	}
	if out.DataDir == "" {
		out.DataDir = "."
	}
	for _, m := range c.Members {
		out.Members = append(out.Members, memberOnDisk{m.ID, m.Address, c.Listen[m.ID]})
	}
	for _, m := range c.Joiners {
		out.Joiners = append(out.Joiners, memberOnDisk{m.ID, m.Address, c.Listen[m.ID]})
	}
	return out
}

// tempMark follows the name of a file in the name of its temporary file.
const tempMark = ".tmp"

// changeTime is how long a change of a cluster.json waits for another one.
var changeTime = 5 * time.Second

// Alone calls change, which reads a cluster.json, changes it and saves it. No other
// program does so in the same folder meanwhile; otherwise one of two changes at the same
// time would be lost.
func Alone(path string, change func() error) error {
	dir := filepath.Dir(path)
	lock, err := disk.LockFolder(dir, changeTime)
	var locked *disk.LockedError
	switch {
	case errors.As(err, &locked):
		return fmt.Errorf("another program has been changing the files in %s for %v; nothing was done; try again", dir, changeTime)
	case errors.Is(err, fs.ErrNotExist):
		return change() // it will not find the file either, and says what to do
	case err != nil:
		return fmt.Errorf("%w; nothing was done", err)
	}
	return errors.Join(change(), lock.Close())
}

// writeFile writes a file with mode 0600 so that a crash leaves the old or the
// new file: write a temporary file, sync it, rename it, sync the folder.
func writeFile(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, filepath.Base(path)+tempMark)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
			os.Remove(temp.Name())
		}
	}()
	_, err = temp.Write(text)
	if err == nil {
		err = temp.Sync()
	}
	if closed := temp.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncFolder(dir)
}

// syncFolder makes a rename durable. Systems that cannot sync a folder report
// this in different ways, so the error is ignored.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	d.Sync()
	return d.Close()
}
