package film

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/raftsteps/shared/lab/scenario"
)

// GoTest plays a script and returns a test of the stage in Go that plays it again.
// The test passes as long as the same thing happens. The error is about the script.
func GoTest(stage scenario.Stage, s Script) (string, error) {
	if len(s.Edits) > 0 {
		return "", fmt.Errorf("a test plays the code of %s as it is, and this film needs %s", stage.Name, withEdits(s.Edits))
	}
	f, err := Play(stage, s)
	if err != nil {
		return "", err
	}
	return f.goTest(), nil
}

// goTest writes the test. It is formatted as gofmt formats it: the package go/format
// would make the engines for browsers larger.
func (f *Film) goTest() string {
	var b strings.Builder
	run, s := f.Run(), f.Script
	name := "TestLab" + run[:8]
	imports := []string{"testing"}
	if s.Time > 0 || slices.ContainsFunc(s.Deeds, func(e Deed) bool { return e.For > 0 }) {
		imports = append(imports, "time")
	}
	b.WriteString("package main\n\nimport (\n")
	for _, path := range imports {
		fmt.Fprintf(&b, "\t%q\n", path)
	}
	b.WriteString("\n\t\"example.com/raftsteps/shared/lab/film\"\n)\n\n")
	fmt.Fprintf(&b, "// %s plays what was done in the lab. Save it as %s/lab_%s_test.go, and run it:\n//\n//\tgo test ./%s -run %s\n", name, s.Stage, run[:8], s.Stage, name)
	fmt.Fprintf(&b, "func %s(t *testing.T) {\n\tf, err := film.Play(scenarios, film.Script{\n", name)
	fields := []string{"Stage: " + quote(s.Stage), fmt.Sprintf("Seed: %d", s.Seed)}
	for _, x := range []struct {
		name string
		v    uint64
	}{{"Servers", uint64(s.Servers)}, {"Spare", uint64(s.Spare)}, {"Steps", s.Steps}} {
		if x.v != 0 {
			fields = append(fields, fmt.Sprintf("%s: %d", x.name, x.v))
		}
	}
	if s.Story != "" {
		fields = append(fields, "Story: "+quote(s.Story))
	}
	if s.Time > 0 {
		fields = append(fields, "Time: "+goDuration(s.Time))
	}
	fmt.Fprintf(&b, "\t\t%s,\n", strings.Join(fields, ", "))
	applied := true
	if len(s.Deeds) > 0 {
		b.WriteString("\t\tDeeds: []film.Deed{\n")
		for i, e := range s.Deeds {
			if o := f.Outcomes[i]; !o.Applied {
				applied = false
				fmt.Fprintf(&b, "\t\t\t// This one does not apply: %s.\n", strings.Join(strings.Fields(o.Why), " "))
			}
			fmt.Fprintf(&b, "\t\t\t{%s},\n", e.goFields())
		}
		b.WriteString("\t\t},\n")
	}
	b.WriteString("\t})\n\tif err != nil {\n\t\tt.Fatal(err)\n\t}\n")
	if len(s.Deeds) > 0 && applied {
		b.WriteString("\tfor i, o := range f.Outcomes {\n\t\tif !o.Applied {\n\t\t\tt.Errorf(\"deed %d did not apply: %s\", i+1, o.Why)\n\t\t}\n\t}\n")
	}
	fmt.Fprintf(&b, "\tif want := %s; f.Verdict != want {\n\t\tt.Errorf(\"the verdict is %%q, not %%q\", f.Verdict, want)\n\t}\n", quote(f.Verdict))
	fmt.Fprintf(&b, "\tif run := f.Run(); run != %q {\n\t\tt.Errorf(\"this is another run than in the lab (%%s, after %%d steps and %%v): the code or the script has changed\", run, f.Steps, f.Length)\n\t}\n}\n", run)
	return b.String()
}

// goFields are the fields of a deed in Go. The time is for people, and is left out.
func (e Deed) goFields() string {
	fields := []string{fmt.Sprintf("At: %d", e.At), "Do: " + quote(e.Do)}
	for _, x := range []struct {
		name string
		v    uint64
	}{{"Server", e.Server}, {"From", e.From}, {"To", e.To}, {"Number", e.Number}, {"Percent", e.Percent}, {"Client", e.Client}} {
		if x.v != 0 {
			fields = append(fields, fmt.Sprintf("%s: %d", x.name, x.v))
		}
	}
	if len(e.Groups) > 0 {
		sides := make([]string, len(e.Groups))
		for i, side := range e.Groups {
			sides[i] = "{" + strings.Join(strings.Fields(strings.Trim(fmt.Sprint(side), "[]")), ", ") + "}"
		}
		fields = append(fields, "Groups: [][]uint64{"+strings.Join(sides, ", ")+"}")
	}
	if e.For > 0 {
		fields = append(fields, "For: "+goDuration(e.For))
	}
	if e.Kind != "" {
		fields = append(fields, "Kind: "+quote(e.Kind))
	}
	if e.Request != "" {
		fields = append(fields, "Request: "+quote(e.Request))
	}
	return strings.Join(fields, ", ")
}

// goDuration writes a duration in the largest unit that it is a multiple of.
func goDuration(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Second, "Second"}, {time.Millisecond, "Millisecond"}, {time.Microsecond, "Microsecond"}} {
		if d%u.unit == 0 {
			return fmt.Sprintf("%d * time.%s", d/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%d * time.Nanosecond", d)
}

// quote writes a text in Go: without escapes if that is possible.
func quote(s string) string {
	if strings.Contains(s, `"`) && strconv.CanBackquote(s) {
		return "`" + s + "`"
	}
	return strconv.Quote(s)
}
