package readme

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fake is the source of a program that does what READMEs need of a stage: it has
// a server, and commands that print a text, fail, wait, or talk to the server.
const fake = `package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := append(os.Args[1:], "", "")
	switch args[0] {
	case "serve":
		serve()
	case "ask":
		ask(args[1])
	case "echo":
		fmt.Println(strings.Join(os.Args[2:], " "))
	case "fail":
		fmt.Fprintln(os.Stderr, "it failed")
		code, _ := strconv.Atoi(args[1])
		os.Exit(code)
	case "now":
		fmt.Println("it took", time.Now().Nanosecond(), "ns")
		fmt.Println("done")
	case "base":
		fmt.Println("the base is", os.Getenv("KV_BASE_PORT"), "and not 1"+os.Getenv("KV_BASE_PORT"))
		fmt.Println(os.Getenv("KV_ENDPOINTS"))
	case "save":
		if err := os.MkdirAll(".raftsteps", 0o755); err != nil {
			panic(err)
		}
		fmt.Println("saved")
	case "hang":
		signal.Ignore(os.Interrupt)
		fmt.Println("hanging")
		time.Sleep(time.Hour)
	case "shell":
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			fmt.Println("you said", lines.Text())
		}
		fmt.Println("bye")
	case "who":
		path, _ := os.Executable()
		fmt.Println("args", os.Args[0], strings.Contains(path, "/go-build"))
	case "partial":
		fmt.Print("no end")
	}
}

func serve() {
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("KV_BASE_PORT"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(time.Now().Format(time.TimeOnly), "listening on", l.Addr())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		fmt.Println("stopped")
		os.Exit(0)
	}()
	for n := 1; ; n++ {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		fmt.Println("connection", n)
		go func() {
			defer conn.Close()
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				switch text := lines.Text(); text {
				case "close":
					return
				case "quit":
					os.Exit(3)
				default:
					fmt.Fprintf(conn, "{\"ok\":true,\"value\":%q}\n", text)
				}
			}
		}()
	}
}

func ask(text string) {
	conn, err := net.Dial("tcp", "127.0.0.1:"+os.Getenv("KV_BASE_PORT"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(5)
	}
	fmt.Fprintln(conn, text)
	conn.(*net.TCPConn).CloseWrite()
	io.Copy(os.Stdout, conn)
}
`

// repository writes a repository of two fake stages, with this README for the
// first stage, and returns a runner for that README.
func repository(t *testing.T, text string) *runner {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"go.work":           "go 1.26.0\n\nuse (\n\t./00-fake\n\t./01-other\n)\n",
		"00-fake/go.mod":    "module example.com/00-fake\n\ngo 1.26.0\n",
		"00-fake/main.go":   fake,
		"01-other/go.mod":   "module example.com/01-other\n\ngo 1.26.0\n",
		"01-other/main.go":  fake,
		"00-fake/README.md": strings.ReplaceAll(text, "'''", "```"),
	}
	for path, text := range files {
		full := filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		require.NoError(t, os.WriteFile(full, []byte(text), 0o644))
	}
	return &runner{file: filepath.Join(root, "00-fake", "README.md"), shell: "bash", most: time.Minute, closing: 10 * time.Second,
		programs: map[string]string{"00-fake": builtFake(t), "01-other": builtFake(t)}}
}

// fakeFolder is where builtFake builds; TestMain removes it.
var fakeFolder string

// builtFake returns the fake program, built once for all tests.
func builtFake(t *testing.T) string {
	t.Helper()
	require.NoError(t, buildFake())
	return filepath.Join(fakeFolder, "fake")
}

var buildFake = sync.OnceValue(func() (err error) {
	if fakeFolder, err = os.MkdirTemp("", "readme-fake-"); err != nil {
		return err
	}
	source := filepath.Join(fakeFolder, "main.go")
	if err := os.WriteFile(source, []byte(fake), 0o644); err != nil {
		return err
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(fakeFolder, "fake"), source).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(fakeFolder)
	os.Exit(code)
}
