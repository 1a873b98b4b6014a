package readme

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ellipsis replaces output that differs from run to run.
const ellipsis = "…"

// kind is the next action of the reader or the program.
type kind int

const (
	// expect: the program prints the lines.
	expect kind = iota

	// typed: the reader types the line.
	typed

	// interrupt and endInput: the reader presses ^C or ^D.
	interrupt
	endInput
)

// step is a part of the lines below a command.
type step struct {
	kind kind

	// line is the number of the first line in the README, from 1.
	line int

	// lines are the expected output, or the one line that is typed. Two steps
	// that expect output never follow each other.
	lines []string
}

// command is one command and what follows it, in its own block and in later
// blocks of the same terminal.
type command struct {
	// line is the number of the command's line in the README.
	line int

	// text is what the reader types, which may have several lines.
	text string

	// talks is true if the reader types into the program.
	talks bool

	// job is true if the command starts a background process.
	job bool

	// status is true if the README shows the command's exit code.
	status bool
}

// nc reports whether a command is a conversation with a server: nc, or a
// stage's talk.
func (c *command) nc() bool {
	words := strings.Fields(c.text)
	talks := len(words) > 0 && words[0] == "nc" || slices.Contains(words, "talk")
	return talks && !strings.ContainsAny(c.text, "<|&;")
}

// part is a command, or the rest of one that is still running, with its steps
// in one block.
type part struct {
	*command

	// begins is true if the command starts here.
	begins bool

	// last is true if the part is the last one of its block.
	last bool

	steps []step
}

// block is one fenced block.
type block struct {
	// line is the line number of the fence.
	line int

	// terminal is the comment that names the block's terminal, or "".
	terminal string

	parts []part
}

var (
	fence     = regexp.MustCompile("^( {0,3})(```+|~~~+)\\s*(.*)$")
	terminals = regexp.MustCompile(`^# (.*\bterminal\b|on \w+)`)
	onHost    = regexp.MustCompile(`^# on (\w+)`)
	answer    = regexp.MustCompile(`^(\{("id":([0-9]+|…),)?"ok":|…|nc: )`)
	prompt    = regexp.MustCompile(`^[\w-]*>( |$)`)
	hereDoc   = regexp.MustCompile(`<<-?\s*['"]?(\w+)['"]?`)
	job       = regexp.MustCompile(`(^|[^&>\\])&($|[^&>0-9])`)
	exitLine  = regexp.MustCompile(`^exit status [0-9]+$`)
)

// parse returns the blocks to run.
func parse(text string) ([]block, error) {
	p := &parser{running: make(map[string]*command)}
	lines := strings.Split(text, "\n")
	for n := 0; n < len(lines); n++ {
		open := fence.FindStringSubmatch(lines[n])
		if open == nil {
			continue
		}
		from := n + 1
		for n++; n < len(lines); n++ {
			if close := fence.FindStringSubmatch(lines[n]); close != nil && strings.HasPrefix(close[2], open[2]) && close[3] == "" {
				break
			}
		}
		if n == len(lines) {
			return nil, fmt.Errorf("line %d: the fence is never closed", from)
		}
		if word, _, _ := strings.Cut(open[3], " "); word != "console" {
			continue
		}
		if open[1] != "" {
			return nil, fmt.Errorf("line %d: the block is indented; move it to the left", from)
		}
		b, err := p.block(from, lines[from:n])
		if err != nil {
			return nil, err
		}
		p.blocks = append(p.blocks, b)
	}
	return p.blocks, nil
}

// labeled refuses a block that does not name its terminal, in a README with
// more than one terminal.
func labeled(blocks []block) error {
	named := slices.ContainsFunc(blocks, func(b block) bool { return b.terminal != "" })
	for _, b := range blocks {
		if named && b.terminal == "" {
			return fmt.Errorf("line %d: the block does not name its terminal, and others do; begin it with \"# second terminal\", say", b.line)
		}
	}
	return nil
}

// parser is the state of the parser.
type parser struct {
	blocks []block

	// running has the last command of each terminal with a name.
	running map[string]*command
}

