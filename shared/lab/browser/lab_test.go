package browser

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cdp "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// A person without a mouse plays, steps, goes back, and jumps to decisions and
// changes of the leader.
func TestKeysMoveThroughTime(t *testing.T) {
	p := open(t, startLab(t, "05-election", "--story", "partitioned-leader"), desk)
	first := p.picture()
	for range 5 {
		p.step(kb.ArrowRight)
	}
	after := p.picture()
	require.NotEqual(t, first, after)
	for range 5 {
		p.step(kb.ArrowLeft)
	}
	require.Equal(t, first, p.picture(), "going back shows what was there before")

	p.shift(kb.ArrowRight)
	p.until(`document.querySelector('#why li.now.decide') !== null`)
	p.step("]")
	p.until(`document.querySelector('#ring .server.leader') !== null`)
	require.Contains(t, p.decided(), "becomes the leader")

	p.step(" ")
	p.press(" ")
	p.until(`document.querySelector('.key.play').getAttribute('aria-label').startsWith('Play')`)

	p.press(kb.End)
	p.until(`!document.querySelector('#verdict').hidden`)
	p.press(kb.Home)
	p.until(`document.querySelector('#verdict').hidden`)
	require.Equal(t, first, p.picture(), "the beginning is the beginning")
}

// The leader is killed by keyboard alone: another is elected, the reason is read,
// the code that decided is opened, and the deed is taken back.
func TestForkByKeyboard(t *testing.T) {
	p := open(t, startLab(t, "05-election"), desk)
	p.step("]")
	p.until(`document.querySelector('#ring .server.leader') !== null`)
	killed := value[string](p, `document.querySelector('#ring .server.leader').dataset.server`)
	p.focus(`#ring [data-server="` + killed + `"]`)
	p.choose("Kill")
	p.until(`document.querySelectorAll('#deeds li').length === 1`)
	p.until(fmt.Sprintf(`document.querySelector('#ring [data-server="%s"]').classList.contains('down')`, killed))
	p.step("]")
	p.until(`document.querySelector('#ring .server.leader') !== null`)
	require.NotEqual(t, killed, value[string](p, `document.querySelector('#ring .server.leader').dataset.server`))
	require.Contains(t, p.decided(), "§5.2", "the reason names its section of the paper")

	p.focus(`#tab-deeds`)
	p.focus(`#deeds .remove`)
	p.press(kb.Enter)
	p.until(`document.querySelector('#deeds .empty') !== null`)
	p.press(kb.End)
	p.until(fmt.Sprintf(`document.querySelector('#ring .server.leader')?.dataset.server === %q`, killed))
}

// A deed is changed by keyboard alone: its kind, its server and its moment. The whole
// is copied as a test in Go.
func TestChangeADeed(t *testing.T) {
	p := open(t, startLab(t, "05-election"), desk)
	p.step("]")
	leader := value[string](p, `document.querySelector('#ring .server.leader').dataset.server`)
	p.focus(`#ring [data-server="` + leader + `"]`)
	p.choose("Kill")
	p.until(`document.querySelectorAll('#deeds li').length === 1`)
	script := `JSON.stringify(JSON.parse(atob(location.hash.slice(1).split('.')[0].replaceAll('-', '+').replaceAll('_', '/'))).deeds)`
	first := value[string](p, script)
	require.Contains(t, first, `"do":"kill","server":`+leader)

	// change opens the form, types into a field and submits.
	change := func(field, text string) {
		p.focus(`#deeds .change`)
		p.press(kb.Enter)
		p.until(`document.activeElement.matches('#deeds .edit select')`)
		for !value[bool](p, fmt.Sprintf(`document.activeElement.closest('label')?.textContent.startsWith(%q) ?? false`, field)) {
			p.press(kb.Tab)
		}
		if value[bool](p, `document.activeElement.tagName === 'INPUT'`) {
			value[bool](p, `(document.activeElement.select(), true)`)
		}
		for _, c := range text {
			p.press(string(c))
		}
		p.focus(`#deeds .edit .go`)
		p.press(kb.Enter)
		p.until(`!document.querySelector('#deeds .edit')`)
	}
	change("What happens", "pause")
	p.until(`document.querySelector('#deeds .text').textContent === 'pause n` + leader + `'`)
	require.Contains(t, value[string](p, `document.querySelector('#ring [data-server="`+leader+`"]').getAttribute('class')`), "paused")
	change("Server", "n4")
	p.until(`document.querySelector('#deeds .text').textContent === 'pause n4'`)
	change("Before step", "30")
	p.until(`document.querySelector("#deeds time").textContent.startsWith("before step 30")`)
	p.until(script + ` !== ` + fmt.Sprintf("%q", first))
	require.Contains(t, value[string](p, script), `"do":"pause","server":4`)
	require.Contains(t, p.clock(), "step 30")

	p.focus(`#deeds .copy`)
	p.press(kb.Enter)
	p.until(`document.querySelector('#deeds pre') !== null`)
	text := value[string](p, `document.querySelector('#deeds pre').textContent`)
	require.Contains(t, text, `{At: 30, Do: "pause", Server: 4},`)
	require.Contains(t, text, "go test ./05-election -run TestLab")
	require.Contains(t, text, value[string](p, `location.hash.split('.')[1]`), "the test expects the run that the page shows")
}

