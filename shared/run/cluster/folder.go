package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// The files in a data folder, next to one folder a server (n1, n2, …).
const (
	// ConfigName is the cluster's configuration.
	ConfigName = "cluster.json"

	// stageName holds the name of the stage that the data belongs to.
	stageName = "stage"

	// controlName says how to reach the supervisor that runs.
	controlName = "control.json"

	// lockName is locked while a supervisor runs.
	lockName = "lock"

	// startedName lists the servers that have had data in the folder, one a line.
	startedName = "started"
)

// defaultServers is the size of a cluster when nobody says otherwise.
const defaultServers = 5

// Folder is a data folder that this process holds.
type Folder struct {
	// Dir is the folder.
	Dir string

	// File is the configuration of the cluster whose data it holds. Its DataDir
	// is ".".
	File File

	// Created is true if the configuration was made just now.
	Created bool

	lock *lock
}

// ConfigPath is where the folder's cluster.json stands.
func (f *Folder) ConfigPath() string { return filepath.Join(f.Dir, ConfigName) }

// Close gives the folder free.
func (f *Folder) Close() error { return f.lock.release() }

// OpenOptions say which data folder to hold, and for which cluster.
type OpenOptions struct {
	// Stage is the name of the stage; data of another one is refused.
	Stage string

	// Dir is the folder, which is made if it is missing.
	Dir string

	// Config is the cluster.json to use; "" for the one in the folder, which is
	// made up if there is none.
	Config string

	// Servers is how many the cluster should have; 0 for as many as it has,
	// five if it is new.
	Servers int

	// BasePort is the base of the ports of a cluster that is made up. PortGiven
	// is true if a person asked for it: then a cluster that is there already
	// must have it.
	BasePort  int
	PortGiven bool

	// CompactBytes is what a cluster that is made up has of it; 0 for the default.
	// A cluster that is there already must have it.
	CompactBytes int64

	// Needs are what the stage needs of the configuration.
	Needs Needs

	// Fresh throws the data away first.
	Fresh bool
}

// Open takes hold of a data folder until Close. It fails if a cluster runs on
// it, if it holds the data of another stage or another cluster, or if the
// configuration is bad; nothing was changed then.
func Open(o OpenOptions) (*Folder, error) {
	var given *File
	if o.Config != "" {
		f, err := Load(o.Config)
		if err != nil {
			return nil, err
		}
		if err := f.CheckStage(o.Needs); err != nil {
			return nil, fmt.Errorf("%s: %w", o.Config, err)
		}
		if o.Servers != 0 && o.Servers != len(f.Config.Members) {
			return nil, fmt.Errorf("%s has %d servers, not %d; leave -n out", o.Config, len(f.Config.Members), o.Servers)
		}
		if o.PortGiven {
			return nil, fmt.Errorf("%s says which ports the servers have; leave --base-port out", o.Config)
		}
		if o.CompactBytes != 0 {
			return nil, fmt.Errorf("%s says when the servers compact their logs; leave --compact-bytes out", o.Config)
		}
		given = &f
	}
	if err := CheckStage(o.Dir, o.Stage); err != nil {
		return nil, err
	}
	if err := CheckOwn(o.Dir, o.Config); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("the data folder: %w", err)
	}
	l, err := acquire(o.Dir)
	if err != nil {
		return nil, err
	}
	folder := &Folder{Dir: o.Dir, lock: l}
	if err := folder.fill(o, given); err != nil {
		l.release()
		return nil, err
	}
	return folder, nil
}

// OpenSingle takes hold of the folder of a server without others, which keeps
// nothing in it but the way for commands to reach it.
func OpenSingle(dir string, m node.Member) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the folder for commands: %w", err)
	}
	l, err := acquire(dir)
	if errors.Is(err, errRunning) {
		return nil, fmt.Errorf("another terminal has started the server at %s, which is not running now: restart it, or end it with ^C there", m.Address)
	}
	if err != nil {
		return nil, err
	}
	return &Folder{Dir: dir, File: File{Config: node.Config{Members: []node.Member{m}}}, lock: l}, nil
}

// fill brings the folder's configuration into being, or into agreement with
// the one given.
func (f *Folder) fill(o OpenOptions, given *File) error {
	if o.Fresh {
		if err := f.clear(given == nil || !sameFile(o.Config, f.ConfigPath())); err != nil {
			return err
		}
	}
	if err := f.settle(o, given); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(f.Dir, stageName), []byte(o.Stage+"\n")); err != nil {
		return err
	}
	f.File.DataDir = "."
	return f.File.Save(f.ConfigPath())
}

