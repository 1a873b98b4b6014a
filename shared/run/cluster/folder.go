package cluster

import (
	"cmp"
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
	"example.com/raftsteps/shared/core/transport"
)

// The files in a data folder, next to one folder per server (n1, n2, …).
const (
	// ConfigName is the cluster's configuration.
	ConfigName = "cluster.json"

	// stageName holds the name of the stage that the data belongs to.
	stageName = "stage"

	// controlName has the address of the running supervisor.
	controlName = "control.json"

	// lockName is locked while a supervisor runs.
	lockName = "lock"

	// startedName lists the servers that have had data in the folder, one per
	// line.
	startedName = "started"
)

// defaultServers is the default size of a cluster.
const defaultServers = 5

// Folder is a data folder that this process has locked.
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

// ConfigPath returns the path of the folder's cluster.json.
func (f *Folder) ConfigPath() string { return filepath.Join(f.Dir, ConfigName) }

// Close unlocks the folder.
func (f *Folder) Close() error { return f.lock.release() }

// OpenOptions describes the data folder to open and its cluster.
type OpenOptions struct {
	// Stage is the name of the stage. The data of another stage is refused.
	Stage string

	// Dir is the folder, which is created if it is missing.
	Dir string

	// Config is the cluster.json to use; "" for the one in the folder, which is
	// created if there is none.
	Config string

	// Servers is the number of servers; 0 keeps the number of an existing
	// cluster, or means five for a new one.
	Servers int

	// BasePort is the base of the ports of a new cluster. PortGiven is true if
	// the user asked for it: then an existing cluster must have it.
	BasePort  int
	PortGiven bool

	// CompactBytes is the compact_bytes of a new cluster; 0 for the default. An
	// existing cluster must have the same value.
	CompactBytes int64

	// Transport is the transport of a new cluster; "" for the default. An existing
	// cluster must have the same one.
	Transport string

	// TLS is true if the servers must speak TLS: a new cluster, or one that did not
	// speak it, gets a CA and certificates.
	TLS bool

	// Needs says which optional fields of the configuration the stage uses.
	Needs Needs

	// Fresh deletes the data first.
	Fresh bool
}

// Open locks a data folder until Close. It fails if a cluster is running in it,
// if it has the data of another stage or cluster, or if the configuration is
// wrong; then it has changed no data.
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
			return nil, fmt.Errorf("%s has %d servers, not %d; leave the number out", o.Config, len(f.Config.Members), o.Servers)
		}
		if o.PortGiven {
			return nil, fmt.Errorf("%s says which ports the servers have; leave --base-port out", o.Config)
		}
		if o.CompactBytes != 0 {
			return nil, fmt.Errorf("%s says when the servers compact their logs; leave --compact-bytes out", o.Config)
		}
		if o.Transport != "" {
			return nil, fmt.Errorf("%s says which transport the servers use; leave --transport out", o.Config)
		}
		if o.TLS {
			return nil, fmt.Errorf("%s says whether the servers speak TLS; leave --tls out", o.Config)
		}
		if !sameFile(o.Config, filepath.Join(o.Dir, ConfigName)) {
			if f.TLS, err = f.TLS.from(filepath.Dir(o.Config)); err != nil {
				return nil, fmt.Errorf("%s: %w", o.Config, err)
			}
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

// OpenSingle locks the folder of a single server. The folder has only the file
// through which commands reach the server.
func OpenSingle(dir string, m node.Member) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the folder for commands: %w", err)
	}
	l, err := acquire(dir)
	if errors.Is(err, errRunning) {
		return nil, fmt.Errorf("another terminal has started the server at %s, which is down; restart it, or press ^C in that terminal", m.Address)
	}
	if err != nil {
		return nil, err
	}
	return &Folder{Dir: dir, File: File{Config: node.Config{Members: []node.Member{m}}}, lock: l}, nil
}