// The inspector shows the files of a server at the moment that the page shows.
func TestFilesOfAServer(t *testing.T) {
	p := open(t, startLab(t, "05-election", "--story", "partitioned-leader"), desk)
	p.step("]")
	leader := value[string](p, `document.querySelector('#ring .server.leader').dataset.server`)
	p.focus(`#ring [data-server="` + leader + `"]`)
	p.press(kb.Enter, kb.Escape)
	p.focus(`#inspector .disk summary`)
	p.press(kb.Enter)
	lines := `[...(document.querySelector('#inspector .lines')?.children || [])].map((li) => li.textContent).join('\n')`
	p.until(lines + `.includes('"state":{"term":1,"vote":' + ` + leader + ` + '}')`)
	require.NotContains(t, value[string](p, lines), `"command"`)
	require.Regexp(t, `^[0-9a-f]{8} \{"journal":\{"version":1,"stage":"05-election"`, value[string](p, lines))
	for _, key := range []string{kb.End, kb.Home} {
		p.press(key)
		p.until(lines + map[string]string{kb.End: `.includes('"command"')`, kb.Home: `.split('\n').length === 1`}[key])
	}
}

// One message is lost by keyboard alone. What happens before it stays as it was.
func TestLoseOneMessage(t *testing.T) {
	p := open(t, startLab(t, "05-election", "--story", "split-vote"), desk)
	for value[int](p, `document.querySelectorAll('#ring [data-message]').length`) == 0 {
		p.step(kb.ArrowRight)
	}
	before := p.clock()
	p.focus(`#ring [data-message]`)
	p.choose("Lose this message")
	p.until(`document.querySelectorAll('#deeds li').length === 1`)
	require.NotContains(t, value[string](p, `document.querySelector('#deeds').textContent`), "did not apply")
	require.Contains(t, value[string](p, `document.querySelector('#ring').innerHTML`), "doomed", "the page shows what will be lost")
	steps := 0
	for !value[bool](p, `[...document.querySelectorAll('#why li, #caption')].some((e) => e.textContent.includes('lost'))`) {
		p.step(kb.ArrowRight)
		steps++
		require.Less(t, steps, 100, "nothing is lost")
	}
	for range steps {
		p.step(kb.ArrowLeft)
	}
	require.Equal(t, before, p.clock())
}

