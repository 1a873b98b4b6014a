package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// finding is a rule of axe-core that the page breaks.
type finding struct {
	ID     string `json:"id"`
	Impact string `json:"impact"`
	Help   string `json:"help"`
	Nodes  []struct {
		HTML    string `json:"html"`
		Summary string `json:"failureSummary"`
	} `json:"nodes"`
}

// The page has no serious fault for people who use a screen reader, a keyboard or
// a screen with little contrast, in any view.
func TestEverybodyCanUseThePage(t *testing.T) {
	judge, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	require.NoError(t, err, "run npm install --no-package-lock in shared/lab/browser")
	views := []struct {
		name string
		show func(p *tab)
	}{
		{"ring", func(p *tab) { p.step("]") }},
		{"diagram", func(p *tab) { p.press("v") }},
		{"menu of a server", func(p *tab) {
			p.press("v")
			p.focus("#ring [data-server]")
			p.press(kb.Enter)
			p.until(`!!document.querySelector('.menu:not([hidden])')`)
		}},
		{"help", func(p *tab) {
			p.press(kb.Escape, "?")
			p.until(`document.querySelector('dialog[open]') !== null`)
		}},
		{"verdict", func(p *tab) {
			p.press(kb.Escape)
			p.until(`document.querySelector('dialog[open]') === null`)
			p.press(kb.End)
		}},
		{"code", func(p *tab) {
			p.press(kb.Home, "]")
			p.focus(`#why li:last-child .code`)
			p.press(kb.Enter)
			p.until(`document.querySelector('dialog[open]') !== null`)
		}},
		{"files", func(p *tab) {
			p.press(kb.Escape, kb.End)
			p.focus("#ring [data-server]")
			p.press(kb.Enter, kb.Escape)
			p.focus("#inspector .disk summary")
			p.press(kb.Enter)
			p.until(`document.querySelector('#inspector .lines') !== null`)
		}},
		{"test in Go", func(p *tab) {
			p.focus("#tab-inspector")
			p.press(kb.ArrowRight)
			p.focus("#deeds .copy")
			p.press(kb.Enter)
			p.until(`document.querySelector('#deeds pre') !== null`)
		}},
		{"changing a deed", func(p *tab) {
			p.press(kb.Home)
			p.focus("#ring [data-server]")
			p.choose("Pause")
			p.focus("#deeds .change")
			p.press(kb.Enter)
			p.until(`document.querySelector('#deeds .edit') !== null`)
		}},
		{"predict", func(p *tab) {
			p.focus("#deeds .buttons button:last-child")
			p.press(kb.Enter)
			p.focus("#deeds .remove")
			p.press(kb.Enter)
			p.until(`document.querySelector('#deeds .empty') !== null`)
			p.press(kb.Home, "q", " ")
			p.until(`!document.querySelector('#question').hidden`)
		}},
		{"tour", func(p *tab) {
			p.press("q")
			p.focus("#tours")
			p.choose("Two timeouts")
			p.until(`!document.querySelector('#tour').hidden`)
		}},
		{"comparison", func(p *tab) {
			p.press(kb.Escape)
			p.focus("#more")
			p.choose("Compare with")
			p.take("04-smart-client")
			p.until(`document.body.classList.contains('comparing')`)
		}},
	}
	address := startLab(t, "05-election", "--story", "partitioned-leader")
	// The order of the views is that of one visit.
	for _, l := range []look{desk, phone, {width: 1280, height: 800, dark: true}, {width: 390, height: 844, dark: true}} {
		p := open(t, address, l)
		value[bool](p, string(judge)+";true")
		for _, v := range views {
			t.Run(fmt.Sprintf("%s, %d wide, dark %t", v.name, l.width, l.dark), func(t *testing.T) {
				p.t = t
				v.show(p)
				found := value[[]finding](p, `axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical'))`)
				for _, f := range found {
					for _, n := range f.Nodes {
						t.Errorf("%s (%s): %s\n%.300s\n%s", f.ID, f.Impact, f.Help, n.HTML, n.Summary)
					}
				}
			})
		}
		p.t = t
	}
}
