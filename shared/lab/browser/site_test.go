package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// siteFolder makes the site of two stages, once.
var siteFolder = sync.OnceValues(func() (string, error) {
	top, err := root()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(built.folder, "site")
	cmd := exec.Command("go", "run", "./shared/cmd/steps", "site", "--out", folder, "02", "05")
	cmd.Dir, cmd.Env, cmd.Stderr = top, append(os.Environ(), "GOWORK="), os.Stderr
	return folder, cmd.Run()
})

// startSite serves the site as any web server does, and returns its address.
func startSite(t testing.TB) string {
	t.Helper()
	folder, err := siteFolder()
	require.NoError(t, err)
	s := httptest.NewServer(http.FileServer(http.Dir(folder)))
	t.Cleanup(s.Close)
	return s.URL
}

// The page shows the same on a site, with the engine in the browser, as with the
// engine in a process.
func TestTheSiteShowsTheSame(t *testing.T) {
	link := startLab(t, "05-election", "--story", "partitioned-leader")
	_, script, _ := strings.Cut(link, "#")
	here, there := open(t, link, desk), open(t, startSite(t)+"/05-election/#"+script, desk)
	for _, key := range []string{"]", kb.ArrowLeft, kb.ArrowRight, "]", kb.End} {
		here.press(key)
		there.press(key)
		here.until(`document.querySelector('.slider').value !== '0'`)
		there.until(`document.querySelector('.slider').value !== '0'`)
	}
	here.until(`document.querySelector('.slider').value === document.querySelector('.slider').max`)
	there.until(`document.querySelector('.slider').value === document.querySelector('.slider').max`)
	require.Equal(t, here.picture(), there.picture())
	run := `location.hash.split('.')[1]`
	require.Len(t, value[string](here, run), 16)
	require.Equal(t, value[string](here, run), value[string](there, run))
}

// On a site, a run can be changed too, and the engine answers the other questions about
// it.
func TestForkOnTheSite(t *testing.T) {
	p := open(t, startSite(t)+"/05-election/", desk)
	p.step("]")
	leader := value[string](p, `document.querySelector('#ring .server.leader').dataset.server`)
	p.focus(`#ring [data-server="` + leader + `"]`)
	p.choose("Cut the power")
	p.until(`document.querySelectorAll('#deeds li').length === 1`)
	p.focus(`#deeds .copy`)
	p.press(kb.Enter)
	p.until(`document.querySelector('#deeds pre')?.textContent.includes('Do: "power-cut", Server: ` + leader + `}') ?? false`)
	p.focus(`#ring [data-server="` + leader + `"]`)
	p.press(kb.Enter, kb.Escape)
	p.focus(`#inspector .disk summary`)
	p.press(kb.Enter)
	p.until(`document.querySelector('#inspector .lines')?.textContent.includes('"id":` + leader + `,') ?? false`)
	p.step("]")
}

// The first page leads to the stages, to their stories, and to the films of edited
// code.
func TestTheSitesFirstPage(t *testing.T) {
	address := startSite(t)
	p := open(t, address+"/02-naive-replication/", desk)
	links := value[string](p, `fetch('../').then((r) => r.text()).then((text) => [...new DOMParser().parseFromString(text, 'text/html').querySelectorAll('a')].map((a) => a.getAttribute('href') + ' ' + a.textContent).join('\n'))`)
	require.Contains(t, links, "02-naive-replication/ 02-naive-replication")
	require.Contains(t, links, "02-naive-replication/?tour=lost-message begin with the first one")
	require.Contains(t, links, "05-election/?tour=leader-election The leader dies")
	edited := ""
	for _, l := range strings.Split(links, "\n") {
		if to, name, _ := strings.Cut(l, " "); name == "figure-8-without-its-rule" {
			edited = to
		}
	}
	require.NotEmpty(t, edited, links)
	film := open(t, address+"/"+edited, desk)
	film.press(kb.End)
	film.until(`document.querySelector('#verdict').textContent.includes('Leader Completeness')`)
	require.Contains(t, value[string](film, `document.querySelector('#claim').textContent`), "The code is edited")
	showsEditedCode(film)
}

// On a site, a run is compared with the other stages of the site.
func TestCompareOnTheSite(t *testing.T) {
	p := open(t, startSite(t)+"/05-election/", desk)
	p.focus("#more")
	p.choose("Compare with")
	p.take("02-naive-replication")
	p.until(`document.body.classList.contains('comparing')`)
	require.Contains(t, value[string](p, `document.querySelector('#difference').innerText`), "02-naive-replication")
	p.until(`document.querySelectorAll('#ring2 .server').length === 5`)
}

// A tour of edited code plays the film that the site holds, to its end.
func TestTourOfEditedCodeOnTheSite(t *testing.T) {
	p := open(t, startSite(t)+"/05-election/?tour=figure-8-without-its-rule", desk)
	p.until(`document.querySelector('#tour .count')?.textContent === '1 of 11'`)
	for i := 2; i <= 11; i++ {
		p.press("n")
		p.until(fmt.Sprintf(`document.querySelector('#tour .count').textContent === '%d of 11'`, i))
	}
	p.until(`document.querySelector('#verdict').textContent.includes('Leader Completeness')`)
}

// showsEditedCode opens the code of a commit, which must be the edited code.
func showsEditedCode(p *tab) {
	p.t.Helper()
	value[bool](p, `([...document.querySelectorAll('#why li')].findLast((x) => x.textContent.includes('n1 commits entries up to 1')).querySelector('.code').click(), true)`)
	p.until(`document.querySelector('dialog[open]') !== null`)
	text := value[string](p, `document.querySelector('dialog[open]').innerText`)
	require.Contains(p.t, text, "if n > r.commitIndex &&")
	require.NotContains(p.t, text, "r.log.term(n)")
}

// The lab of a stage plays another stage, and edited code.
func TestOtherCode(t *testing.T) {
	link := startLab(t, "05-election", "--edit", "figure-8-without-its-rule")
	p := open(t, link, desk)
	p.press(kb.End)
	p.until(`document.querySelector('#verdict').textContent.includes('Leader Completeness')`)
	require.Contains(t, value[string](p, `document.querySelector('#claim').textContent`), "The code is edited")
	showsEditedCode(p)

	address, _, _ := strings.Cut(link, "#")
	other := open(t, address+"#"+value[string](p, `btoa(JSON.stringify({stage: '02-naive-replication', seed: 1, story: 'restart'})).replaceAll('=', '')`), desk)
	other.press(kb.End)
	other.until(`document.querySelector('#verdict').className === 'broken'`)
}

// A link that was made with other code says that this is another run.
func TestLinkOfAnotherVersion(t *testing.T) {
	link := startLab(t, "05-election", "--story", "split-vote")
	says := `document.querySelector('#say').textContent`
	p := open(t, link, desk)
	require.NotContains(t, value[string](p, says), "another")
	same := open(t, value[string](p, `location.href`), desk)
	require.NotContains(t, value[string](same, says), "another")
	p = open(t, link+".0123456789abcdef", desk)
	p.until(says + `.includes('This is another run than the one that the link was made from')`)
}
