package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// print writes a result: v for machines, or what text writes for people.
func (s *shared) print(v any, text func(io.Writer)) error {
	if s.output != "json" {
		var b strings.Builder
		text(&b)
		shown := visible(b.String())
		if s.coloured(s.stdout) {
			shown = colour(shown)
		}
		_, err := io.WriteString(s.stdout, shown)
		return err
	}
	if err := json.MarshalWrite(s.stdout, v, jsontext.WithIndent("  ")); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	_, err := fmt.Fprintln(s.stdout)
	return err
}

// visible writes out what a terminal would obey instead of showing it: a result
// quotes files, which need not be those of whoever looks at it.
func visible(text string) string {
	if !strings.ContainsFunc(text, invisible) {
		return text
	}
	var b strings.Builder
	for _, c := range text {
		if invisible(c) {
			fmt.Fprintf(&b, "\\u%04x", c)
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}

func invisible(c rune) bool {
	return c != '\n' && c != '\t' && !unicode.IsGraphic(c)
}