// settle decides which cluster the folder belongs to from now on.
func (f *Folder) settle(o OpenOptions, given *File) error {
	present, err := Load(f.ConfigPath())
	switch {
	case errors.Is(err, fs.ErrNotExist) && given == nil:
		return f.create(o)
	case errors.Is(err, fs.ErrNotExist):
		f.File = *given
		return nil
	case err != nil:
		return err
	case given == nil:
		return f.keep(o, present)
	case given.Config.Cluster != present.Config.Cluster:
		return fmt.Errorf("%s holds the data of cluster %q, but %s describes cluster %q; name another folder with --data, or throw the data away with --fresh",
			f.Dir, present.Config.Cluster, o.Config, given.Config.Cluster)
	}
	f.File = *given
	f.keepJoiners(present)
	return f.File.Check()
}

// keepJoiners keeps the servers that were started on this folder, of which a
// file that a person wrote need not know.
func (f *Folder) keepJoiners(present File) {
	for _, m := range present.Config.Joiners {
		if f.File.Config.Address(m.ID) == "" {
			f.File.Config.Joiners = append(f.File.Config.Joiners, m)
		}
	}
}

// keep goes on with the cluster that is there.
func (f *Folder) keep(o OpenOptions, present File) error {
	if err := present.CheckStage(o.Needs); err != nil {
		return fmt.Errorf("%s: %w", f.ConfigPath(), err)
	}
	members := present.Config.Members
	if o.Servers != 0 && o.Servers != len(members) {
		return fmt.Errorf("the cluster in %s has %d servers, not %d; leave -n out to continue with it, or throw it away with --fresh",
			f.Dir, len(members), o.Servers)
	}
	if o.PortGiven {
		want := fmt.Sprintf(":%d", o.BasePort+int(members[0].ID))
		if !strings.HasSuffix(members[0].Address, want) {
			return fmt.Errorf("the cluster in %s has its ports already (%s); leave --base-port out to continue with it, or throw it away with --fresh",
				f.Dir, MemberList(present.Config))
		}
	}
	if o.CompactBytes != 0 && o.CompactBytes != present.Config.CompactBytes {
		return fmt.Errorf("the cluster in %s has its compact_bytes already (see %s there); leave --compact-bytes out to continue with it, or throw it away with --fresh",
			f.Dir, ConfigName)
	}
	f.File = present
	return nil
}

// create makes up a new cluster. It refuses a folder with the data of another
// one: its servers would not start with a new name, and the old is forgotten.
func (f *Folder) create(o OpenOptions) error {
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return fmt.Errorf("the data folder: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && serverFolder.MatchString(e.Name()) {
			return fmt.Errorf("%s holds the data of a cluster (%s), but its %s is gone: put it back, name a copy with --config, name another folder with --data, or throw the data away with --fresh",
				f.Dir, e.Name(), ConfigName)
		}
	}
	servers := o.Servers
	if servers == 0 {
		servers = defaultServers
	}
	var leader uint64
	if o.Needs.Appointed {
		leader = 1
	}
	file, err := New(o.Stage, servers, o.BasePort, leader)
	if err != nil {
		return err
	}
	file.Config.CompactBytes = o.CompactBytes
	if err := file.Check(); err != nil {
		return err
	}
	f.File, f.Created = file, true
	return nil
}

// Join adds a joiner to the configuration, for good: it outlives a crash. It
// refuses a server that is there already, one whose address is taken, and one
// that has data here.
func (f *Folder) Join(m node.Member) error {
	if err := f.CheckJoin(m); err != nil {
		return err
	}
	changed := f.File
	changed.Config.Joiners = append(slices.Clone(f.File.Config.Joiners), m)
	if err := changed.Check(); err != nil {
		return err
	}
	if err := changed.Save(f.ConfigPath()); err != nil {
		return err
	}
	f.File = changed
	return nil
}

