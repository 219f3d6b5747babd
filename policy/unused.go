package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Usage is what is known of how often rules have decided.
type Usage struct {
	Hits  func(rule string) int64 // of a rule in canonical spelling
	Since string                  // the first day of which that is known
}

// Unused reports the rules that have decided nothing, and suggests the policy
// without those that allow something, as a unified diff of the file; "" if there is
// nothing to remove. A rule that denies is not suggested for removal: that nobody
// has tried is no reason to open.
func (u Usage) Unused(name string, source []byte) (Problems, string, error) {
	p, err := Parse(name, source)
	if err != nil {
		return nil, "", err
	}
	var problems Problems
	var remove []int
	for _, i := range p.byLine() {
		r := &p.rules[i]
		text := p.ruleText(r)
		if u.Hits(text) > 0 {
			continue
		}
		hint := "if it is not needed, remove it"
		if r.deny {
			hint = "nobody has tried; it may be right nevertheless"
		} else {
			remove = append(remove, int(r.line))
		}
		problems = append(problems, Problem{
			File: name, Line: int(r.line), Severity: Warning, Code: "no-hits",
			Message: fmt.Sprintf("the rule has decided nothing since %s", u.Since), Hint: hint,
		})
	}
	if len(remove) == p.RuleCount() {
		remove = nil // an empty file is no policy
	}
	return problems, removal(name, source, remove), nil
}

// byLine lists the positions of the rules in the order of their lines.
func (p *Policy) byLine() []int {
	if p == nil || p.document == nil {
		return nil
	}
	order := make([]int, len(p.rules))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(p.rules[a].line) - int(p.rules[b].line) })
	return order
}

// removal returns the unified diff that removes lines, given in ascending order
// from 1, with three lines around each change.
func removal(name string, source []byte, remove []int) string {
	if len(remove) == 0 {
		return ""
	}
	const around = 3
	lines := bytes.SplitAfter(source, []byte{'\n'})
	if len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- a/%s\n+++ b/%s\n", name, name)
	for removed, i := 0, 0; i < len(remove); {
		first := max(remove[i]-around, 1)
		last := i
		for last+1 < len(remove) && remove[last+1]-remove[last] <= 2*around {
			last++
		}
		end := min(remove[last]+around, len(lines))
		count, gone := end-first+1, last-i+1
		at := first - removed
		if count == gone {
			at-- // of nothing, the line before is named
		}
		fmt.Fprintf(&b, "@@ -%d,%d +%d,%d @@\n", first, count, at, count-gone)
		for n := first; n <= end; n++ {
			mark := " "
			if slices.Contains(remove[i:last+1], n) {
				mark = "-"
			}
			b.WriteString(mark)
			b.Write(lines[n-1])
			if !bytes.HasSuffix(lines[n-1], []byte{'\n'}) {
				b.WriteString("\n\\ No newline at end of file\n")
			}
		}
		removed += gone
		i = last + 1
	}
	return b.String()
}