// fill creates the folder's configuration, or makes it agree with the given
// one.
func (f *Folder) fill(o OpenOptions, given *File) error {
	if o.Fresh && given == nil {
		// Check the options of the new cluster before the old one is deleted.
		if _, err := newCluster(o); err != nil {
			return err
		}
	}
	return Alone(f.ConfigPath(), func() error { return f.write(o, given) })
}

// write is the part of fill that reads the configuration and saves it.
func (f *Folder) write(o OpenOptions, given *File) error {
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
	made := o.TLS && f.File.TLS == nil
	if made {
		f.File.TLS = TLSIn(TLSFolder)
	}
	if err := errors.Join(f.File.Check(), f.certifyAll(made)); err != nil {
		return err
	}
	f.File.DataDir = "."
	return f.File.Save(f.ConfigPath())
}

// settle sets File to the cluster that the folder belongs to from now on.
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
		return fmt.Errorf("%s holds the data of cluster %q, but %s describes cluster %q; name another folder with --data, or delete the data with --fresh",
			f.Dir, present.Config.Cluster, o.Config, given.Config.Cluster)
	}
	f.File = *given
	f.keepJoiners(present)
	if f.File.Config.Access == nil {
		f.File.Config.Access = present.Config.Access // a file that does not say it takes nothing away
	}
	return f.File.Check()
}

// keepJoiners keeps the servers that were started in this folder, which a
// user's file need not contain.
func (f *Folder) keepJoiners(present File) {
	for _, m := range present.Config.Joiners {
		if f.File.Config.Address(m.ID) == "" {
			f.File.Config.Joiners = append(f.File.Config.Joiners, m)
		}
	}
}

// keep continues with the existing cluster.
func (f *Folder) keep(o OpenOptions, present File) error {
	if err := present.CheckStage(o.Needs); err != nil {
		return fmt.Errorf("%s: %w", f.ConfigPath(), err)
	}
	members := present.Config.Members
	if o.Servers != 0 && o.Servers != len(members) {
		return fmt.Errorf("the cluster in %s has %d servers, not %d; leave -n out to continue with it, or delete it with --fresh",
			f.Dir, len(members), o.Servers)
	}
	if o.PortGiven {
		want := fmt.Sprintf(":%d", o.BasePort+int(members[0].ID))
		if !strings.HasSuffix(members[0].Address, want) {
			return fmt.Errorf("the cluster in %s already has its ports (%s); leave --base-port out to continue with it, or delete it with --fresh",
				f.Dir, MemberList(present.Config))
		}
	}
	if o.CompactBytes != 0 && o.CompactBytes != present.Config.CompactBytes {
		return fmt.Errorf("the cluster in %s already has its compact_bytes (see %s there); leave --compact-bytes out to continue with it, or delete it with --fresh",
			f.Dir, ConfigName)
	}
	if used := cmp.Or(present.Config.Transport, transport.TCP); o.Transport != "" && o.Transport != used {
		return fmt.Errorf("the servers of the cluster in %s use %s; leave --transport out to continue with it, change \"transport\" in its %s, or delete it with --fresh",
			f.Dir, used, ConfigName)
	}
	f.File = present
	return nil
}

// create creates a new cluster. It refuses a folder with the data of another
// cluster, whose servers would not start under a new name.
func (f *Folder) create(o OpenOptions) error {
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return fmt.Errorf("the data folder: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && serverFolder.MatchString(e.Name()) {
			return fmt.Errorf("%s holds the data of a cluster (%s), but its %s is missing: put it back, name a copy with --config, name another folder with --data, or delete the data with --fresh",
				f.Dir, e.Name(), ConfigName)
		}
	}
	file, err := newCluster(o)
	if err != nil {
		return err
	}
	f.File, f.Created = file, true
	return nil
}

