package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/run/cluster"
)

// maxDays is the longest time for which a certificate can be valid.
const maxDays = 100 * 365

// certs is one run of the command certs.
type certs struct {
	app *app

	// dir is the folder of the new files, and config the path of the cluster.json that
	// they are for.
	dir, config string

	file     cluster.File
	ca       *trust.Authority
	lifetime time.Duration

	// created is true if the cluster.json is new.
	created bool

	// made has a row for each new file: its name, and what it is.
	made [][2]string
}

func (a *app) certsCommand() *cobra.Command {
	var out string
	var clients []string
	days := int(cluster.Lifetime / (24 * time.Hour))
	cmd := &cobra.Command{
		Use: "certs [SERVER=HOST:PORT[,NAME...]...]", Short: "Create certificates for servers and clients", GroupID: groupServers,
		Long: `Creates certificates for TLS, such as

  certs --out DIR n1=host1:7071 n2=10.0.0.2:7071,kv.example.org n3=host3:7071 --client app=write

A server's certificate is valid for its number, and for the host name or IP address by which clients reach it; further names
may follow after commas. A client's is for its role: read, write or operate. A new folder gets a CA and a cluster.json, too. If there
is a CA, it signs the new certificates, so a later run adds servers and clients, or replaces certificates before they end:
servers use the new files without a restart.

Without --out, the certificates are for the cluster in the data folder, which must speak TLS. Without arguments, each of its servers gets a new one.

Keep ca.key on a machine that runs no server: anyone who has it can be any server and any client.`,
		Args: a.takes(0, -1),
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", "", "the folder for the new files; it may have a cluster.json and a CA already")
	f.StringArrayVar(&clients, "client", nil, "a client and its role, such as app=write; may be given several times")
	f.IntVar(&days, "days", days, "for how many days the certificates are valid; never longer than the CA")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if days < 1 || days > maxDays {
			return usagef("--days is %d; it must be from 1 to %d", days, maxDays)
		}
		servers, names, err := certServers(args)
		if err != nil {
			return err
		}
		who, err := certClients(clients)
		if err != nil {
			return err
		}
		c := &certs{app: a, dir: out, lifetime: time.Duration(days) * 24 * time.Hour}
		if err := c.open(servers, names); err != nil {
			return err
		}
		return c.run(servers, names, who)
	}
	return cmd
}

// certClients reads NAME=ROLE.
func certClients(words []string) (clients []trust.Identity, err error) {
	for _, word := range words {
		name, role, _ := strings.Cut(word, "=")
		who := trust.Identity{Cluster: "any", Role: role, Name: name}
		if err := who.Check(); err != nil || name == "" {
			return nil, usagef("--client: %q is not a client with its role; write name=role, such as app=write; the roles are %s", word, strings.Join(trust.Roles, ", "))
		}
		if _, err := serverID(name); err == nil || name == "ca" {
			return nil, usagef("--client: the name %s is taken: n1.crt and the like belong to servers, and ca.crt to the CA", name)
		}
		clients = append(clients, who)
	}
	return clients, nil
}

// certServers reads SERVER=HOST:PORT[,NAME...]. names has, for each server, the names
// by which clients reach it.
func certServers(args []string) (servers []node.Member, names map[uint64][]string, err error) {
	names = make(map[uint64][]string)
	for _, arg := range args {
		word, rest, _ := strings.Cut(arg, "=")
		id, err := serverID(word)
		if err != nil || rest == "" {
			return nil, nil, usagef("%q is not a server with its address; write number=host:port, such as n1=host1:7071", arg)
		}
		address, more, _ := strings.Cut(rest, ",")
		if err := api.CheckMemberAddress(address); err != nil {
			return nil, nil, usagef("%s: %v", arg, err)
		}
		if names[id] != nil {
			return nil, nil, usagef("%s is named twice", node.Name(id))
		}
		names[id] = cluster.HostNames(address)
		for name := range strings.SplitSeq(more, ",") {
			switch {
			case more == "":
			case net.ParseIP(name) == nil && (name == "" || strings.ContainsAny(name, ":/= ")):
				return nil, nil, usagef("%s: %q is not a host name or an IP address", arg, name)
			default:
				names[id] = append(names[id], name)
			}
		}
		servers = append(servers, node.Member{ID: id, Address: address})
	}
	slices.SortFunc(servers, func(a, b node.Member) int { return cmp.Compare(a.ID, b.ID) })
	return servers, names, nil
}

// open finds the cluster and its CA, or creates them.
func (c *certs) open(servers []node.Member, names map[uint64][]string) error {
	if c.dir == "" {
		return c.openData()
	}
	c.config = filepath.Join(c.dir, cluster.ConfigName)
	file, err := cluster.Load(c.config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.create(servers, names)
	case err != nil:
		return err
	}
	c.file = file
	for _, m := range servers {
		if file.Config.Address(m.ID) == "" && !c.app.needs().Changes {
			return usagef("%s has no server %s; its servers are %s", c.config, node.Name(m.ID), cluster.ServerList(file.Config))
		}
	}
	if c.file.TLS == nil {
		if err := cluster.Alone(c.config, c.useTLS); err != nil {
			return err
		}
		c.note(c.config, `now has "tls"; copy it to every server`)
	}
	return c.openCA()
}

// useTLS writes into the cluster.json that the servers speak TLS.
func (c *certs) useTLS() error {
	file, err := cluster.Load(c.config)
	if err != nil {
		return err
	}
	c.file = file
	c.file.TLS = cluster.TLSIn("")
	if err := c.file.Check(); err != nil {
		return fmt.Errorf("%s: %w", c.config, err)
	}
	return c.file.Save(c.config)
}