// After a fork, what the story goes on doing by itself is listed, and can be ended.
func TestEndWhatAStoryGoesOnDoing(t *testing.T) {
	p := open(t, startLab(t, "05-election", "--story", "chaos"), desk)
	p.step("]")
	leader := value[string](p, `document.querySelector('#ring .server.leader').dataset.server`)
	p.focus(`#ring [data-server="` + leader + `"]`)
	p.choose("Pause")
	p.until(`document.querySelector('#deeds').textContent.includes('its clients go on sending random requests')`)
	asked := value[int](p, `document.querySelectorAll('#deeds li').length`)
	p.focus(`#tab-deeds`)
	p.focus(`#deeds .remove[title="End it"]`)
	p.press(kb.Enter)
	p.until(`!document.querySelector('#deeds').textContent.includes('its clients go on sending random requests')`)
	require.Equal(t, asked, value[int](p, `document.querySelectorAll('#deeds li').length`))
	require.NotContains(t, value[string](p, `document.querySelector('#deeds').textContent`), "did not apply")
}

// A link plays the same run in another tab.
func TestLinkPlaysTheSameRun(t *testing.T) {
	p := open(t, startLab(t, "05-election"), desk)
	p.step("]")
	leader := value[string](p, `document.querySelector('#ring .server.leader').dataset.server`)
	p.focus(`#ring [data-server="` + leader + `"]`)
	p.choose("Cut the power")
	p.until(`document.querySelectorAll('#deeds li').length === 1`)
	p.step("]")
	p.step(kb.ArrowRight)
	p.until(`new URLSearchParams(location.search).get('step') !== null && document.querySelector('.clock').textContent.includes('step ' + parseInt(new URLSearchParams(location.search).get('step')))`)
	other := open(t, value[string](p, `location.href`), desk)
	require.Equal(t, p.clock(), other.clock())
	for _, key := range []string{kb.End, kb.Home} {
		p.press(key)
		other.press(key)
		p.until(`document.querySelector('.slider').value === (` + map[string]string{kb.End: "document.querySelector('.slider').max", kb.Home: "'0'"}[key] + `)`)
		other.until(`document.querySelector('.slider').value === (` + map[string]string{kb.End: "document.querySelector('.slider').max", kb.Home: "'0'"}[key] + `)`)
		require.Equal(t, p.picture(), other.picture())
	}
}

// A link that cannot be read is named, and the page is still of use.
func TestBrokenLink(t *testing.T) {
	address, _, _ := strings.Cut(startLab(t, "05-election"), "#")
	p := open(t, address+"#no*script", desk)
	require.Contains(t, value[string](p, `document.querySelector('#say').textContent`), "no script that can be read")
	p.step(kb.ArrowRight)
}

// The code of a decision is the stage's own, with the lines that decided marked.
func TestCodeOfADecision(t *testing.T) {
	p := open(t, startLab(t, "05-election", "--story", "partitioned-leader"), desk)
	p.step("]")
	p.focus(`#why li:last-child .code`)
	p.press(kb.Enter)
	p.until(`document.querySelector('dialog[open]') !== null`)
	text := value[string](p, `document.querySelector('dialog[open]').innerText`)
	require.Contains(t, text, "becomeLeader")
	require.Contains(t, text, "raft/")
	p.press(kb.Escape)
	p.until(`document.querySelector('dialog[open]') === null`)
}

// The picture is saved as a well-formed SVG file.
func TestSaveThePicture(t *testing.T) {
	p := open(t, startLab(t, "05-election", "--story", "partitioned-leader"), desk)
	p.step("]")
	for _, view := range []string{"ring", "diagram"} {
		folder := t.TempDir()
		p.do(call(cdp.SetDownloadBehavior, cdp.SetDownloadBehaviorParams{Behavior: cdp.SetDownloadBehaviorBehaviorAllow, DownloadPath: folder}))
		p.focus("#more")
		p.choose("Save the picture")
		var file string
		require.Eventually(t, func() bool {
			found, _ := filepath.Glob(filepath.Join(folder, "*.svg"))
			if len(found) == 1 {
				file = found[0]
			}
			return file != ""
		}, patient, patient/1000, "the picture of the %s is not saved", view)
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Contains(t, string(text), "n1")
		d := xml.NewDecoder(strings.NewReader(string(text)))
		for {
			if _, err = d.Token(); err != nil {
				break
			}
		}
		require.True(t, errors.Is(err, io.EOF), "%v", err)
		p.press("v")
	}
}

