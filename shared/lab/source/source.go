// Package source finds the code behind a decision: which function of a stage names
// the rule, and which conditions must hold before it does.
//
// Nothing is guessed from the words of a reason. A rule is declared once, with its
// code, and the function that decides names it.
package source

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Index is the code of a stage, and where its rules decide.
type Index struct {
	// Files are the texts of the files that decide something, by path.
	Files map[string]string `json:"files"`

	// Rules are the places that name a rule, by its code.
	Rules map[string][]Place `json:"rules"`
}

// Place is a function that names a rule.
type Place struct {
	// File is the path of its file, Function its name, with that of its receiver.
	File     string `json:"file"`
	Function string `json:"function"`

	// From and To are its first and last line, with the comment before it. The
	// first line of a file is 1.
	From int `json:"from"`
	To   int `json:"to"`

	// Lines name the rule.
	Lines []int `json:"lines"`

	// Guard are the lines of the conditions that lead there: of the statements
	// around, of the cases before, and of the checks before that return.
	Guard []int `json:"guard"`
}

// Read reads all files of Go in the folders of a stage, except for its tests.
func Read(files fs.FS) (*Index, error) {
	names, err := fs.Glob(files, "*/*.go")
	if err != nil {
		return nil, fmt.Errorf("list the code: %w", err)
	}
	x := &Index{Files: make(map[string]string), Rules: make(map[string][]Place)}
	set := token.NewFileSet()
	folders := make(map[string][]*ast.File)
	texts := make(map[string]string)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read the code: %w", err)
		}
		f, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("read the code: %w", err)
		}
		texts[name] = string(text)
		folders[path.Dir(name)] = append(folders[path.Dir(name)], f)
	}
	for _, parsed := range folders {
		codes := make(map[string]string)
		for _, f := range parsed {
			declared(f, codes)
		}
		for _, f := range parsed {
			x.decisions(set, f, codes)
		}
	}
	for _, places := range x.Rules {
		for _, p := range places {
			x.Files[p.File] = texts[p.File]
		}
		slices.SortFunc(places, func(a, b Place) int { return strings.Compare(a.Function, b.Function) })
	}
	return x, nil
}

// declared notes the rules that a file declares, by the names of their variables:
//
//	var Voted = &Rule{"voted", …}
//	const MajorityAnswered Code = "majority-answered"
func declared(f *ast.File, codes map[string]string) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for i, value := range v.Values {
				if code := codeOf(v.Type, value); code != "" {
					codes[v.Names[i].Name] = code
				}
			}
		}
	}
}

func codeOf(kind, value ast.Expr) string {
	if name, ok := kind.(*ast.Ident); ok && name.Name == "Code" {
		return text(value)
	}
	if u, ok := value.(*ast.UnaryExpr); ok {
		value = u.X
	}
	c, ok := value.(*ast.CompositeLit)
	if !ok || len(c.Elts) == 0 {
		return ""
	}
	if name, ok := c.Type.(*ast.Ident); !ok || name.Name != "Rule" {
		return ""
	}
	return text(c.Elts[0])
}

// text is the value of a string literal, or "".
func text(e ast.Expr) string {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return ""
	}
	s, _ := strconv.Unquote(l.Value)
	return s
}

// decisions adds the functions of a file that name a rule. A method of Reason only
// describes rules.
func (x *Index) decisions(set *token.FileSet, f *ast.File, codes map[string]string) {
	line := func(p token.Pos) int { return set.Position(p).Line }
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil || receiver(fn) == "Reason" {
			continue
		}
		here := Place{File: set.Position(fn.Pos()).Filename, Function: fn.Name.Name, From: line(fn.Pos()), To: line(fn.End())}
		if r := receiver(fn); r != "" {
			here.Function = r + "." + here.Function
		}
		if fn.Doc != nil {
			here.From = line(fn.Doc.Pos())
		}
		found := make(map[string]*Place)
		var around []ast.Node
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if n == nil {
				around = around[:len(around)-1]
				return true
			}
			around = append(around, n)
			name, ok := n.(*ast.Ident)
			if !ok || codes[name.Name] == "" || selected(around, name) {
				return true
			}
			code := codes[name.Name]
			p := found[code]
			if p == nil {
				copied := here
				p = &copied
				found[code] = p
			}
			p.Lines = append(p.Lines, line(name.Pos()))
			for _, span := range guards(around) {
				for l := line(span[0]); l <= line(span[1]); l++ {
					p.Guard = append(p.Guard, l)
				}
			}
			return true
		})
		for code, p := range found {
			for _, lines := range []*[]int{&p.Lines, &p.Guard} {
				slices.Sort(*lines)
				*lines = slices.Compact(*lines)
			}
			x.Rules[code] = append(x.Rules[code], *p)
		}
	}
}

// receiver is the type of a method, or "".
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	t := fn.Recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	name, _ := t.(*ast.Ident)
	if name == nil {
		return ""
	}
	return name.Name
}

// selected reports whether a name is a field or a method, such as the Committed of
// r.out.Committed or of Output{Committed: …}.
func selected(around []ast.Node, name *ast.Ident) bool {
	switch n := around[len(around)-2].(type) {
	case *ast.SelectorExpr:
		return n.Sel == name
	case *ast.KeyValueExpr:
		return n.Key == name
	}
	return false
}

// guards returns the conditions that lead to the last of the nodes, each with its
// ends.
func guards(around []ast.Node) (out [][2]token.Pos) {
	for i, n := range around[:len(around)-1] {
		inside := around[i+1]
		switch n := n.(type) {
		case *ast.IfStmt:
			if inside == n.Body || inside == n.Else {
				out = append(out, [2]token.Pos{n.If, n.Body.Lbrace})
			}
		case *ast.ForStmt:
			if n.Cond != nil {
				out = append(out, [2]token.Pos{n.For, n.Body.Lbrace})
			}
		case *ast.BlockStmt:
			out = append(out, checks(n.List, inside)...)
			out = append(out, cases(n.List, inside)...)
		case *ast.CaseClause:
			out = append(out, checks(n.Body, inside)...)
		}
	}
	return out
}

// checks are the statements before one that may return: "if … { return }".
func checks(list []ast.Stmt, before ast.Node) (out [][2]token.Pos) {
	for _, s := range list {
		if s == before {
			break
		}
		if c, ok := s.(*ast.IfStmt); ok && leaves(c.Body) {
			out = append(out, [2]token.Pos{c.If, c.Body.Lbrace})
		}
	}
	return out
}

func leaves(b *ast.BlockStmt) bool {
	if len(b.List) == 0 {
		return false
	}
	switch b.List[len(b.List)-1].(type) {
	case *ast.ReturnStmt, *ast.BranchStmt:
		return true
	}
	return false
}

// cases are the conditions of a switch down to one of its cases.
func cases(list []ast.Stmt, until ast.Node) (out [][2]token.Pos) {
	for _, s := range list {
		c, ok := s.(*ast.CaseClause)
		if !ok {
			return nil
		}
		out = append(out, [2]token.Pos{c.Case, c.Colon})
		if s == until {
			break
		}
	}
	return out
}
