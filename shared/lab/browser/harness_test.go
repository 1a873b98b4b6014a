package browser

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

var program = flag.String("chromium", "", "the browser; by default the first of chromium, chromium-browser and google-chrome that is installed")

// patient is how long a test waits for what must come. A machine that does other
// things too is slow.
const patient = 30 * time.Second

// root is the folder of the repository.
var root = sync.OnceValues(func() (string, error) { return filepath.Abs("../../..") })

// built are the stages that have been built, by name.
var built struct {
	sync.Mutex
	folder   string
	programs map[string]string
}

// browser is the one Chromium of all tests; each test has tabs of its own.
var browser context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "lab-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	built.folder, built.programs = folder, map[string]string{}
	path := *program
	if path == "" {
		path, err = installed("chromium", "chromium-browser", "google-chrome")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.UserDataDir(filepath.Join(folder, "profile")), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-quic", true))
	ctx, end := chromedp.NewExecAllocator(context.Background(), options...)
	defer end()
	ctx, end = chromedp.NewContext(ctx)
	defer end()
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		fmt.Fprintf(os.Stderr, "%s does not start: %v\n", path, err)
		return 1
	}
	browser = ctx
	return m.Run()
}

func installed(names ...string) (string, error) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("none of %s is installed: install one, or name a browser with -chromium", strings.Join(names, ", "))
}

// program builds a stage, once.
func stageProgram(t testing.TB, stage string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if path, ok := built.programs[stage]; ok {
		return path
	}
	top, err := root()
	require.NoError(t, err)
	path := filepath.Join(built.folder, stage)
	cmd := exec.Command("go", "build", "-o", path, "./"+stage)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "GOWORK=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	built.programs[stage] = path
	return path
}

// startLab starts the lab of a stage as a person does, and returns the address
// that it prints.
func startLab(t testing.TB, stage string, args ...string) string {
	t.Helper()
	cmd := exec.Command(stageProgram(t, stage), append([]string{"lab", "--no-open"}, args...)...)
	cmd.Dir, _ = root()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		var e *exec.ExitError
		if err := cmd.Wait(); err != nil && !(errors.As(err, &e) && e.ExitCode() == 130) {
			t.Errorf("the lab ended with %v after ^C", err)
		}
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if text := strings.TrimSpace(lines.Text()); strings.HasPrefix(text, "http://") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return text
		}
	}
	t.Fatalf("the lab of %s printed no address", stage)
	return ""
}

// tab is a page in the browser. A test fails if the page writes an error to the
// console or asks another server than the lab for anything.
type tab struct {
	t   testing.TB
	ctx context.Context
}

// look is how the page is shown.
type look struct {
	width, height int64
	dark, calm    bool
}

var desk = look{width: 1280, height: 800}
var phone = look{width: 390, height: 844}

// open opens an address in a new tab and waits for the first picture.
func open(t testing.TB, address string, l look) *tab {
	t.Helper()
	ctx, end := chromedp.NewContext(browser)
	t.Cleanup(end)
	p := &tab{t, ctx}
	origin, _, _ := strings.Cut(strings.TrimPrefix(address, "http://"), "/")
	var mu sync.Mutex
	var faults []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		faults = append(faults, fmt.Sprintf(format, args...))
	}
	require.NoError(t, chromedp.Listen(ctx, func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			note("exception: %v", e.ExceptionDetails)
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
				for _, a := range e.Args {
					note("console: %s %s", a.Value, a.Description)
				}
			}
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
				note("log: %s %s", e.Entry.Text, e.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			u := e.Request.URL
			if !strings.HasPrefix(u, "http://"+origin+"/") && !strings.HasPrefix(u, "data:") && !strings.HasPrefix(u, "blob:http://"+origin+"/") {
				note("the page asks for %s", u)
			}
		}
	}))
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range faults {
			t.Error(f)
		}
	})
	media := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "light"}}
	if l.dark {
		media[0].Value = "dark"
	}
	if l.calm {
		media = append(media, &emulation.MediaFeature{Name: "prefers-reduced-motion", Value: "reduce"})
	}
	p.do(call(log.Enable, cdp.Empty{}), call(network.Enable, network.EnableParams{}),
		call(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: l.height, DeviceScaleFactor: 1, Mobile: l.width < 600}),
		call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: media}),
		chromedp.Navigate(address))
	p.until(`document.querySelectorAll('#ring [data-server]').length > 0 && !document.body.classList.contains('loading')`)
	return p
}