// CheckJoin says why Join would refuse a server, or nil.
func (f *Folder) CheckJoin(m node.Member) error {
	data := filepath.Join(f.Dir, node.Name(m.ID))
	_, err := os.Stat(data)
	switch known := f.File.Config.Address(m.ID); {
	case known != "":
		return fmt.Errorf("there is a server %s already, at %s; give the new one a number that no server has had", node.Name(m.ID), known)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s already exists, and a new server begins with nothing; give it a number that no server has had", data)
	}
	for _, other := range slices.Concat(f.File.Config.Members, f.File.Config.Joiners) {
		if other.Address == m.Address {
			return fmt.Errorf("the address %s is that of %s; each server has its own", m.Address, node.Name(other.ID))
		}
	}
	return nil
}

// Unjoin takes back what Join did for a server that did not come up, its data
// included.
func (f *Folder) Unjoin(id uint64) error {
	changed := f.File
	changed.Config.Joiners = slices.DeleteFunc(slices.Clone(f.File.Config.Joiners), func(m node.Member) bool { return m.ID == id })
	if err := changed.Save(f.ConfigPath()); err != nil {
		return err
	}
	f.File = changed
	return errors.Join(forgetStarted(f.Dir, id), os.RemoveAll(filepath.Join(f.Dir, node.Name(id))))
}

// AddressFor is where a new server would listen in a cluster that was made up:
// n4 three ports above n1. The error asks for an address where the members do
// not follow that pattern.
func (f File) AddressFor(id uint64) (string, error) {
	pattern := ""
	for _, m := range f.Config.Members {
		host, port, err := net.SplitHostPort(m.Address)
		n, numberErr := strconv.ParseUint(port, 10, 16)
		if err != nil || numberErr != nil || n < m.ID {
			pattern = ""
			break
		}
		address := func(id uint64) string { return net.JoinHostPort(host, strconv.FormatUint(n-m.ID+id, 10)) }
		if pattern != "" && pattern != address(id) {
			pattern = ""
			break
		}
		pattern = address(id)
	}
	if pattern == "" || api.CheckMemberAddress(pattern) != nil {
		return "", fmt.Errorf("the members' ports do not say which one %s should have; name its address, host:port", node.Name(id))
	}
	return pattern, nil
}

// serverFolder matches the folders of servers' data.
var serverFolder = regexp.MustCompile(`^n[1-9][0-9]*$`)

// clear removes what a cluster has left in the folder, and nothing else.
func (f *Folder) clear(config bool) error {
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return fmt.Errorf("--fresh: %w", err)
	}
	for _, e := range entries {
		ours := e.IsDir() && serverFolder.MatchString(e.Name()) || e.Name() == controlName || e.Name() == startedName || config && e.Name() == ConfigName
		if !ours {
			continue
		}
		if err := os.RemoveAll(filepath.Join(f.Dir, e.Name())); err != nil {
			return fmt.Errorf("--fresh: %w", err)
		}
	}
	return nil
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	two, err := os.Stat(b)
	return err == nil && os.SameFile(one, two)
}

// CheckOwn refuses a folder that is somebody else's: one that is not empty, that
// no cluster has used, and that does not hold the configuration which names it.
func CheckOwn(dir, config string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the data folder: %w", err)
	}
	_, unmarked := os.Stat(filepath.Join(dir, stageName))
	_, unnamed := Load(filepath.Join(dir, ConfigName))
	if unmarked == nil || unnamed == nil || config != "" && sameFile(filepath.Dir(config), dir) {
		return nil
	}
	for _, e := range entries {
		if !isOurs(e) {
			return fmt.Errorf("%s is not a data folder: it holds %s, which no cluster has made; name another folder with --data", dir, e.Name())
		}
	}
	return nil
}

// isOurs reports whether an entry of a folder looks like one that a cluster
// makes. Each of its names alone may be somebody else's.
func isOurs(e fs.DirEntry) bool {
	if e.IsDir() {
		return serverFolder.MatchString(e.Name())
	}
	name, _, _ := strings.Cut(e.Name(), tempMark)
	return slices.Contains([]string{ConfigName, stageName, controlName, lockName, startedName}, name)
}

// CheckStage refuses a data folder that holds the data of another stage.
func CheckStage(dir, stage string) error {
	text, err := os.ReadFile(filepath.Join(dir, stageName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the data folder: %w", err)
	}
	if other := strings.TrimSpace(string(text)); other != stage {
		return fmt.Errorf("%s holds the data of stage %s, and this is %s; name another folder with --data, or delete that one", dir, other, stage)
	}
	return nil
}
