package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Matrix says for everybody whom a policy tells apart what they may do on every
// path that it tells apart.
type Matrix struct {
	Policy   string   `json:"policy"` // its file
	Revision string   `json:"revision"`
	Subjects []string `json:"subjects"` // the columns, spelt as in Shift.Subjects
	// Rows are in the order of their paths. What has no row is denied to everybody,
	// since no rule is for it.
	Rows []MatrixRow `json:"rows"`
	// Requests were counted, Elsewhere those of them that have no row; both are 0
	// if none was.
	Requests  int `json:"requests,omitzero"`
	Elsewhere int `json:"elsewhere,omitzero"`

	cast    cast
	terrain *terrain
	rows    map[string][]int // by the patterns that cover a path and the method: positions of its rows
}

// MatrixRow is the paths that the same patterns cover, with the methods for
// which everybody's answer is the same.
type MatrixRow struct {
	Path     string   `json:"path"`          // what the patterns have in common
	Example  string   `json:"example"`       // one of the paths
	Rest     bool     `json:"rest,omitzero"` // rows for narrower patterns say something about a part of the paths
	Methods  []string `json:"methods"`       // names, or "*" for every method but the Except
	Except   []string `json:"methods_except,omitempty"`
	ServedBy string   `json:"served_by,omitempty"`
	Unserved bool     `json:"unserved,omitzero"` // nothing answers; false if it is not known what is served
	Cells    []Cell   `json:"cells"`             // in the order of Matrix.Subjects
}

// Cell is the answer for one subject.
type Cell struct {
	Effect    Effect    `json:"effect"`
	Rule      *RuleRef  `json:"rule,omitempty"`     // that decides; absent if none applies
	Inherited bool      `json:"inherited,omitzero"` // the rule is for something that the subject is besides
	Via       []RuleRef `json:"via,omitempty"`      // the g lines that lead there, if any do
	Hits      int       `json:"hits,omitzero"`      // requests counted; those of callers of two roles count for both
}

// maxCells bounds a matrix. Nobody looks at more.
const maxCells = 1_000_000

// Matrix looks at the paths that the policy and what is served tell apart.
func (p *Policy) Matrix(around Surroundings) (*Matrix, error) {
	if p == nil || p.index == nil {
		return nil, errors.New("make a matrix: no policy")
	}
	m := &Matrix{Policy: p.file, Revision: p.revision, cast: newCast(p), terrain: newTerrain(), rows: make(map[string][]int)}
	m.Subjects = m.cast.names
	for i := range p.rules {
		m.terrain.add(p.pattern(&p.rules[i]), true)
	}
	for _, s := range around.Served {
		m.terrain.add(s.Pattern(), true)
	}
	regions, err := m.terrain.regions(func(int) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("make a matrix: %w", err)
	}
	if len(regions)*len(m.Subjects) > maxCells {
		return nil, fmt.Errorf("make a matrix: %d paths for %d subjects are too many to be looked at", len(regions), len(m.Subjects))
	}
	origins := p.origins(m.cast)
	for _, r := range regions {
		first := len(m.Rows)
		m.addRows(p, around, r, origins)
		rest := isBroad(r.label) && len(within(regions, r.label)) > 1
		for i := first; i < len(m.Rows); i++ {
			m.Rows[i].Rest = rest
		}
	}
	return m, nil
}

// origin is how one of the cast comes to be a subject.
type origin map[string]Membership // by subject

func (p *Policy) origins(c cast) []origin {
	all := make([]origin, len(c.callers))
	for i, caller := range c.callers {
		all[i] = make(origin)
		for _, m := range p.memberships(caller) {
			all[i][m.Subject] = m
		}
	}
	return all
}

