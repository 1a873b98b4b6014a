package cli

import (
	"cmp"
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/wire"
	"example.com/raftsteps/shared/run/cluster"
)

// The environment variables that replace the flags for TLS.
const (
	caVariable   = "KV_CACERT"
	certVariable = "KV_CERT"
	keyVariable  = "KV_KEY"
)

// tlsFlags are the files that a client uses for TLS; "" for none.
type tlsFlags struct{ ca, cert, key string }

func (f *tlsFlags) register(p *pflag.FlagSet) {
	p.StringVar(&f.ca, "cacert", "", "speak TLS, and trust the servers that this CA has signed (a file); or "+caVariable+" (default: as the cluster.json in the data folder says)")
	p.StringVar(&f.cert, "cert", "", "the client's certificate, with its role (a file); or "+certVariable)
	p.StringVar(&f.key, "key", "", "the key of that certificate (a file); or "+keyVariable)
}

// clientFiles returns the files of the flags, or else of the variables.
func (a *app) clientFiles() tlsFlags {
	f := a.flags.tls
	if a.inDemo { // a demo has its own servers
		return f
	}
	f.ca = cmp.Or(f.ca, os.Getenv(caVariable))
	f.cert, f.key = cmp.Or(f.cert, os.Getenv(certVariable)), cmp.Or(f.key, os.Getenv(keyVariable))
	return f
}

// The beginnings of an endpoint that say whether it speaks TLS.
const (
	plainScheme  = "http://"
	secureScheme = "https://"
)

// endpointWords splits a list of endpoints, and returns the scheme that all of them
// have; "" for none.
func endpointWords(list string) (words []string, scheme string, err error) {
	for i, word := range strings.Split(list, ",") {
		own := ""
		word = strings.TrimSpace(word)
		for _, s := range []string{plainScheme, secureScheme} {
			if rest, found := strings.CutPrefix(word, s); found {
				word, own = strings.TrimSuffix(rest, "/"), s
			}
		}
		if i > 0 && own != scheme {
			return nil, "", usagef("some endpoints begin with %s and others do not; all of them must speak TLS, or none", cmp.Or(own, scheme))
		}
		words, scheme = append(words, word), own
	}
	return words, scheme, nil
}

// secure returns the keys with which clients speak TLS to the servers; nil if they
// speak none. They speak it if the flags say so, or the endpoints, or the cluster.json
// of the cluster in the data folder.
func (a *app) secure() (*trust.ClientKeys, error) {
	files := a.clientFiles()
	list, source := a.endpointList()
	scheme := ""
	if list != "" {
		var err error
		if _, scheme, err = endpointWords(list); err != nil {
			return nil, err
		}
	}
	if scheme == plainScheme && files != (tlsFlags{}) {
		return nil, usagef("%s says %s, and --cacert, --cert and --key are for TLS; write %s, or leave them out", source, plainScheme, secureScheme)
	}
	own := ""
	if !a.elsewhere() {
		own = a.clusterCA()
	}
	if scheme == plainScheme || scheme == "" && files == (tlsFlags{}) && own == "" {
		return nil, nil
	}
	keys, err := trust.OpenClient(trust.ClientOptions{CA: cmp.Or(files.ca, own), Cert: files.cert, Key: files.key})
	if err != nil {
		return nil, usagef("TLS: %v", err)
	}
	return keys, nil
}

// clusterCA returns the CA of the cluster in the data folder; "" if there is none.
func (a *app) clusterCA() string {
	if a.stage.New == nil {
		return ""
	}
	file, found, err := a.clusterFile()
	if err != nil || !found {
		return "" // a command that needs the file says what is wrong with it
	}
	return file.CAFile(filepath.Join(a.flags.data, cluster.ConfigName))
}

// how returns how clients connect.
func (a *app) how() ([]DialOption, error) {
	keys, err := a.secure()
	if err != nil {
		return nil, err
	}
	token, _, err := a.token()
	if err != nil {
		return nil, err
	}
	how := []DialOption{wire.WithToken(token)}
	if keys != nil {
		how = append(how, wire.WithTLSFrom(keys.Config))
	}
	return how, nil
}

// dial returns a client for the servers at these addresses.
func (a *app) dial(addresses []string) (Client, error) {
	how, err := a.how()
	if err != nil {
		return nil, err
	}
	return a.stage.Dial(addresses, how...), nil
}

// open opens a connection to a server, for a command that sends lines itself.
func (a *app) open(ctx context.Context, address string) (net.Conn, error) {
	how, err := a.how()
	if err != nil {
		return nil, err
	}
	return wire.Open(ctx, address, how...)
}

// tlsWords returns the flags for TLS, for a command in a hint.
func (a *app) tlsWords() []string {
	var words []string
	f := a.flags.tls
	for _, flag := range []struct{ name, value string }{{"--cacert", f.ca}, {"--cert", f.cert}, {"--key", f.key}} {
		if flag.value != "" {
			words = append(words, flag.name, flag.value)
		}
	}
	return slices.Clip(words)
}
