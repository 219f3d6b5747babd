package policy

import (
	"fmt"
	"strings"
)

// String says in words what changes.
func (d Difference) String() string {
	if d.Same() {
		return fmt.Sprintf("%s and %s mean the same\n", d.Old, d.New)
	}
	var b strings.Builder
	for _, s := range d.Shifts {
		fmt.Fprintf(&b, "%s %s %s %s%s\n", who(s.Subjects), verb(s.Kind), s.methods(), s.Paths, s.Kind.proviso())
		fmt.Fprintf(&b, "    %s %s: before %s\n", s.Example.Method, s.Example.Path, orNone(s.Example.Before))
		fmt.Fprintf(&b, "    %s now    %s\n", strings.Repeat(" ", len(s.Example.Method)+1+len(s.Example.Path)+1), orNone(s.Example.After))
		b.WriteString(s.Affected.affected("    ", "\n"))
	}
	for _, s := range d.Permissions {
		fmt.Fprintf(&b, "%s %s the permission %s, of which upstreams are told\n", who(s.Subjects), verb(s.Kind), strings.Join(s.Permissions, ", "))
		b.WriteString(s.Affected.affected("    ", "\n"))
	}
	b.WriteString(d.Affected.affected("in all, ", "\n"))
	return b.String()
}

// Markdown is the difference as a table for a pull request.
func (d Difference) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### Policy: %s → %s\n\n", code(d.Old), code(d.New))
	if d.Same() {
		b.WriteString("Both mean the same.\n")
		return b.String()
	}
	users := func(p *People) string { return "" }
	head, line := "", ""
	if d.Affected != nil {
		head, line = " users |", "---|"
		users = func(p *People) string { return fmt.Sprintf(" %d |", p.Count) }
	}
	fmt.Fprintf(&b, "| who | | methods | paths | before | now |%s\n|---|---|---|---|---|---|%s\n", head, line)
	for _, s := range d.Shifts {
		fmt.Fprintf(&b, "| %s | **%s**%s | %s | %s | %s | %s |%s\n", code(who(s.Subjects)), verb(s.Kind), s.Kind.proviso(),
			code(s.methods()), code(s.Paths.String()), ruleCode(s.Example.Before), ruleCode(s.Example.After), users(s.Affected))
	}
	for _, s := range d.Permissions {
		fmt.Fprintf(&b, "| %s | **%s** | | permission %s | | |%s\n", code(who(s.Subjects)), verb(s.Kind), code(strings.Join(s.Permissions, ", ")), users(s.Affected))
	}
	b.WriteString(d.Affected.affected("\n**", "**\n"))
	return b.String()
}

// affected says how many users a change is about, if they were counted.
func (p *People) affected(before, after string) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%s%s affected%s", before, p, after)
}

func (s Shift) methods() string {
	all := strings.Join(s.Methods, "|")
	if len(s.Except) > 0 {
		all += " except " + strings.Join(s.Except, "|")
	}
	return all
}

func who(subjects []string) string {
	const shown = 6
	if len(subjects) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(subjects[:shown-1], ", "), len(subjects)-shown+1)
	}
	return strings.Join(subjects, ", ")
}

func verb(k ShiftKind) string {
	switch k {
	case Unblocked:
		return "no longer denies"
	case Blocked:
		return "now denies"
	}
	return string(k)
}

// proviso is what has to be said beside the verb.
func (k ShiftKind) proviso() string {
	if k == Unblocked || k == Blocked {
		return " (to whom another role allows it)"
	}
	return ""
}

func orNone(r *RuleRef) string {
	if r == nil {
		return "no rule"
	}
	return r.String()
}

func ruleCode(r *RuleRef) string {
	if r == nil {
		return "no rule"
	}
	return code(r.String())
}

// code makes a Markdown code span that can stand in a table, whatever the text.
func code(text string) string {
	fence := "`"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	if len(fence) > 1 {
		text = " " + text + " "
	}
	return fence + strings.ReplaceAll(text, "|", `\|`) + fence
}