// call is a command of the browser's protocol, as a step.
func call[P, R any](command cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, command, params)
		return err
	})
}

func reload() chromedp.Action[chromedp.Void] { return call(page.Reload, page.ReloadParams{}) }

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, end := context.WithTimeout(p.ctx, patient)
	defer end()
	require.NoError(p.t, chromedp.Do(ctx, steps...))
}

// value evaluates an expression in the page.
func value[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, end := context.WithTimeout(p.ctx, patient)
	defer end()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(p.t, err, "%.200s", expression)
	return v
}

// until waits until an expression is true in the page.
func (p *tab) until(expression string) {
	p.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if value[bool](p, expression) {
			return
		}
		if time.Since(began) > patient {
			p.t.Fatalf("this did not become true: %s\nthe page says: %s\nand: %s", expression, value[string](p, `document.querySelector('#say').textContent`), p.clock())
		}
	}
}

// press presses keys, one after the other: names of kb, or characters.
func (p *tab) press(keys ...string) {
	p.t.Helper()
	for _, k := range keys {
		p.key(k, 0)
	}
}

// shift presses a key with shift.
func (p *tab) shift(key string) {
	p.t.Helper()
	p.key(key, 8)
}

// key presses a key as a keyboard does: what the key writes belongs to the event
// that the page may cancel. chromedp.KeyEvent sends it apart, and then a key whose
// event moved the focus also writes where the focus has come to.
func (p *tab) key(name string, modifiers int64) {
	p.t.Helper()
	k, ok := kb.Keys[[]rune(name)[0]]
	require.True(p.t, ok, "no key is called %q", name)
	down := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeRawKeyDown, Key: k.Key, Code: k.Code, WindowsVirtualKeyCode: k.Windows, NativeVirtualKeyCode: k.Native, Modifiers: modifiers}
	up := down
	up.Type = input.DispatchKeyEventTypeKeyUp
	if k.Print || name == kb.Enter {
		down.Type, down.Text, down.UnmodifiedText = input.DispatchKeyEventTypeKeyDown, k.Text, k.Unmodified
	}
	p.do(call(input.DispatchKeyEvent, down), call(input.DispatchKeyEvent, up))
}

// focus presses tab until the focus is on an element.
func (p *tab) focus(selector string) {
	p.t.Helper()
	for range 300 {
		if value[bool](p, fmt.Sprintf(`document.activeElement?.matches(%q) ?? false`, selector)) {
			return
		}
		p.press(kb.Tab)
	}
	p.t.Fatalf("the tab key does not come to %s", selector)
}

// choose opens the menu of what has the focus, and takes the item that begins with
// a text, by keyboard alone.
func (p *tab) choose(item string) {
	p.t.Helper()
	p.press(kb.Enter)
	p.take(item)
}

// take takes the item of the menu that is open.
func (p *tab) take(item string) {
	p.t.Helper()
	p.until(`!!document.querySelector('.menu:not([hidden])')`)
	for range 40 {
		if strings.HasPrefix(value[string](p, `document.activeElement.textContent`), item) {
			p.press(kb.Enter)
			p.until(`!document.body.classList.contains('loading')`)
			return
		}
		p.press(kb.Tab)
	}
	p.t.Fatalf("the menu has no %q: %s", item, value[string](p, `document.querySelector('.menu').innerText`))
}

// clock is what the page shows as the time and the step.
func (p *tab) clock() string {
	p.t.Helper()
	return value[string](p, `document.querySelector('.clock').textContent`)
}

// picture is what the page shows of a moment, whatever is selected: servers,
// messages, logs and the sentence below them.
func (p *tab) picture() string {
	p.t.Helper()
	all := value[string](p, `[document.querySelector('.clock').textContent, document.querySelector('#ring').innerHTML, document.querySelector('#logs').innerHTML, document.querySelector('#caption').textContent].join('\n')`)
	return strings.ReplaceAll(all, " selected", "")
}

// moment is which moment of the film the page shows, as the slider has it.
func (p *tab) moment() string {
	p.t.Helper()
	return value[string](p, `document.querySelector('.slider').value`)
}

// step presses a key that moves in time, and waits until the page shows the moment.
func (p *tab) step(key string) {
	p.t.Helper()
	before := p.moment()
	p.press(key)
	p.until(fmt.Sprintf(`document.querySelector('.slider').value !== %q`, before))
}

// decided is the latest decision that the page tells.
func (p *tab) decided() string {
	p.t.Helper()
	return value[string](p, `[...document.querySelectorAll('#why li.decide')].pop().textContent`)
}
