package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/engine"
)

func TestUncheckedNeedsAnEngine(t *testing.T) {
	got := run(t, storied(nil, []string{"missed-message"}), "lab", "--no-open", "--unchecked", "I10", "--story", "none") // without the check, the story is refused
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.errors, "--unchecked needs --engine")
}

func TestLabOnABusyPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	got := run(t, storied(nil, []string{"missed-message"}), "lab", "--no-open", "--port", fmt.Sprint(port))
	require.Equal(t, result{1, "", fmt.Sprintf("error: the lab cannot listen on 127.0.0.1:%d: bind: address already in use; choose another port with --port\n", port)}, got)
}

func TestLabPlaysFilmsForItsPage(t *testing.T) {
	a := &app{stage: storied(nil, []string{"missed-message"})}
	a.stage.Source = fstest.MapFS{"raft/a.go": {Data: []byte("package raft\n\nconst Early Code = \"early\"\n\nfunc f() { explain(Early) }\n")}}
	h := a.labHandler(7000, newLabEngines(t.Context(), a.scenarios()), nil)
	ask := func(method, path, body string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://127.0.0.1:7000"+path, strings.NewReader(body))
		for i := 0; i < len(header); i += 2 {
			if header[i] == "Host" {
				r.Host = header[i+1]
			}
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	const script = `{"stage":"92-cluster","seed":7,"story":"missed-message"}`
	w := ask("POST", "/film", script, "Origin", "http://127.0.0.1:7000")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	want, err := engine.Answer(a.scenarios(), []byte(script))
	require.NoError(t, err)
	require.Equal(t, string(want), w.Body.String())
	require.True(t, json.Valid(w.Body.Bytes()))

	require.Contains(t, ask("GET", "/", "").Body.String(), "<!doctype html>")
	about := ask("GET", "/stage", "").Body.String()
	require.True(t, json.Valid([]byte(about)), about)
	require.Contains(t, about, `{"stage":"92-cluster","servers":5,"appointed":true,"stories":[{"name":"missed-message","claim":"a follower that missed a write agrees again once it is back"}],"deeds":[`)
	require.Contains(t, about, `"kill"`)
	require.Contains(t, about, `"stages":["02-naive-replication","03-log-replication",`)
	require.Contains(t, about, `"edits":[]`)

	require.Contains(t, ask("GET", "/source.json", "").Body.String(), `"early":[{"file":"raft/a.go","function":"f","from":5,"to":5,"lines":[5],"guard":null}]`)

	test := ask("POST", "/film", `{"ask":"test","script":`+script+`}`).Body.String()
	require.True(t, json.Valid([]byte(test)), test)
	require.Contains(t, test, `{"text":"package main\n`)
	require.Contains(t, test, `Stage: \"92-cluster\", Seed: 7, Story: \"missed-message\",`)

	require.Equal(t, `{"files":[]}`, ask("POST", "/film", `{"ask":"disk","script":`+script+`,"step":10,"half":true,"server":2}`).Body.String())

	for name, c := range map[string]struct {
		w      *httptest.ResponseRecorder
		status int
		why    string
	}{
		"another host":     {ask("GET", "/stage", "", "Host", "evil.example"), 421, "this is the lab at 127.0.0.1:7000"},
		"another port":     {ask("GET", "/stage", "", "Host", "127.0.0.1:7001"), 421, "not \\\"127.0.0.1:7001\\\""},
		"another origin":   {ask("POST", "/film", script, "Origin", "http://evil.example"), 403, "accepts no requests from"},
		"another scheme":   {ask("POST", "/film", script, "Origin", "https://127.0.0.1:7000"), 403, "accepts no requests from"},
		"no script":        {ask("POST", "/film", ""), 400, "the script: "},
		"no such question": {ask("POST", "/film", `{"ask":"more","script":{}}`), 400, `ask is \"more\"`},
		"another stage":    {ask("POST", "/film", `{"stage":"x","seed":1}`), 400, `build x: there is no stage \"x\"; there are 02-naive-replication, `},
		"a long script":    {ask("POST", "/film", strings.Repeat(" ", engine.MaxQuestion+1)), 413, "a question may have"},
	} {
		require.Equal(t, c.status, c.w.Code, name)
		require.Contains(t, c.w.Body.String(), c.why, name)
	}
}

func TestLabEngine(t *testing.T) {
	got := runWith(t, storied(nil, []string{"missed-message"}), `{"stage":"92-cluster","seed":1,"steps":100}`+"\n{}\n", "lab", "--engine")
	require.Zero(t, got.code, got.errors)
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	require.Len(t, lines, 2)
	require.Contains(t, lines[0], `{"script":{"stage":"92-cluster","seed":1,"steps":100},"steps":100,`)
	require.Equal(t, `{"error":"the script is for \"\", and this is 92-cluster"}`, lines[1])
}

func TestLabEngineEndsWithAnInterruptAndRefusesALongScript(t *testing.T) {
	s := storied(nil, []string{"missed-message"})
	in, typed := io.Pipe()
	defer typed.Close()
	b := startWith(t, s, in, "lab", "--engine")
	_, err := io.WriteString(typed, "{}\n")
	require.NoError(t, err)
	require.Equal(t, exitInterrupted, b.stop())

	got := runWith(t, s, strings.Repeat(" ", engine.MaxQuestion+1), "lab", "--engine")
	require.Equal(t, result{1, "", fmt.Sprintf("error: a question is longer than %d bytes (too_large)\n", engine.MaxQuestion)}, got)
}

func TestLabServesUntilItIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errors buffer
	done := make(chan int, 1)
	go func() {
		done <- Run(ctx, storied(nil, []string{"missed-message"}), []string{"lab", "--no-open", "--story", "missed-message"}, strings.NewReader(""), &out, &errors)
	}()
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+/#[\w-]+`)
	require.Eventually(t, func() bool { return address.MatchString(out.String()) }, time.Minute, time.Millisecond)
	r, err := http.Get(strings.Split(address.FindString(out.String()), "#")[0])
	require.NoError(t, err)
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Contains(t, string(text), "<!doctype html>")
	cancel()
	require.Zero(t, <-done)
	require.Empty(t, errors.String())
}

func TestLabRefusesWhatItCannotPlay(t *testing.T) {
	s := storied(nil, []string{"missed-message"})
	got := run(t, s, "lab", "--story", "figure-8")
	require.Equal(t, result{2, "", "error: 92-cluster does not play \"figure-8\"; it plays missed-message\n"}, got)
	require.Equal(t, 2, run(t, s, "lab", "--port", "70000").code)
}

func TestLabRefusesATourOfAnotherStage(t *testing.T) {
	s := storied(nil, []string{"missed-message"})
	s.Name = "02-naive-replication"
	got := run(t, s, "lab", "--tour", "figure-8")
	require.Equal(t, result{2, "", "error: 02-naive-replication has no tour \"figure-8\"; it has lost-message, reordered, power-cut-without-a-disk\n"}, got)
	require.Equal(t, 2, run(t, s, "lab", "--tour", "lost-message", "--story", "missed-message").code)
}
