package policy

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

const matrixLegend = `
+N is allowed by line N of %s, (+N) as well, by what is inherited; -N is denied by line N; . has no rule, and is denied;
a path is what it covers without what rows for narrower paths do
`

// mark is a cell in a few characters.
func (c Cell) mark() string {
	text := "."
	if c.Rule != nil {
		text = map[Effect]string{Allow: "+", Deny: "-"}[c.Effect] + strconv.Itoa(c.Rule.Line)
	}
	if c.Inherited {
		text = "(" + text + ")"
	}
	if c.Hits > 0 {
		text += " ×" + strconv.Itoa(c.Hits)
	}
	return text
}

func (r MatrixRow) methods() string { return Shift{Methods: r.Methods, Except: r.Except}.methods() }

// Text writes the matrix as an aligned table.
func (m *Matrix) Text(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "PATH\tMETHODS\t%s\n", strings.Join(m.Subjects, "\t"))
	for i, r := range m.Rows {
		path := r.Path
		if i > 0 && m.Rows[i-1].Path == path {
			path = ""
		}
		fmt.Fprintf(w, "%s\t%s", path, r.methods())
		for _, c := range r.Cells {
			fmt.Fprintf(w, "\t%s", c.mark())
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to, matrixLegend+"%s", m.Policy, m.counted())
	return err
}

// counted says how many requests were, if any.
func (m *Matrix) counted() string {
	if m.Requests == 0 {
		return ""
	}
	return fmt.Sprintf("×N is the number of logged requests, of %d in all; %d were for what has no row\n", m.Requests, m.Elsewhere)
}

// Markdown writes the matrix as a table.
func (m *Matrix) Markdown(to io.Writer) error {
	var b strings.Builder
	b.WriteString("| path | methods |")
	for _, s := range m.Subjects {
		fmt.Fprintf(&b, " %s |", code(s))
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(m.Subjects)) + "\n")
	for _, r := range m.Rows {
		fmt.Fprintf(&b, "| %s | %s |", code(r.Path), code(r.methods()))
		for _, c := range r.Cells {
			fmt.Fprintf(&b, " %s |", c.mark())
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, matrixLegend+"%s", code(m.Policy), m.counted())
	_, err := io.WriteString(to, b.String())
	return err
}

// CSV writes a line for each cell, for spreadsheets to pivot.
func (m *Matrix) CSV(to io.Writer) error {
	w := csv.NewWriter(to)
	_ = w.Write([]string{"path", "methods", "subject", "effect", "inherited", "rule", "file", "line", "served_by", "hits"}) // see w.Error
	for _, r := range m.Rows {
		for i, c := range r.Cells {
			var rule RuleRef
			line := ""
			if c.Rule != nil {
				rule, line = *c.Rule, strconv.Itoa(c.Rule.Line)
			}
			_ = w.Write([]string{r.Path, r.methods(), m.Subjects[i], string(c.Effect), strconv.FormatBool(c.Inherited),
				rule.Rule, rule.File, line, r.ServedBy, strconv.Itoa(c.Hits)})
		}
	}
	w.Flush()
	return w.Error()
}