// block parses one block; lines are the lines between the fences, and first is
// the line number of the fence.
func (p *parser) block(first int, lines []string) (block, error) {
	b := block{line: first}
	n := 0
	if len(lines) > 0 && terminals.MatchString(lines[0]) {
		b.terminal = lines[0]
		n++
	}
	var now *part
	if c := p.running[b.terminal]; c != nil && n < len(lines) && !strings.HasPrefix(lines[n], "$ ") {
		b.parts = append(b.parts, part{command: c})
		now = &b.parts[0]
	}
	for n < len(lines) {
		line, number := lines[n], first+1+n
		if typed, ok := strings.CutPrefix(line, "$ "); ok {
			rest := continued(typed, lines[n+1:])
			text := strings.Join(append([]string{typed}, rest...), "\n")
			b.parts = append(b.parts, part{command: &command{line: number, text: text, job: job.MatchString(text)}, begins: true})
			now = &b.parts[len(b.parts)-1]
			n += 1 + len(rest)
			continue
		}
		if now == nil {
			return b, fmt.Errorf("line %d: %q is above the first command of the block; a command begins with \"$ \", and a block's first line may name a terminal, as in \"# first terminal\"", number, line)
		}
		if err := now.add(line, number); err != nil {
			return b, err
		}
		n++
	}
	if len(b.parts) == 0 {
		return b, fmt.Errorf("line %d: the block holds no command; a command begins with \"$ \"", first)
	}
	b.parts[len(b.parts)-1].last = true
	return b, p.close(&b)
}

// close checks a block as a whole: which exit codes are shown, and whether the
// test can wait for a command that keeps running.
func (p *parser) close(b *block) error {
	before := p.before(b.terminal)
	for i := range b.parts {
		part := &b.parts[i]
		if before != nil && part.begins && strings.Contains(part.text, "$?") {
			before.status = true
		}
		before = part.command
	}
	if b.terminal == "" {
		return nil
	}
	last := b.parts[len(b.parts)-1]
	p.running[b.terminal] = last.command
	if last.begins && len(last.steps) == 1 && !concrete(last.steps[0].lines) {
		return fmt.Errorf("line %d: an ellipsis alone waits for nothing; show the line that says that the command is ready", last.steps[0].line)
	}
	return nil
}

// before returns the last command of a terminal so far.
func (p *parser) before(terminal string) *command {
	for i := len(p.blocks) - 1; i >= 0; i-- {
		if p.blocks[i].terminal == terminal {
			parts := p.blocks[i].parts
			return parts[len(parts)-1].command
		}
	}
	return nil
}

// continued returns the further lines of a command after its first one, without
// the shell's prompt.
func continued(text string, below []string) []string {
	var rest []string
	end := ""
	if m := hereDoc.FindStringSubmatch(text); m != nil {
		end = m[1]
	}
	for _, line := range below {
		open := strings.HasSuffix(text, `\`) || strings.HasSuffix(text, "|") || strings.HasSuffix(text, "&&")
		if !open && end == "" || !strings.HasPrefix(line, ">") {
			break
		}
		text = strings.TrimPrefix(strings.TrimPrefix(line, ">"), " ")
		rest = append(rest, text)
		if text == end {
			end = ""
		}
	}
	return rest
}

// add adds a line below a command.
func (p *part) add(line string, number int) error {
	s := step{line: number, lines: []string{line}}
	switch {
	case line == "^C":
		s.kind = interrupt
		if !p.shown() {
			return fmt.Errorf("line %d: ^C right after the command: show some of its output first, so that the test knows that it runs", number)
		}
	case line == "^D":
		s.kind, p.talks = endInput, true
	case p.nc() && !answer.MatchString(line):
		s.kind, p.talks = typed, true
	case !p.nc() && prompt.MatchString(line):
		s.kind, p.talks = typed, true
		s.lines[0] = prompt.ReplaceAllString(line, "")
	}
	if exitLine.MatchString(line) {
		p.status = true
	}
	if last := len(p.steps) - 1; s.kind == expect && last >= 0 && p.steps[last].kind == expect {
		p.steps[last].lines = append(p.steps[last].lines, line)
		return nil
	}
	p.steps = append(p.steps, s)
	return nil
}

// shown reports whether the README shows any output of the command so far.
func (p *part) shown() bool {
	if !p.begins {
		return true
	}
	for _, s := range p.steps {
		if s.kind == expect && concrete(s.lines) {
			return true
		}
	}
	return false
}

// concrete reports whether any of the lines is more than an ellipsis.
func concrete(lines []string) bool {
	for _, l := range lines {
		if strings.TrimSpace(l) != ellipsis {
			return true
		}
	}
	return false
}