// A tour is taken by keyboard alone: it has a link for each step, and ends where
// somebody goes on alone.
func TestTourByKeyboard(t *testing.T) {
	address, _, _ := strings.Cut(startLab(t, "05-election"), "#")
	p := open(t, address, desk)
	p.focus("#tours")
	p.choose("One lost vote")
	at := func(step int) {
		t.Helper()
		p.until(fmt.Sprintf(`document.querySelector('#tour .count')?.textContent.startsWith('%d of ') ?? false`, step))
		p.until(fmt.Sprintf(`new URLSearchParams(location.search).get('at') === '%d'`, step))
	}
	at(1)
	require.Contains(t, value[string](p, `document.querySelector('#tour').innerText`), "time out together")
	p.press("n", "n")
	at(3)
	p.press("p")
	at(2)
	p.until(`document.querySelector('#ring [data-server="5"]').textContent.includes('n2')`)
	link := value[string](p, `location.href`)
	require.NotContains(t, link, "#", "a link to a tour needs no script")

	other := open(t, link, phone)
	other.until(`document.querySelector('#tour .count')?.textContent.startsWith('2 of ') ?? false`)
	require.Equal(t, p.clock(), other.clock())

	// Somebody goes on alone, and kills the candidate.
	p.press("t")
	p.until(`document.querySelector('#tour').hidden && !location.search.includes('tour')`)
	p.press(kb.Escape)
	before := p.clock()
	p.focus(`#ring [data-server="2"]`)
	p.choose("Kill")
	p.until(`document.querySelector('#ring [data-server="2"]').classList.contains('down')`)
	require.Equal(t, strings.Split(before, " · ")[0], strings.Split(p.clock(), " · ")[0], "the fork begins at this moment")
	p.press(kb.End)
	p.until(`document.querySelector('#ring [data-server="2"]').classList.contains('down')`)
}

func TestATourThatIsNotHere(t *testing.T) {
	address, _, _ := strings.Cut(startLab(t, "05-election"), "#")
	require.Contains(t, value[string](open(t, address+"?tour=figure-8", desk), `document.querySelector('#say').textContent`), "go run ./03-log-replication lab --tour figure-8")
	p := open(t, address+"?tour=none", desk)
	require.Contains(t, value[string](p, `document.querySelector('#say').textContent`), "there is no such tour")
	p.step(kb.ArrowRight)
}

// The film stops before a decision, asks, says why, and keeps score.
func TestPredict(t *testing.T) {
	p := open(t, startLab(t, "05-election", "--story", "leader-crash"), desk)
	p.press("q")
	for value[bool](p, `document.querySelector('#question').hidden`) {
		before := p.moment()
		p.press(kb.ArrowRight)
		p.until(`document.querySelector('.slider').value !== '` + before + `' || !document.querySelector('#question').hidden`)
	}
	require.Contains(t, value[string](p, `document.querySelector('#question').innerText`), "Will n5 vote for n3?")
	require.NotContains(t, value[string](p, `document.querySelector('#why').textContent`), "n5 votes", "the answer is not shown before")
	p.press("n")
	p.until(`document.querySelector('#question').innerText.includes('n5 votes for n3 in term 1')`)
	p.until(`document.querySelector('#score').textContent.includes('0 of 1')`)
	p.press(kb.Enter)
	p.until(`document.querySelector('#question').hidden`)

	// Also while it plays.
	p.press(" ")
	p.until(`!document.querySelector('#question').hidden`)
	require.Contains(t, value[string](p, `document.querySelector('#question').innerText`), "Will n4 vote for n3?")
	p.press("y")
	p.until(`document.querySelector('#score').textContent.includes('1 of 2')`)
	p.press("q")
	p.until(`document.querySelector('#question').hidden && document.querySelector('#score').hidden`)
}

