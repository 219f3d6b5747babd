package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`     // from 1; 0 where it concerns the whole file
	Column   int    `json:"column,omitempty"`   // from 1, in characters; 0 where it concerns the whole line
	Variable string `json:"variable,omitempty"` // in place of File: the environment variable
	Key      string `json:"key,omitempty"`      // dotted path; "" where no key is meant
	Message  string `json:"message"`
}

// String renders the problem in one line, beginning with its place.
func (p Problem) String() string {
	place := p.File
	if p.Variable != "" {
		place = p.Variable
	} else if p.Line > 0 {
		place += fmt.Sprintf(":%d", p.Line)
		if p.Column > 0 {
			place += fmt.Sprintf(":%d", p.Column)
		}
	}
	if p.Key != "" {
		place += ": " + p.Key
	}
	return place + ": " + p.Message
}

// Error is everything that is wrong with a configuration: what is in the file
// in its order, then what is in the environment by name.
type Error struct {
	Problems []Problem
}

// Error renders one problem per line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Variable, b.Variable), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// didYouMean returns ", did you mean X?" for the candidate that word is most
// likely a misspelling of, and "" when none is near: within two edits, one in a
// short word.
func didYouMean(word string, candidates []string) string {
	best, nearest := "", min(2, max(1, len(word)/3))+1
	for _, c := range candidates {
		if max(len(c)-len(word), len(word)-len(c)) >= nearest {
			continue
		}
		if d := editDistance(word, c); d < nearest {
			best, nearest = c, d
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + best + "?"
}

// editDistance counts the insertions, deletions, substitutions and swaps of
// neighbours that make b of a (optimal string alignment), in bytes.
func editDistance(a, b string) int {
	var before []int // the row before the row above
	above, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(above[j]+cost, above[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above, row = above, row, make([]int, len(b)+1)
	}
	return above[len(b)]
}
