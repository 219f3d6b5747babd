//go:build linux

package main

import (
	"errors"
	"fmt"
	"html"
	"os"
	"strings"
)

// What of a result is for readers: a table and a plot.

// published are the cases of the plot and of the table's first part.
func published() []string { return []string{"get", "json", "download", "upload"} }

// markdown is the result for the README.
func (r *Result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s.\nMedians of %d rounds, and in brackets the least and the greatest.", r.Date, r.Machine, r.Rounds)
	if r.Note != "" {
		fmt.Fprintf(&b, " **%s**", r.Note)
	}
	b.WriteString("\n\n| CPU per request | nginx, no authentication | HAProxy, HS256 verified | Portcullis | ÷ nginx | ÷ HAProxy |\n|---|---:|---:|---:|---:|---:|\n")
	for _, name := range published() {
		us := r.row(rowPortcullis, name)
		if us == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s |", r.about(name))
		for _, server := range []string{rowNginx, rowHAProxy, rowPortcullis} {
			b.WriteString(r.cell(r.row(server, name), "%.1f µs"))
		}
		for _, base := range []string{rowNginx, rowHAProxy} {
			if peer := r.row(base, name); peer != nil {
				if s, ok := ratio(us.Figures[cpu], peer.Figures[cpu]); ok {
					fmt.Fprintf(&b, " %s |", s)
					continue
				}
			}
			b.WriteString(" – |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n| what | wanted | found | |\n|---|---:|---:|---|\n")
	for _, g := range goals() {
		v, ok := g.value(r)
		if !ok {
			continue
		}
		if g.limit == 0 {
			fmt.Fprintf(&b, "| %s | – | %s | |\n", g.about(), v)
			continue
		}
		verdict := "yes"
		if !g.reached(v.median) {
			verdict = "**no**"
		}
		than := "≤"
		if g.least {
			than = "≥"
		}
		fmt.Fprintf(&b, "| %s | %s %g | %s | %s |\n", g.about(), than, g.limit, v, verdict)
	}
	return b.String()
}

func (r *Result) cell(row *Row, format string) string {
	if row != nil {
		if s, ok := spreadOf(row.Figures[cpu]); ok {
			return fmt.Sprintf(" "+format+" |", s.median)
		}
	}
	return " no result |"
}

func (r *Result) about(name string) string {
	for _, c := range cases() {
		if c.name == name {
			return c.about
		}
	}
	return name
}

// about says in words what a goal is about.
func (g goal) about() string {
	what := map[figure]string{
		cpu: "CPU per request", throughput: "requests per second", p99: "p99 at half load", logins: "logins per second",
		perConn: "kB for an idle connection", startup: "ms from start to ready", idleMemory: "MB before the first request",
	}[g.figure]
	if g.against == "" {
		return what
	}
	row := g.row
	if row == rowPortcullis {
		row = g.of
	}
	return fmt.Sprintf("%s, %s ÷ %s", what, row, g.against)
}

const (
	readmeBegin = "<!-- bench: begin -->\n"
	readmeEnd   = "<!-- bench: end -->"
)

// intoReadme puts the table between the marks of a file.
func (r *Result) intoReadme(file string) error {
	text, err := os.ReadFile(file) //nolint:gosec // whoever runs this names it
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(text), readmeBegin)
	_, after, ok2 := strings.Cut(rest, readmeEnd)
	if !ok1 || !ok2 {
		return errors.New(file + " has no marks to put a table between")
	}
	return os.WriteFile(file, []byte(before+readmeBegin+r.markdown()+readmeEnd+after), 0o644) //nolint:gosec // to be read by everybody
}

// svg draws the CPU per request as bars, of which nginx's are one long.
func (r *Result) svg() []byte {
	const width, left, unit, bar, gap = 760, 210, 180.0, 18, 22
	servers := []struct{ row, colour string }{{rowNginx, "#8c959f"}, {rowHAProxy, "#6639ba"}, {rowPortcullis, "#1a7f37"}}
	var body strings.Builder
	y := 56
	for _, name := range published() {
		base := r.row(rowNginx, name)
		if base == nil {
			continue
		}
		fmt.Fprintf(&body, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-12, y+bar+bar/2+5, html.EscapeString(r.about(name)))
		for _, s := range servers {
			row := r.row(s.row, name)
			if row == nil {
				continue
			}
			times, ok1 := ratio(row.Figures[cpu], base.Figures[cpu])
			micros, ok2 := spreadOf(row.Figures[cpu])
			if ok1 && ok2 {
				end := min(times.median*unit, width-left-120)
				fmt.Fprintf(&body, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y, end, bar-3, s.colour)
				fmt.Fprintf(&body, `<text class="small" x="%.1f" y="%d">%.2f (%.1f µs)</text>`+"\n", left+end+6, y+bar-6, times.median, micros.median)
			}
			y += bar
		}
		y += gap
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13">`+"\n", width, y)
	b.WriteString("<style>text{fill:#1f2328}.small{font-size:11px}rect.back{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#e6edf3}rect.back{fill:#0d1117}}</style>\n")
	fmt.Fprintf(&b, `<rect class="back" width="%d" height="%d"/>`+"\n", width, y)
	b.WriteString(`<text x="12" y="24" font-weight="600">CPU per request, nginx without authentication = 1 (less is better)</text>` + "\n")
	x := 12
	for _, s := range servers {
		fmt.Fprintf(&b, `<rect x="%d" y="34" width="10" height="10" fill="%s"/><text class="small" x="%d" y="43">%s</text>`+"\n", x, s.colour, x+15, s.row)
		x += 130
	}
	b.WriteString(body.String())
	b.WriteString("</svg>\n")
	return []byte(b.String())
}
