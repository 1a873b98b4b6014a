package browser

import (
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
)

// The page plays a film of 20,000 steps of chaos. frames/s is how often it draws
// while it plays, of the 60 per second that a browser asks for; film-ms is how long
// it takes from the script to the film, indexed and drawn.
func BenchmarkPlaying(b *testing.B) {
	p := open(b, startLab(b, "05-election", "--story", "chaos"), desk)
	for b.Loop() {
		p.press(kb.Home)
		began := time.Now()
		p.do(reload())
		p.until(`document.querySelectorAll('#ring [data-server]').length > 0 && !document.body.classList.contains('loading')`)
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "film-ms")
		frames := value[float64](p, `new Promise((done) => {
			document.querySelector('.key.play').click();
			let n = 0;
			const began = performance.now();
			const count = (now) => { n++; if (now - began < 3000) requestAnimationFrame(count); else done(n / (now - began) * 1000); };
			requestAnimationFrame(count);
		})`)
		b.ReportMetric(frames, "frames/s")
	}
}
