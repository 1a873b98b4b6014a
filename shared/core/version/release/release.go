// Package release makes later releases of this program, for tests of upgrades: the same
// program, but it can use other versions of the protocols between servers.
package release

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"example.com/raftsteps/shared/core/version"
)

// module is the module of this package.
const module = "example.com/raftsteps/shared"

// files are the files in which each protocol has its versions.
var files = []string{
	"core/wire/hello.go",
	"core/transport/udp/hello.go",
	"core/transport/grpc/handshake.go",
}

// constants are the versions in a file.
var constants = regexp.MustCompile(`(?m)^(\tprotocol {7}= )(\d+)\n(\toldestProtocol = )(\d+)\n`)

// Next returns the versions of a protocol that the next release can use, if this
// program can use these: one more.
func Next(now version.Range) version.Range { return version.Between(now.Oldest, now.Newest+1) }

// After returns the versions that the release after the next one can use: none of those
// of this program.
func After(now version.Range) version.Range { return version.Between(now.Newest+1, now.Newest+2) }

// Overlay writes a file for go build -overlay, with which a program can use other
// versions of each protocol. It returns the path of that file.
func Overlay(t testing.TB, later func(now version.Range) version.Range) string {
	t.Helper()
	dir := t.TempDir()
	replace := make(map[string]string)
	for i, name := range files {
		path := filepath.Join(root(t), name)
		text, err := Change(path, later)
		if err != nil {
			t.Fatal(err)
		}
		replace[path] = filepath.Join(dir, fmt.Sprint(i, ".go"))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Change returns the text of a Go file that has the versions of a protocol, with others.
func Change(path string, later func(now version.Range) version.Range) (string, error) {
	text, at, have, err := read(path)
	if err != nil {
		return "", err
	}
	r := later(have)
	return fmt.Sprint(text[:at[4]], r.Newest, text[at[5]:at[8]], r.Oldest, text[at[9]:]), nil
}

// TCP returns the versions of the peers' protocol over TCP that this program can use,
// and UDP and GRPC those of the other ones.
func TCP(t testing.TB) version.Range { return versions(t, files[0]) }

// UDP is like TCP.
func UDP(t testing.TB) version.Range { return versions(t, files[1]) }

// GRPC is like TCP.
func GRPC(t testing.TB) version.Range { return versions(t, files[2]) }

func versions(t testing.TB, name string) version.Range {
	t.Helper()
	_, _, have, err := read(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// read reads the versions in a file, and where they are, as
// regexp.FindStringSubmatchIndex returns it.
func read(path string) (text string, at []int, have version.Range, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", nil, have, err
	}
	text = string(b)
	found := constants.FindAllStringSubmatchIndex(text, -1)
	if len(found) != 1 {
		return "", nil, have, fmt.Errorf("%s: want the constants protocol and oldestProtocol once, one after the other, as numbers", path)
	}
	at = found[0]
	newest, err1 := strconv.ParseUint(text[at[4]:at[5]], 10, 8)
	oldest, err2 := strconv.ParseUint(text[at[8]:at[9]], 10, 8)
	if err1 != nil || err2 != nil || oldest == 0 || oldest > newest {
		return "", nil, have, fmt.Errorf("%s: protocol is %s and oldestProtocol is %s", path, text[at[4]:at[5]], text[at[8]:at[9]])
	}
	return text, at, version.Between(oldest, newest), nil
}

// root returns the folder of the module.
func root(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("go list -m %s: %v", module, err)
	}
	return strings.TrimSpace(string(out))
}
