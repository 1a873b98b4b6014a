package linediff

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// show returns a difference as text.
func show(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(string(l.Op) + l.Text + "\n")
	}
	return b.String()
}

func split2(s string) []string { return strings.Split(strings.Trim(s, "\n"), "\n") }

// rebuild returns the two texts that a difference contains.
func rebuild(lines []Line) (old, new []string) {
	for _, l := range lines {
		if l.Op != Insert {
			old = append(old, l.Text)
		}
		if l.Op != Delete {
			new = append(new, l.Text)
		}
	}
	return old, new
}

func edits(lines []Line) (n int) {
	for _, l := range lines {
		if l.Op != Equal {
			n++
		}
	}
	return n
}

// For random texts, a difference contains both texts, in order, with the right
// line numbers.
func TestDiffHoldsBothTexts(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 0))
		old, new := texts(r)
		lines := Diff(old, new)
		gotOld, gotNew := rebuild(lines)
		require.Equal(t, old, gotOld, "seed %d", seed)
		require.Equal(t, new, gotNew, "seed %d", seed)
		for _, l := range lines {
			if l.Op != Insert {
				require.Equal(t, old[l.Old], l.Text, "seed %d", seed)
			}
			if l.Op != Delete {
				require.Equal(t, new[l.New], l.Text, "seed %d", seed)
			}
		}
		for i := 1; i < len(lines); i++ {
			require.False(t, lines[i-1].Op == Insert && lines[i].Op == Delete,
				"seed %d: an inserted line above a deleted one in\n%s", seed, show(lines))
		}
	}
}

// texts returns two random texts. Their lines are few letters, so that lines
// repeat, with some indentation and blank lines, so that a change can be shown at
// several places.
func texts(r *rand.Rand) (old, new []string) {
	letters := []string{"a", "b", "c", "", "\td", "}", "e", "f", "\t\tg", "h"}[:2+r.IntN(9)]
	text := func() (out []string) {
		for range r.IntN(30) {
			out = append(out, letters[r.IntN(len(letters))])
		}
		return out
	}
	return text(), text()
}

// Without anchors, the difference is as short as possible.
func TestMyersIsShortest(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		old, new := texts(r)
		d := &differ{
			old: make([]int, len(old)), new: make([]int, len(new)),
			deleted: make([]bool, len(old)+1), inserted: make([]bool, len(new)+1),
		}
		d.number(old, new)
		d.myers(0, len(old), 0, len(new))
		lines := d.lines(old, new)
		gotOld, gotNew := rebuild(lines)
		require.Equal(t, old, gotOld, "seed %d", seed)
		require.Equal(t, new, gotNew, "seed %d", seed)
		require.Equal(t, len(old)+len(new)-2*common(old, new), edits(lines), "seed %d:\n%s", seed, show(lines))
	}
}

// common returns the length of the longest common subsequence, computed with the
// simplest algorithm.
func common(a, b []string) int {
	table := make([][]int, len(a)+1)
	for i := range table {
		table[i] = make([]int, len(b)+1)
	}
	for i := range a {
		for j := range b {
			table[i+1][j+1] = max(table[i][j+1], table[i+1][j])
			if a[i] == b[j] {
				table[i+1][j+1] = table[i][j] + 1
			}
		}
	}
	return table[len(a)][len(b)]
}

// For long texts that have nothing in common, the search stops early, and the
// difference still contains both texts.
func TestDiffGivesUp(t *testing.T) {
	old, new := make([]string, 2*mostEdits), make([]string, 2*mostEdits)
	for i := range old {
		old[i], new[i] = []string{"a", "b"}[i%2], []string{"c", "d"}[i%2]
	}
	old[0], new[5] = "x", "x"
	lines := Diff(old, new)
	gotOld, gotNew := rebuild(lines)
	require.Equal(t, old, gotOld)
	require.Equal(t, new, gotNew)
}

