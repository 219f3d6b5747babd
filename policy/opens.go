package policy

import (
	"fmt"
	"slices"
	"strings"
)

// An opening to anonymous is the change of policy that is hardest to notice and
// to take back: nobody complains. So it has to be written twice, as a rule and as
// a comment that names what it opens:
//
//	# acknowledge: anonymous GET /reports/*

const acknowledgement = "acknowledge:"

// acknowledged is a comment of that form.
type acknowledged struct {
	text string // what is behind the colon, with single spaces
	line int
}

// readComment keeps what a comment acknowledges.
func (p *parser) readComment(trimmed string) {
	if text, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(trimmed, "#")), acknowledgement); ok {
		p.acknowledged = append(p.acknowledged, acknowledged{strings.Join(strings.Fields(text), " "), p.line})
	}
}

// CheckOpened returns a problem for each set of requests that p allows to callers
// without a token and that the running policy did not, unless p's file
// acknowledges exactly these: methods and paths in the words of the problem's
// hint, followed by " # " and a note if you like. An acknowledgement that the
// running policy's file holds already was for an opening of its own time, and
// acknowledges nothing any more.
func (p *Policy) CheckOpened(running *Policy) Problems {
	if running == nil || running.index == nil {
		return nil
	}
	opened, err := openedBetween(running, p)
	if err != nil {
		return p.demand(opening{scope: "anonymous * /*"}, running, "it cannot be told what this opens to everybody: "+err.Error())
	}
	var problems Problems
	for _, o := range opened {
		problems = append(problems, p.demand(o, running, "opens to everybody: "+o.scope)...)
	}
	return problems
}

// opening is a set of requests that are open to anonymous now.
type opening struct {
	scope string // as an acknowledgement spells it
	rule  *RuleRef
}

func openedBetween(before, after *Policy) ([]opening, error) {
	d := &differ{before: before, after: after, cast: newCast(before, after)}
	d.names, d.callers = d.names[:1], d.callers[:1] // anonymous and nobody else
	if err := d.compareAll(); err != nil {
		return nil, err
	}
	var all []opening
	for _, s := range d.shifts() {
		if s.Kind == Gains {
			all = append(all, opening{fmt.Sprintf("anonymous %s %s", s.methods(), s.Paths), s.Example.After})
		}
	}
	return all, nil
}

// acknowledges reports whether p's file says so and its predecessor's did not. If
// both do, spent is p's line.
func (p *Policy) acknowledges(scope string, running *Policy) (yes bool, spent int) {
	for _, a := range p.acknowledged {
		if a.text != scope && !strings.HasPrefix(a.text, scope+" # ") {
			continue
		}
		if !slices.ContainsFunc(running.acknowledged, func(old acknowledged) bool { return old.text == a.text }) {
			return true, 0
		}
		spent = a.line
	}
	return false, spent
}

// demand returns the problem of an opening that is not acknowledged.
func (p *Policy) demand(o opening, running *Policy, message string) Problems {
	yes, spent := p.acknowledges(o.scope, running)
	if yes {
		return nil
	}
	problem := Problem{
		File: p.file, Severity: Error, Code: "opens-to-anonymous", Message: message,
		Hint: fmt.Sprintf("if that is meant, add the line: # %s %s", acknowledgement, o.scope),
	}
	if o.rule != nil {
		problem.Line = o.rule.Line
	}
	if spent > 0 {
		problem.Hint = fmt.Sprintf("the acknowledgement in line %d is not new, so it was for something else; if this is meant, give it a note of its own: # %s %s # NOTE",
			spent, acknowledgement, o.scope)
	}
	return Problems{problem}
}