// Stage 02 and stage 03 play the same story next to each other.
func TestCompare(t *testing.T) {
	p := open(t, startLab(t, "02-naive-replication", "--story", "missed-message"), desk)
	p.focus("#more")
	p.choose("Compare with")
	p.take("03-log-replication")
	p.until(`document.body.classList.contains('comparing')`)
	bar := value[string](p, `document.querySelector('#difference').innerText`)
	require.Contains(t, bar, "replicas differ")
	require.Contains(t, bar, "survived")
	require.Contains(t, bar, "get x: “1” here, and get x: “2” there")
	p.press(kb.Home)
	p.focus("#difference .first button")
	p.press(kb.Enter)
	p.until(`document.querySelector('#caption').textContent.includes('“1”')`)
	require.Contains(t, value[string](p, `document.querySelector('#logs2').textContent`), "x=2")
	require.Contains(t, value[string](p, `location.search`), "compare=03-log-replication")
	require.True(t, strings.HasPrefix(value[string](p, `document.querySelector('#logbox h2').textContent`), "Stores "))
	require.Contains(t, value[string](p, `document.querySelector('#logbox2 h2').textContent`), "Logs")
	require.Equal(t, 5, value[int](p, `document.querySelectorAll('#ring2 .server').length`))
	p.focus("#more")
	p.choose("Compare: end it")
	p.until(`!document.body.classList.contains('comparing') && document.querySelector('#scene2').hidden`)
}

// Where a story does not show what an edit costs, the comparison leads to the tour
// that does.
func TestCompareLeadsToTheTourOfAnEdit(t *testing.T) {
	p := open(t, startLab(t, "05-election", "--story", "figure-8"), desk)
	p.focus("#more")
	p.choose("Compare with")
	p.take("05-election, edited")
	p.until(`document.body.classList.contains('comparing')`)
	p.focus("#difference .first button")
	require.Equal(t, "Take it", value[string](p, `document.activeElement.textContent`))
	p.press(kb.Enter)
	p.until(`document.querySelector('#tour .count')?.textContent === '1 of 11'`)
	require.Contains(t, value[string](p, `document.querySelector('#claim').textContent`), "Guided tour: ")
}

// With reduced motion, a step shows its end at once.
func TestReducedMotion(t *testing.T) {
	calm := desk
	calm.calm = true
	p := open(t, startLab(t, "05-election", "--story", "partitioned-leader"), calm)
	p.shift(kb.ArrowRight)
	value[bool](p, `(() => { let n = 0; const count = (...a) => { n++; return real(...a); }; const real = window.requestAnimationFrame; window.requestAnimationFrame = count; window.drawn = () => n; return true; })()`)
	p.step(kb.ArrowRight)
	require.Zero(t, value[int](p, `drawn()`), "nothing moves")
}

// A client stands wholly inside the picture, also in a low window.
func TestClientsStandInsideThePicture(t *testing.T) {
	for _, l := range []look{{width: 844, height: 390}, {width: 1280, height: 600}, phone} {
		p := open(t, startLab(t, "05-election", "--story", "partitioned-leader"), l)
		for value[int](p, `document.querySelectorAll('#ring .client').length`) == 0 {
			p.shift(kb.ArrowRight)
			p.press(kb.ArrowRight)
		}
		outside := `(() => { const box = document.querySelector('#ring').getBoundingClientRect(); return [...document.querySelectorAll('#ring .client')].filter((c) => { const r = c.getBoundingClientRect(); return r.top < box.top || r.bottom > box.bottom; }).length; })()`
		require.Zero(t, value[int](p, outside), "%dx%d", l.width, l.height)
	}
}

// A stage that breaks says what broke, where the film ends.
func TestVerdict(t *testing.T) {
	p := open(t, startLab(t, "02-naive-replication", "--story", "missed-message"), desk)
	p.press(kb.End)
	p.until(`document.querySelector('#verdict.broken:not([hidden])') !== null`)
	require.Contains(t, value[string](p, `document.querySelector('#verdict').textContent`), "It broke")
}
