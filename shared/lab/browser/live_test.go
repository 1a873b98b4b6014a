package browser

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// cluster is one of real processes, which writes traces.
type cluster struct {
	t                    testing.TB
	program, data, trace string
	cmd                  *exec.Cmd
}

// startCluster starts a cluster as a person does, and waits until its servers run.
func startCluster(t testing.TB, stage string, servers int) *cluster {
	t.Helper()
	c := &cluster{t: t, program: stageProgram(t, stage), data: t.TempDir()}
	c.trace = filepath.Join(t.TempDir(), "trace")
	for range 50 {
		// Other programs may use the ports, which are below those of outgoing connections.
		base := 10000 + 100*rand.IntN(220)
		if c.start("-n", strconv.Itoa(servers), "--base-port", strconv.Itoa(base)) {
			return c
		}
		require.NoError(t, os.RemoveAll(c.data))
	}
	t.Fatal("no ports for a cluster were found")
	return nil
}

// start reports whether the cluster has started.
func (c *cluster) start(args ...string) bool {
	c.t.Helper()
	cmd := exec.Command(c.program, append([]string{"cluster", "--data", c.data, "--trace", c.trace}, args...)...)
	out, err := cmd.StdoutPipe()
	require.NoError(c.t, err)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	require.NoError(c.t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "^C stops all servers") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			c.cmd = cmd
			c.t.Cleanup(c.stop)
			return true
		}
	}
	_ = cmd.Wait() // it has said what is wrong
	require.Contains(c.t, complaint.String(), "cannot listen")
	return false
}

// stop ends the cluster with ^C, once.
func (c *cluster) stop() {
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	var e *exec.ExitError
	if err := c.cmd.Wait(); err != nil && !(errors.As(err, &e) && e.ExitCode() == 130) {
		c.t.Errorf("the cluster ended with %v after ^C", err)
	}
	c.cmd = nil
}

// client runs a command against the cluster.
func (c *cluster) client(args ...string) {
	c.t.Helper()
	out, err := exec.Command(c.program, append(args, "--data", c.data, "--timeout", patient.String())...).CombinedOutput()
	require.NoError(c.t, err, "%s", out)
}

// mouse presses the left button of the mouse on an element, or lets it go there.
func (p *tab) mouse(what input.DispatchMouseEventType, selector string) {
	p.t.Helper()
	at := value[[]float64](p, fmt.Sprintf(`(() => { const r = document.querySelector(%q).getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`, selector))
	p.do(call(input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: what, X: at[0], Y: at[1], Button: input.MouseButtonLeft, ClickCount: 1}))
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.mouse(input.DispatchMouseEventTypeMousePressed, selector)
	p.mouse(input.DispatchMouseEventTypeMouseReleased, selector)
}

// While a button is pressed, the picture stands still: otherwise a slow click would end
// on another shape than it began, and do nothing.
func TestASlowClickOnAPlayingFilm(t *testing.T) {
	p := open(t, startLab(t, "05-election"), desk)
	start := p.clock()
	p.press(" ")
	value[bool](p, `document.querySelector('#cluster').focus() || true`) // a press takes it away
	p.until(fmt.Sprintf(`document.querySelector('.clock').textContent !== %q`, start))
	p.mouse(input.DispatchMouseEventTypeMousePressed, `#ring [data-server="1"] .body`)
	before := p.clock()
	value[bool](p, `new Promise((done) => setTimeout(() => done(true), 300))`)
	require.Equal(t, before, p.clock())
	p.mouse(input.DispatchMouseEventTypeMouseReleased, `#ring [data-server="1"] .body`)
	p.until(`document.querySelector('.menu:not([hidden])')?.textContent.includes('Kill') ?? false`)
}