// addRows adds the rows of a region: one for each set of methods that have the
// same answers, but none for those that no rule is for, unless there are no others.
func (m *Matrix) addRows(p *Policy, around Surroundings, r region, origins []origin) {
	type group struct {
		cells   []Cell
		methods []int
		matched bool
	}
	var groups []*group
	byAnswers := make(map[string]*group)
	for i, method := range m.cast.methods {
		cells, answers := make([]Cell, len(m.Subjects)), make([]int, len(m.Subjects))
		matched := false
		for who, caller := range m.cast.callers {
			d := p.Decide(caller, method, r.path)
			cells[who] = p.cell(d, m.Subjects[who], origins[who])
			answers[who] = d.Line
			matched = matched || d.Rule != ""
		}
		key := fmt.Sprint(answers)
		g := byAnswers[key]
		if g == nil {
			g = &group{cells: cells, matched: matched}
			byAnswers[key] = g
			groups = append(groups, g)
		}
		g.methods = append(g.methods, i)
	}
	// The methods that no rule names come last.
	last := len(m.cast.methods) - 1
	slices.SortStableFunc(groups, func(a, b *group) int {
		return cmp.Compare(slices.Index(a.methods, last), slices.Index(b.methods, last))
	})
	for _, g := range groups {
		if !g.matched && len(groups) > 1 {
			continue
		}
		row := MatrixRow{Path: r.label, Example: r.path, Cells: g.cells}
		row.Methods, row.Except = m.cast.spell(g.methods)
		if around.Served != nil {
			row.ServedBy = around.servedBy(m.cast.methods, g.methods, r)
			row.Unserved = row.ServedBy == ""
		}
		for _, i := range g.methods {
			key := m.key(r.patterns, m.cast.methods[i])
			m.rows[key] = append(m.rows[key], len(m.Rows))
		}
		m.Rows = append(m.Rows, row)
	}
}

// servedBy names what answers some of the methods.
func (around Surroundings) servedBy(methods []string, some []int, r region) string {
	for _, i := range some {
		if by, ok := around.ServedBy(methods[i], r.path); ok {
			if by.Path == r.label {
				return by.What
			}
			return by.What + " " + by.Path
		}
	}
	return ""
}

func (p *Policy) cell(d Decision, who string, from origin) Cell {
	c := Cell{Effect: effectOf(d.Allowed)}
	if d.Rule == "" {
		return c
	}
	c.Rule = &RuleRef{d.Rule, d.File, d.Line}
	subject := strings.Split(d.Rule, ", ")[1]
	c.Inherited = subject != who
	c.Via = from[subject].Via
	return c
}

func (m *Matrix) key(patterns []int, method string) string {
	if !slices.Contains(m.cast.methods, method) {
		method = m.cast.methods[len(m.cast.methods)-1]
	}
	return fmt.Sprint(patterns, method)
}

// Count counts a request of a decision log where it belongs.
func (m *Matrix) Count(r Record) {
	m.Requests++
	rows := m.rows[m.key(m.terrain.covering(r.Path), r.Method)]
	if len(rows) == 0 {
		m.Elsewhere++
		return
	}
	columns := m.columns(r.Subject)
	for _, row := range rows {
		for _, column := range columns {
			m.Rows[row].Cells[column].Hits++
		}
	}
}

// columns finds who of the cast somebody is: those of the roles that the policy
// knows, or else just somebody with or without a token.
func (m *Matrix) columns(s RecordSubject) []int {
	if !s.Authenticated {
		return []int{0}
	}
	var columns []int
	for _, role := range s.Roles {
		if i, ok := slices.BinarySearch(m.Subjects[2:], rolePrefix+role); ok && !slices.Contains(columns, i+2) {
			columns = append(columns, i+2)
		}
	}
	if columns == nil {
		return []int{1}
	}
	return columns
}

// covering lists the patterns that cover a path, ascending.
func (t *terrain) covering(path string) []int {
	if !isCanonical(path) {
		return nil
	}
	var ids []int
	at := []*crossing{t.root}
	for rest, more := path[1:], true; ; {
		for _, c := range at {
			if c.rest >= 0 {
				ids = append(ids, c.rest)
			}
			if !more && c.exact >= 0 {
				ids = append(ids, c.exact)
			}
		}
		if !more || len(at) == 0 {
			break
		}
		var segment string
		segment, rest, more = cutSegment(rest)
		var next []*crossing
		for _, c := range at {
			if literal := c.literals[segment]; literal != nil {
				next = append(next, literal)
			}
			if c.name != nil && segment != "" {
				next = append(next, c.name)
			}
		}
		at = next
	}
	slices.Sort(ids)
	return ids
}
