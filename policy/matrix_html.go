package policy

import (
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"strings"
)

// The page is one file that loads nothing, and says so itself: its own
// Content-Security-Policy allows the style and the script that it has inside.

//go:embed web/matrix.html
var matrixHTML string

//go:embed web/matrix.css
var matrixCSS string

//go:embed web/matrix.js
var matrixJS string

// matrixPage is what the template is given.
type matrixPage struct {
	*Matrix
	CSP    string
	Style  template.CSS
	Script template.JS
	Heads  []matrixHead
	Views  []rowView
	Data   matrixData
}

type matrixHead struct{ Prefix, Name string }

type rowView struct {
	MatrixRow
	Again  bool   // the path is that of the row before
	Open   bool   // to somebody
	Method string // one of the methods
	Cells  []cellView
}

type cellView struct {
	Class, Mark string
	HasRule     bool
	Rule, Via   int // positions in matrixData
	Hits        int
	ShortHits   string
}

// matrixData is what the script knows of the cells. What many share is there once.
type matrixData struct {
	Subjects []string   `json:"subjects"`
	Rules    [][3]any   `json:"rules"` // text, file, line
	Vias     [][]string `json:"vias"`
	Counted  bool       `json:"counted"`
}

// HTML writes the matrix as a page of its own. Whatever the policy says, it is
// text there, and never markup.
func (m *Matrix) HTML(to io.Writer) error {
	t, err := template.New("matrix").Parse(matrixHTML)
	if err != nil {
		return fmt.Errorf("matrix page: %w", err)
	}
	page := matrixPage{
		Matrix: m, Style: template.CSS(matrixCSS), Script: template.JS(matrixJS), //nolint:gosec // both are ours
		CSP: fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", cspHash(matrixCSS), cspHash(matrixJS)),
	}
	page.Data = matrixData{Subjects: m.Subjects, Rules: [][3]any{}, Vias: [][]string{{}}, Counted: m.Requests > 0}
	for _, s := range m.Subjects {
		name, isRole := strings.CutPrefix(s, rolePrefix)
		head := matrixHead{Name: name}
		if isRole {
			head.Prefix = rolePrefix
		}
		page.Heads = append(page.Heads, head)
	}
	page.view(m)
	return t.Execute(to, page)
}

func cspHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func (p *matrixPage) view(m *Matrix) {
	rules, vias := make(map[int]int), map[string]int{"[]": 0}
	for i, r := range m.Rows {
		v := rowView{MatrixRow: r, Again: i > 0 && m.Rows[i-1].Path == r.Path, Method: r.Methods[0]}
		if v.Method == "*" {
			free := func(method string) bool { return slices.Contains(r.Except, method) }
			v.Method = "GET"
			for _, method := range append(m.cast.methods, registeredMethods()...) {
				if !free(method) {
					v.Method = method
					break
				}
			}
		}
		for _, c := range r.Cells {
			v.Open = v.Open || c.Effect == Allow
			v.Cells = append(v.Cells, p.viewCell(c, rules, vias))
		}
		p.Views = append(p.Views, v)
	}
}

func (p *matrixPage) viewCell(c Cell, rules map[int]int, vias map[string]int) cellView {
	v := cellView{Class: "n", Mark: "·", Hits: c.Hits, ShortHits: short(c.Hits)}
	if c.Rule == nil {
		return v
	}
	switch {
	case c.Effect == Deny:
		v.Class, v.Mark = "d", "✕"
	case c.Inherited:
		v.Class, v.Mark = "i", "✓"
	default:
		v.Class, v.Mark = "a", "✓"
	}
	v.HasRule = true
	var known bool
	if v.Rule, known = rules[c.Rule.Line]; !known {
		v.Rule = len(p.Data.Rules)
		rules[c.Rule.Line] = v.Rule
		p.Data.Rules = append(p.Data.Rules, [3]any{c.Rule.Rule, c.Rule.File, c.Rule.Line})
	}
	key := fmt.Sprint(c.Via)
	if v.Via, known = vias[key]; !known {
		v.Via = len(p.Data.Vias)
		vias[key] = v.Via
		var texts []string
		for _, via := range c.Via {
			texts = append(texts, via.String())
		}
		p.Data.Vias = append(p.Data.Vias, texts)
	}
	return v
}

// short writes a number in at most five characters; "" for 0.
func short(n int) string {
	switch {
	case n == 0:
		return ""
	case n < 10_000:
		return strconv.Itoa(n)
	case n < 1_000_000:
		return strconv.Itoa(n/1000) + "k"
	}
	return strconv.Itoa(n/1_000_000) + "M"
}