// openData opens the cluster in the data folder.
func (c *certs) openData() error {
	file, found, err := c.app.clusterFile()
	c.config = filepath.Join(c.app.flags.data, cluster.ConfigName)
	switch {
	case err != nil:
		return err
	case !found:
		return usagef("there is no cluster in %s; name a folder for the certificates of another one with --out", c.app.flags.data)
	case file.TLS == nil:
		return usagef(`the servers of the cluster in %s speak no TLS; start it with: %s`, c.app.flags.data, c.app.folderLine("cluster", "--tls"))
	}
	c.file = file
	c.dir = filepath.Dir(file.CAFile(c.config))
	return c.openCA()
}

// create creates a new cluster of these servers.
func (c *certs) create(servers []node.Member, names map[uint64][]string) error {
	if len(servers) == 0 {
		return usagef("there is no %s in %s; name the servers of the new cluster, such as n1=host1:7071", cluster.ConfigName, c.dir)
	}
	var leader uint64
	if c.app.stage.Appointed {
		leader = servers[0].ID
	}
	c.file = cluster.NewOf(c.app.stage.Name, servers, leader)
	c.file.TLS = cluster.TLSIn("")
	if slices.ContainsFunc(servers, func(m node.Member) bool { return !isLoopback(m.Address) }) {
		c.file.Config.Access = &access.Policy{} // otherwise its servers would refuse to start
	}
	for _, m := range servers {
		for _, name := range names[m.ID][1:] {
			if c.app.stage.HTTP && name != "localhost" && net.ParseIP(name) == nil && !slices.Contains(c.file.Config.HTTPHosts, name) {
				c.file.Config.HTTPHosts = append(c.file.Config.HTTPHosts, name)
			}
		}
	}
	if err := c.file.Check(); err != nil {
		return usagef("%v", err)
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	err := cluster.Alone(c.config, func() error {
		if _, err := os.Stat(c.config); err == nil {
			return fmt.Errorf("another program has just created %s; run the command again", c.config)
		}
		if err := c.openCA(); err != nil {
			return err
		}
		return c.file.Save(c.config)
	})
	if err != nil {
		return err
	}
	c.created = true
	c.note(c.config, fmt.Sprintf("cluster %s with %s", c.file.Config.Cluster, cluster.MemberList(c.file.Config)))
	return nil
}

func isLoopback(address string) bool { return slices.Contains(cluster.HostNames(address), "localhost") }

// openCA opens the CA, or creates it if there is none.
func (c *certs) openCA() error {
	path := c.file.CAFile(c.config)
	key := cluster.CAKey(path)
	_, err := os.Stat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		if err := cluster.NewCA(c.file.Config.Cluster, path); err != nil {
			return err
		}
	} else if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the key of the CA is not here (%s); create certificates where it is", key)
	}
	if c.ca, err = trust.OpenAuthority(path, key); err != nil {
		return err
	}
	if fresh {
		c.note(path, fmt.Sprintf("the CA, until %s; every server and every client needs a copy", c.ca.Until().UTC().Format(time.DateOnly)))
		c.note(key, "signs certificates; keep it on a machine without a server")
	}
	return nil
}

func (c *certs) note(path, what string) { c.made = append(c.made, [2]string{path, what}) }

// issue creates one certificate.
func (c *certs) issue(who trust.Identity, hosts []string, cert, key, what string) error {
	who.Cluster = c.file.Config.Cluster
	pair, err := c.ca.Issue(who, hosts, c.lifetime)
	if err != nil {
		return usagef("%v", err)
	}
	if err := cluster.WritePair(pair, cert, key); err != nil {
		return err
	}
	c.note(cert, fmt.Sprintf("%s, until %s; its key is %s", what, pair.Until.UTC().Format(time.DateOnly), filepath.Base(key)))
	return nil
}

// run creates the certificates, and lists the new files.
func (c *certs) run(servers []node.Member, names map[uint64][]string, clients []trust.Identity) error {
	if len(servers)+len(clients) == 0 {
		servers = slices.Concat(c.file.Config.Members, c.file.Config.Joiners)
		for _, m := range servers {
			names[m.ID] = cluster.HostNames(m.Address)
		}
	}
	for _, m := range servers {
		files := c.file.Files(c.config, m.ID)
		what := fmt.Sprintf("server %s at %s", node.Name(m.ID), strings.Join(names[m.ID], ", "))
		if err := c.issue(trust.Identity{Server: m.ID}, names[m.ID], files.Cert, files.Key, what); err != nil {
			return err
		}
	}
	for _, who := range clients {
		base := filepath.Join(c.dir, who.Name)
		if err := c.issue(who, nil, base+".crt", base+".key", fmt.Sprintf("client %s with the role %s", who.Name, who.Role)); err != nil {
			return err
		}
	}
	table := tabwriter.NewWriter(c.app.stdout, 0, 8, 2, ' ', 0)
	for _, row := range c.made {
		fmt.Fprintf(table, "%s\t%s\n", row[0], row[1])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if c.created {
		fmt.Fprintf(c.app.stderr, "copy %s, ca.crt and the two files of each server to its machine, and start it there with: %s\n", cluster.ConfigName,
			c.app.commandLine("node", "--config", cluster.ConfigName, "--id", "N"))
	}
	for _, m := range servers {
		if c.file.Config.Address(m.ID) == "" {
			fmt.Fprintf(c.app.stderr, "%s does not name %s; start it with: %s, and then add it\n", c.config, node.Name(m.ID),
				c.app.commandLine("node", "--config", cluster.ConfigName, "--id", fmt.Sprint(m.ID), "--address", m.Address))
		}
	}
	return nil
}