// order opens a menu with the mouse and takes an item, as soon as the menu has it: real
// servers change while somebody looks at them.
func (p *tab) order(selector, item string) {
	p.t.Helper()
	for began := time.Now(); ; {
		p.click(selector)
		p.until(`!!document.querySelector('.menu:not([hidden])')`)
		if strings.Contains(value[string](p, `document.querySelector('.menu').innerText`), item) {
			p.take(item)
			return
		}
		if time.Since(began) > patient {
			p.t.Fatalf("the menu does not offer %q", item)
		}
		p.press(kb.Escape)
		p.until(`!document.querySelector('.menu:not([hidden])')`)
		p.click("#live button")
		p.until(`document.querySelector('#live').classList.contains('following')`)
	}
}

// The page follows a running cluster. A click kills a real server, and the page shows
// how the others go on.
func TestLive(t *testing.T) {
	c := startCluster(t, "05-election", 3)
	c.client("put", "x", "1")
	p := open(t, startLab(t, "05-election", "--live", "--data", c.data), desk)
	p.until(`document.querySelector('#logs').textContent.includes('x=1')`)
	p.until(`!!document.querySelector('#ring .server.leader')`)

	leader := value[string](p, `document.querySelector('#ring .server.leader').dataset.server`)
	server := `#ring [data-server="` + leader + `"]`
	p.click(server + " .body")
	p.until(`document.querySelector('.menu:not([hidden])')?.textContent.includes('Kill the process') ?? false`)
	require.Contains(t, value[string](p, `document.querySelector('#live').textContent`), "the picture stands still")
	p.take("Kill the process")
	p.until(`document.querySelector('` + server + `').classList.contains('down')`)
	p.until(`!!document.querySelector('#ring .server.leader:not([data-server="` + leader + `"])')`)
	require.Contains(t, value[string](p, `document.querySelector('#live').textContent`), "live")

	// Two of three go on, and the third one learns it later.
	c.client("put", "y", "2")
	p.until(`document.querySelector('#logs').textContent.includes('y=2')`)
	p.order(server+" .body", "Restart")
	p.until(`!document.querySelector('` + server + `').classList.contains('down')`)

	// What happened can be watched, while the cluster goes on.
	p.press(kb.Home)
	p.until(`document.querySelector('.slider').value === '0'`)
	p.until(`/\d+ new event/.test(document.querySelector('#live').textContent)`)
	p.step("]")
	require.Contains(t, p.decided(), "becomes the leader of term")
	p.click("#live button")
	p.until(`document.querySelector('#live').classList.contains('following')`)

	p.order("#cluster", "Pause the leader")
	p.until(`!!document.querySelector('#ring .server.paused')`)
	paused := value[string](p, `document.querySelector('#ring .server.paused').dataset.server`)
	p.order(`#ring [data-server="`+paused+`"] .body`, "Resume")
	p.until(`!document.querySelector('#ring .server.paused')`)
	p.order("#cluster", "Cut the leader")
	p.until(`document.querySelectorAll('#ring .link.cut').length === 2`)
	p.order("#cluster", "Heal the whole network")
	p.until(`document.querySelectorAll('#ring .link.cut').length === 0`)

	c.stop()
	p.until(`document.querySelector('#live').textContent.includes('The cluster has stopped')`)
}

// The traces that a cluster has left are shown as a film.
func TestTraces(t *testing.T) {
	c := startCluster(t, "05-election", 3)
	c.client("put", "x", "1")
	c.stop()
	files, err := filepath.Glob(c.trace + ".*")
	require.NoError(t, err)
	p := open(t, startLab(t, "05-election", files...), phone)
	require.Equal(t, 3, value[int](p, `document.querySelectorAll('#ring .server').length`))
	p.step("]")
	require.Contains(t, p.decided(), "becomes the leader of term")
	p.press(kb.End)
	p.until(`document.querySelector('#logs').textContent.includes('x=1')`)
	p.click(`#ring [data-server="1"] .body`)
	p.until(`document.querySelector('.menu:not([hidden])')?.textContent.includes('This has happened already') ?? false`)
}
