//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// print writes the whole result for people.
func (r *Result) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s; %d rounds of %s\n", r.Date, r.Machine, r.Rounds, r.Duration)
	if r.Note != "" {
		fmt.Fprintln(w, r.Note)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	last := ""
	for _, row := range r.Rows {
		if row.Case != last {
			last = row.Case
			fmt.Fprintf(t, "\n%s\n", last)
		}
		fmt.Fprintf(t, "  %s\t%s\n", row.Name, strings.Join(row.cells(r), "\t"))
	}
	_ = t.Flush() // printing
	fmt.Fprintln(w)
	r.printGoals(w)
}

// column is how a figure is shown.
type column struct {
	figure figure
	format string
	ratios bool // to nginx and HAProxy, where the case has them
}

func columns() []column {
	return []column{
		{cpu, "%.1f µs CPU", true}, {throughput, "%.0f/s", false}, {rate, "at %.0f/s:", false}, {halfCPU, "%.1f µs CPU", true},
		{p50, "p50 %.2f ms", false}, {p99, "p99 %.2f ms", true}, {memory, "%.0f MB", false}, {logins, "%.1f logins/s", false},
		{perConn, "%.1f kB a connection", false}, {startup, "ready after %.0f ms", false}, {idleMemory, "%.0f MB idle", false},
	}
}

func (row *Row) cells(r *Result) []string {
	if row.Failure != "" {
		return []string{"no result: " + row.Failure}
	}
	var cells []string
	for _, c := range columns() {
		s, ok := spreadOf(row.Figures[c.figure])
		if !ok {
			continue
		}
		text := fmt.Sprintf(c.format, s.median)
		if c.ratios {
			for _, base := range []string{rowNginx, rowHAProxy} {
				if b := r.row(base, row.Case); b != nil && b != row {
					if s, ok := ratio(row.Figures[c.figure], b.Figures[c.figure]); ok {
						text += fmt.Sprintf(" (%s × %s)", s, strings.SplitN(base, ",", 2)[0])
					}
				}
			}
		}
		cells = append(cells, text)
	}
	return cells
}

// String writes the median and, in brackets, the least and greatest.
func (s spread) String() string { return fmt.Sprintf("%.2f [%.2f–%.2f]", s.median, s.low, s.high) }

// value is a goal's figure, or false if it was not measured.
func (g goal) value(r *Result) (spread, bool) {
	row := r.row(g.row, g.of)
	if row == nil {
		return spread{}, false
	}
	if g.against == "" {
		return spreadOf(row.Figures[g.figure])
	}
	base := r.row(g.against, g.of)
	if base == nil {
		return spread{}, false
	}
	return ratio(row.Figures[g.figure], base.Figures[g.figure])
}

// reached is for a goal that has a limit.
func (g goal) reached(v float64) bool {
	if g.least {
		return v >= g.limit
	}
	return v <= g.limit
}

func (g goal) String() string {
	than := "≤"
	if g.least {
		than = "≥"
	}
	text := fmt.Sprintf("%s: %s of %s", g.of, g.figure, g.row)
	if g.limit > 0 {
		text += fmt.Sprintf(" %s %g", than, g.limit)
	}
	if g.against != "" {
		text += " × " + g.against
	}
	return text
}

func (r *Result) printGoals(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, g := range goals() {
		v, ok := g.value(r)
		if !ok {
			continue
		}
		verdict := "reached"
		switch {
		case g.limit == 0:
			verdict = "beside"
		case !g.reached(v.median):
			verdict = "MISSED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", verdict, v, g)
	}
	_ = t.Flush() // printing
}

// compare writes what has changed since an earlier result.
func (r *Result) compare(w io.Writer, earlier *Result) {
	fmt.Fprintf(w, "\nsince %s:\n", earlier.Date)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range r.Rows {
		before := earlier.row(row.Name, row.Case)
		if before == nil {
			continue
		}
		for _, c := range columns() {
			was, ok1 := spreadOf(before.Figures[c.figure])
			is, ok2 := spreadOf(row.Figures[c.figure])
			if ok1 && ok2 && was.median > 0 {
				fmt.Fprintf(t, "  %s\t%s\t%s\t%.2f → %.2f\t%+.0f %%\n", row.Case, row.Name, c.figure, was.median, is.median, 100*(is.median/was.median-1))
			}
		}
	}
	_ = t.Flush() // printing
}