// newCluster returns the configuration of a new cluster.
func newCluster(o OpenOptions) (File, error) {
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
		return File{}, err
	}
	file.Config.CompactBytes = o.CompactBytes
	if o.Transport != transport.TCP { // the file names only another transport than the default
		file.Config.Transport = o.Transport
	}
	return file, file.Check()
}

// Join adds a joiner to the configuration durably. It refuses a server that
// exists already, one whose address is taken, and one that has data here.
func (f *Folder) Join(m node.Member) error {
	if err := f.CheckJoin(m); err != nil {
		return err
	}
	return f.change(func(changed *File) error {
		changed.Config.Joiners = append(changed.Config.Joiners, m)
		if err := changed.Check(); err != nil || changed.TLS == nil {
			return err
		}
		return changed.certify(f.Dir, m.ID)
	})
}

// change changes the configuration durably.
func (f *Folder) change(how func(*File) error) error {
	return Alone(f.ConfigPath(), func() error {
		changed, err := f.present()
		if err != nil {
			return err
		}
		if err := how(&changed); err != nil {
			return err
		}
		if err := changed.Save(f.ConfigPath()); err != nil {
			return err
		}
		f.File = changed
		return nil
	})
}

// present returns what the file says now: the operator may have changed it while the
// cluster runs.
func (f *Folder) present() (File, error) {
	changed, err := Load(f.ConfigPath())
	if err == nil && changed.Config.Cluster != f.File.Config.Cluster {
		err = fmt.Errorf("%s is another cluster's now: it names %q, and cluster %q runs here", f.ConfigPath(), changed.Config.Cluster, f.File.Config.Cluster)
	}
	return changed, err
}

// CheckJoin returns the error with which Join would refuse a server, or nil.
func (f *Folder) CheckJoin(m node.Member) error {
	data := filepath.Join(f.Dir, node.Name(m.ID))
	_, err := os.Stat(data)
	switch known := f.File.Config.Address(m.ID); {
	case known != "":
		return fmt.Errorf("there is already a server %s, at %s; give the new server a number that no server has had", node.Name(m.ID), known)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s already exists, but a new server begins with an empty folder; give it a number that no server has had", data)
	}
	for _, other := range slices.Concat(f.File.Config.Members, f.File.Config.Joiners) {
		if other.Address == m.Address {
			return fmt.Errorf("the address %s is taken by %s; each server has its own", m.Address, node.Name(other.ID))
		}
	}
	return nil
}

// Unjoin undoes Join for a server that did not start, and removes its data.
func (f *Folder) Unjoin(id uint64) error {
	err := f.change(func(changed *File) error {
		changed.Config.Joiners = slices.DeleteFunc(changed.Config.Joiners, func(m node.Member) bool { return m.ID == id })
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(forgetStarted(f.Dir, id), os.RemoveAll(filepath.Join(f.Dir, node.Name(id))))
}

// AddressFor returns the address of a new server in a generated cluster: n4
// listens three ports above n1. If the members do not follow that pattern, the
// error asks for an address.
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
		return "", fmt.Errorf("the members' ports have no pattern that gives %s a port; name its address, host:port", node.Name(id))
	}
	return pattern, nil
}

// serverFolder matches the folders of servers' data.
var serverFolder = regexp.MustCompile(`^n[1-9][0-9]*$`)

// clear removes the data of a cluster from the folder, its configuration if config
// is true, and nothing else.
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
	if config {
		if err := f.clearTLS(); err != nil {
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

// CheckOwn refuses a folder that is not a data folder: it holds a file that is not
// a cluster's, no cluster has used it, and config is not in it.
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
			return fmt.Errorf("%s is not a data folder: it holds %s, which is not a file of a cluster; name another folder with --data", dir, e.Name())
		}
	}
	return nil
}

// isOurs reports whether an entry of a folder looks like a file of a cluster.
// One such name alone proves nothing.
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
		return fmt.Errorf("%s holds the data of stage %s, but this is %s; name another folder with --data, or delete that one", dir, other, stage)
	}
	return nil
}
