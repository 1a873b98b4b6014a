package film

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/lab/scenario"
)

// Moment is a moment of a film.
type Moment struct {
	// Step is the last step that has been played.
	Step uint64

	// Half is true if of that step only its deeds have happened.
	Half bool
}

// Limits of Disk. Of a longer file the beginning and the end are shown.
const (
	maxFiles = 16
	maxHead  = 4 << 10
	maxTail  = 12 << 10
)

// Disk plays a script up to a moment, and returns what is on the disk of a server
// then, as a JSON object: for each file its size, how much of its beginning is synced,
// and its text, or parts of it.
func Disk(stage scenario.Stage, s Script, m Moment, server uint64) ([]byte, error) {
	if err := s.Check(stage); err != nil {
		return nil, err
	}
	if m.Step > MaxSteps {
		return nil, fmt.Errorf("step %d comes after step %d, the last one that is played", m.Step, MaxSteps)
	}
	until := m.Step
	if m.Half && until > 0 {
		until--
	}
	p, err := playUntil(stage, s, until)
	if err != nil {
		return nil, err
	}
	w := p.world
	if w == nil {
		w = p.recorder.world // the story has ended
	}
	if w == nil || !slices.Contains(w.IDs(), server) {
		return nil, fmt.Errorf("at step %d, %s", m.Step, unknownServer(server))
	}
	if m.Half && w.Steps() == until {
		p.before(w, m.Step)
	}
	return appendDisk(nil, w.Disk(server))
}

func appendDisk(b []byte, d *disk.Sim) ([]byte, error) {
	live := d.Clone() // without power, or after a failed fsync, a disk cannot be read
	live.CutPower(0)
	synced := live.Durable()
	names, err := live.List()
	if err != nil {
		return nil, fmt.Errorf("list the files: %w", err)
	}
	b = append(b, `{"files":[`...)
	for _, name := range names[:min(len(names), maxFiles)] {
		text, err := disk.ReadFile(live, name)
		if err != nil {
			return nil, err
		}
		on, err := disk.ReadFile(synced, name)
		if err != nil {
			on = nil // the name is not synced
		}
		b = strict.AppendString(append(strict.AppendComma(b), `{"name":`...), name)
		b = strict.AppendNumber(b, "size", uint64(len(text)))
		b = strict.AppendNumber(b, "synced", uint64(common(text, on)))
		b = append(b, `,"parts":[`...)
		if len(text) <= maxHead+maxTail {
			b = appendPart(b, text, 0, len(text))
		} else {
			head := maxHead
			if i := bytes.LastIndexByte(text[:head], '\n'); i >= 0 {
				head = i + 1
			}
			tail := len(text) - maxTail
			if i := bytes.IndexByte(text[tail:], '\n'); i >= 0 && i+1 < maxTail {
				tail += i + 1
			}
			b = appendPart(appendPart(b, text, 0, head), text, tail, len(text))
		}
		b = append(b, `]}`...)
	}
	return append(b, `]}`...), nil
}

// appendPart appends a part of a file with the offset at which it begins. A crash may
// have left bytes that are no text.
func appendPart(b, text []byte, from, to int) []byte {
	b = fmt.Appendf(strict.AppendComma(b), `{"at":%d`, from)
	return append(strict.AppendText(b, "text", strings.ToValidUTF8(string(text[from:to]), "�")), '}')
}

// common is the length of the common beginning of two texts.
func common(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
