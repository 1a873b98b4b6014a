package readme

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// curl runs the program that stands in for curl, and returns its output and its
// exit code.
func curl(t *testing.T, args ...string) (string, int) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleVariable+"=curl")
	out, err := cmd.CombinedOutput()
	if err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestCurl(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/from" {
			http.Redirect(w, r, "/to", http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("Date", "today")
		io.WriteString(w, r.Method+" "+r.URL.Path+" "+string(body)+r.Header.Get("Authorization"))
	}))
	defer server.Close()
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{args: []string{server.URL + "/a"}, want: "GET /a "},
		{args: []string{strings.TrimPrefix(server.URL, "http://") + "/a"}, want: "GET /a "},
		{args: []string{"-d", "x", server.URL + "/a"}, want: "POST /a x"},
		{args: []string{"-H", "Authorization: Bearer t", server.URL + "/a"}, want: "GET /a Bearer t"},
		{args: []string{"-L", "-X", "PUT", "-d", "x", server.URL + "/from"}, want: "PUT /to x"},
		{args: []string{"-X", "PUT", "-d", "x", server.URL + "/from"}},
		{args: []string{"-i", server.URL + "/a"}, want: "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: text/plain; charset=utf-8\r\nDate: today\r\n\r\nGET /a "},
		{args: []string{"-k", server.URL}, want: "curl: option -k: is unknown; this stand-in takes [-s] [-S] [-i] [-L] [-X METHOD] [-d DATA] [-H HEADER] [--cacert FILE] URL\n", code: 2},
		{args: []string{"-X"}, want: "curl: option -X: requires parameter; this stand-in takes [-s] [-S] [-i] [-L] [-X METHOD] [-d DATA] [-H HEADER] [--cacert FILE] URL\n", code: 2},
		{want: "curl: no URL specified; this stand-in takes [-s] [-S] [-i] [-L] [-X METHOD] [-d DATA] [-H HEADER] [--cacert FILE] URL\n", code: 2},
	} {
		got, code := curl(t, c.args...)
		require.Equal(t, c.want, got, c.args)
		require.Equal(t, c.code, code, c.args)
	}
	server.Close()

	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "secure") }))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600))
	text, exit := curl(t, "-s", "--cacert", ca, secure.URL)
	require.Equal(t, "secure", text)
	require.Zero(t, exit)
	text, exit = curl(t, secure.URL)
	require.Equal(t, "curl: (60) SSL certificate problem: unable to get local issuer certificate\n", text)
	require.Equal(t, 60, exit)
	text, exit = curl(t, "--cacert", secure.URL)
	require.Contains(t, text, "no such file or directory")
	require.Equal(t, 2, exit)

	got, code := curl(t, server.URL)
	require.Contains(t, got, "curl: (7) Failed to connect to 127.0.0.1 port ")
	require.Equal(t, 7, code)
}