// In each case, the difference is the one that a person would write.
func TestDiffReadsWell(t *testing.T) {
	tests := map[string]struct{ old, new, want string }{
		"nothing changed": {"a\nb", "a\nb", " a\n b\n"},
		"a line changed":  {"a\nb\nc", "a\nB\nc", " a\n-b\n+B\n c\n"},
		"a function is added between two that end alike": {
			old: "func a() {\n\tx()\n}\n\nfunc c() {\n\tz()\n}",
			new: "func a() {\n\tx()\n}\n\nfunc b() {\n\ty()\n}\n\nfunc c() {\n\tz()\n}",
			want: ` func a() {
 	x()
 }
 
+func b() {
+	y()
+}
+
 func c() {
 	z()
 }
`,
		},
		"a function with its comment is added behind another": {
			old: "// a is.\nfunc a() {\n\tx()\n}\n\n// c is.\nfunc c() {\n\tx()\n}",
			new: "// a is.\nfunc a() {\n\tx()\n}\n\n// c is.\nfunc c() {\n\tx()\n}\n\n// d is.\nfunc d() {\n\tx()\n}",
			want: ` // a is.
 func a() {
 	x()
 }
 
 // c is.
 func c() {
 	x()
 }
+
+// d is.
+func d() {
+	x()
+}
`,
		},
		"a case is added to a switch": {
			old: "switch {\ncase a:\n\tx()\n\treturn\ncase c:\n\tz()\n\treturn\n}",
			new: "switch {\ncase a:\n\tx()\n\treturn\ncase b:\n\ty()\n\treturn\ncase c:\n\tz()\n\treturn\n}",
			want: ` switch {
 case a:
 	x()
 	return
+case b:
+	y()
+	return
 case c:
 	z()
 	return
 }
`,
		},
		"a block goes: its lines stay together": {
			old: "\tif a {\n\t\tx()\n\t}\n\tif b {\n\t\ty()\n\t}\n\tif c {\n\t\tz()\n\t}",
			new: "\tif a {\n\t\tx()\n\t}\n\tif c {\n\t\tz()\n\t}",
			want: ` 	if a {
 		x()
 	}
-	if b {
-		y()
-	}
 	if c {
 		z()
 	}
`,
		},
		"what is replaced stays next to what replaces it": {
			old:  "a\nold\nb\nb",
			new:  "a\nb\nb\nb",
			want: " a\n-old\n+b\n b\n b\n",
		},
		"a rewritten body is not torn apart at its braces": {
			old: "func a() {\n\tone()\n\t{\n\t}\n\ttwo()\n}\n\nfunc keep() {}",
			new: "func a() {\n\tthree()\n}\n\nfunc keep() {}",
			want: ` func a() {
-	one()
-	{
-	}
-	two()
+	three()
 }
 
 func keep() {}
`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, show(Diff(split2(test.old), split2(test.new))))
		})
	}
}

func TestHunks(t *testing.T) {
	old := split2("1\n2\n3\n4\n5\n6\n7\n8\n9")
	tests := map[string]struct {
		new  string
		want []string
	}{
		"no change":               {"1\n2\n3\n4\n5\n6\n7\n8\n9", nil},
		"one":                     {"1\n2\n3\n4\nV\n6\n7\n8\n9", []string{" 3\n 4\n-5\n+V\n 6\n 7\n"}},
		"at the ends":             {"2\n3\n4\n5\n6\n7\n8\n9\n10", []string{"-1\n 2\n 3\n", " 8\n 9\n+10\n"}},
		"close changes share one": {"1\n2\nX\n4\n5\n6\nY\n8\n9", []string{" 1\n 2\n-3\n+X\n 4\n 5\n 6\n-7\n+Y\n 8\n 9\n"}},
		"far changes do not":      {"1\nX\n3\n4\n5\n6\n7\nY\n9", []string{" 1\n-2\n+X\n 3\n 4\n", " 6\n 7\n-8\n+Y\n 9\n"}},
		"everything is replaced":  {"x", []string{"-1\n-2\n-3\n-4\n-5\n-6\n-7\n-8\n-9\n+x\n"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, h := range Hunks(Diff(old, split2(test.new)), 2) {
				got = append(got, show(h))
			}
			require.Equal(t, test.want, got)
		})
	}
}

func FuzzDiff(f *testing.F) {
	f.Add("a\nb", "b\nc")
	f.Add("", "x")
	f.Add("\n\n", "\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		old, new := strings.Split(a, "\n"), strings.Split(b, "\n")
		gotOld, gotNew := rebuild(Diff(old, new))
		require.Equal(t, old, gotOld)
		require.Equal(t, new, gotNew)
	})
}
