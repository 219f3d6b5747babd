package main

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/term"
)

// coloured reports whether what is written to w is for somebody who sees colours, and
// wants them (https://no-color.org).
func (s *shared) coloured(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && !slices.ContainsFunc(s.env, func(v string) bool {
		return strings.HasPrefix(v, "NO_COLOR=") && v != "NO_COLOR=" || v == "TERM=dumb"
	})
}

// colour marks the words that say how it went: green for what is well or gained, red
// for what is not, yellow for what to look at. They say the same without.
func colour(text string) string {
	for _, c := range []struct{ code, words string }{
		{"32", `(?m)^ok\b| is allowed$|\b[1-9]\d* passed\b| gains `},
		{"31", `(?m)^WRONG\b| is denied$|\b[1-9]\d* failed\b| loses |: error: `},
		{"33", `(?m)^warning\b|: warning: `},
	} {
		text = regexp.MustCompile(c.words).ReplaceAllString(text, "\x1b["+c.code+"m$0\x1b[0m")
	}
	return text
}
