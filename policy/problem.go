package policy

import (
	"fmt"
	"strings"
)

// Severity says whether a problem keeps a policy from being loaded.
type Severity string

// An Error makes a policy unfit to load. A Warning is something its author
// hardly meant, in a file whose meaning is nevertheless clear.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Problem is one finding in a policy file or a test suite, addressed to the
// person who edits it.
type Problem struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`   // from 1; 0: the file as a whole
	Column   int      `json:"column"` // from 1, in characters; 0: the line as a whole
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // stable, kebab-case; see README.md
	Message  string   `json:"message"`
	Hint     string   `json:"hint,omitempty"` // what to do about it
}

// String formats the problem in the way compilers do, so that editors can jump to it.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Column > 0 {
		fmt.Fprintf(&b, ":%d", p.Column)
	}
	fmt.Fprintf(&b, ": %s: %s", p.Severity, p.Message)
	if p.Hint != "" {
		fmt.Fprintf(&b, "; %s", p.Hint)
	}
	fmt.Fprintf(&b, " [%s]", p.Code)
	return b.String()
}

// Error is String, for a problem that is returned alone.
func (p Problem) Error() string { return p.String() }

// Problems is the error that [Load], [Parse] and the loaders of test suites
// return for a file that can be read but not used. It holds everything that is
// wrong with the file, in the order of its lines.
type Problems []Problem

// shownProblems bounds the length of an error text; a file of the wrong kind
// has a problem in each line.
const shownProblems = 50

// Error lists the problems, one a line.
func (ps Problems) Error() string {
	var b strings.Builder
	for i, p := range ps {
		if i == shownProblems {
			fmt.Fprintf(&b, "\nand %d more", len(ps)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// didYouMean returns a hint that names the candidate nearest to word, or ""
// when none is near enough to have been meant.
func didYouMean(word string, candidates []string) string {
	if best := nearest(word, candidates, 2); best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return ""
}

// nearest returns the candidate with the smallest edit distance to word that
// is at most limit and less than half of word, or "".
func nearest(word string, candidates []string, limit int) string {
	best, bestDistance := "", min(limit, (len(word)-1)/2)+1
	for _, c := range candidates {
		// The difference in length is a lower bound, and much cheaper.
		if c == word || len(c)-len(word) >= bestDistance || len(word)-len(c) >= bestDistance {
			continue
		}
		if d := editDistance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions, substitutions and swaps of
// neighbours that make a of b (optimal string alignment), ignoring case.
func editDistance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	twoAgo, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		twoAgo, last, row = last, row, twoAgo
		row[0] = i
		for j := 1; j <= len(b); j++ {
			substitution := last[j-1]
			if a[i-1] != b[j-1] {
				substitution++
			}
			row[j] = min(last[j]+1, row[j-1]+1, substitution)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], twoAgo[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
