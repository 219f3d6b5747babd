package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// NearRule is a rule that does not apply to a request, and why not.
type NearRule struct {
	RuleRef
	Failed []Failure `json:"failed"`
}

// Failure is a part of a rule that does not fit a request.
type Failure struct {
	Part    Part   `json:"part"`
	Segment int    `json:"segment,omitzero"` // of the path, from 1; absent for other parts
	Detail  string `json:"detail"`
}

// Part is a part of a rule.
type Part string

// The parts of a rule that can fail to fit.
const (
	PartSubject Part = "subject"
	PartMethod  Part = "method"
	PartPath    Part = "path"
)

// shownNear bounds the rules that an explanation calls near.
const shownNear = 10

// nearest returns the nearest rules: those with the fewest parts that fail, and
// of these the ones whose path fits.
func (x *explainer) nearest() []NearRule {
	distance := func(n NearRule) int {
		d := 2 * len(n.Failed)
		if n.Failed[0].Part == PartPath {
			d++
		}
		return d
	}
	slices.SortStableFunc(x.near, func(a, b NearRule) int {
		return cmp.Or(cmp.Compare(distance(a), distance(b)), cmp.Compare(a.Line, b.Line))
	})
	return x.near[:min(len(x.near), shownNear)]
}

func (x *explainer) methodFailure(r *rule) Failure {
	methods := x.methods.String(r.methods)
	detail := fmt.Sprintf("the method is %s, not %s", x.method, strings.ReplaceAll(methods, "|", " or "))
	if upper := strings.ToUpper(x.method); upper != x.method && r.methods&x.methods.lookup(upper) != 0 {
		detail += "; upper and lower case are apart"
	}
	return Failure{Part: PartMethod, Detail: detail}
}

func (x *explainer) subjectFailure(r *rule) Failure {
	if r.subject == authenticated {
		return Failure{Part: PartSubject, Detail: "the caller has no valid token"}
	}
	detail := "the caller is not " + x.subjects.names[r.subject]
	const shown = 3
	var who []string
	for id := range subjectID(len(x.subjects.names)) {
		if id == r.subject || x.subjects.isPermission(id) || !x.subjects.is(id, r.subject) {
			continue
		}
		if len(who) == shown {
			who = append(who, "…")
			break
		}
		who = append(who, x.subjects.names[id])
	}
	switch len(who) {
	case 0:
	case 1:
		detail += ", as is " + who[0]
	default:
		detail += ", as are " + strings.Join(who, ", ")
	}
	return Failure{Part: PartSubject, Detail: detail}
}

// pathFailure says where a pattern and a path part. It is near if they do in one
// segment only, and agree in another literally or nearly in this one.
type pathFailure struct {
	Failure
	near bool
}

// comparePath returns nil if the pattern covers the canonical path.
func comparePath(pattern, path string) *pathFailure {
	if matches(pattern, path) {
		return nil
	}
	want, got := strings.Split(pattern[1:], "/"), strings.Split(path[1:], "/")
	rest := want[len(want)-1] == "*"
	if rest {
		want = want[:len(want)-1]
		got = got[:min(len(got), len(want))]
	}
	var first *pathFailure
	failures, literal, similar := 0, false, false
	for i := range max(len(want), len(got)) {
		var detail string
		switch {
		case i >= len(want) && got[i] == "":
			detail = "the path ends with a slash"
		case i >= len(want):
			detail = fmt.Sprintf("the path goes on with %q", got[i])
		case i >= len(got) && want[i] == "":
			detail = "the path does not end with a slash"
		case i >= len(got):
			detail = fmt.Sprintf("the path ends before %s", want[i])
		case isName(want[i]) && got[i] == "":
			detail = fmt.Sprintf("segment %d is empty, and %s is not", i+1, want[i])
		case isName(want[i]):
			continue
		case want[i] == got[i]:
			literal = literal || want[i] != ""
			continue
		default:
			detail = fmt.Sprintf("segment %d is %q, not %q", i+1, got[i], want[i])
			similar = strings.EqualFold(want[i], got[i]) || nearest(got[i], want[i:i+1], 2) != ""
		}
		failures++
		if first == nil {
			first = &pathFailure{Failure: Failure{PartPath, i + 1, detail}}
		}
	}
	first.near = failures == 1 && (literal || similar)
	return first
}
