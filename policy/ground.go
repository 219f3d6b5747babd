package policy

// ground is a set of patterns with methods, made to be asked what a pattern has
// in common with them.
type ground struct {
	literals map[string]*ground
	name     *ground
	// The methods of the patterns that end here, of those that end here with a
	// "*", and of all that end here or beneath.
	exact, rest, all methodSet
}

// add puts a pattern and its methods into the ground.
func (g *ground) add(pattern string, methods methodSet) {
	at := g
	for rest, more := pattern[1:], true; more; {
		at.all |= methods
		var segment string
		segment, rest, more = cutSegment(rest)
		if segment == "*" {
			at.rest |= methods
			return
		}
		next := at.literals[segment]
		if isName(segment) {
			next = at.name
		}
		if next == nil {
			next = new(ground)
			switch {
			case isName(segment):
				at.name = next
			case at.literals == nil:
				at.literals = map[string]*ground{segment: next}
			default:
				at.literals[segment] = next
			}
		}
		at = next
	}
	at.all |= methods
	at.exact |= methods
}

// under returns the methods of all patterns that have some path in common with
// the given one.
func (g *ground) under(pattern string) methodSet { return g.following(pattern[1:], true) }

// following is under for what is left of a pattern; more says that something is.
func (g *ground) following(pattern string, more bool) methodSet {
	if !more {
		return g.exact | g.rest
	}
	segment, pattern, more := cutSegment(pattern)
	found := g.rest
	switch {
	case segment == "*":
		return g.all
	case isName(segment):
		for literal, next := range g.literals {
			if literal != "" {
				found |= next.following(pattern, more)
			}
		}
	default:
		if next := g.literals[segment]; next != nil {
			found |= next.following(pattern, more)
		}
	}
	if g.name != nil && segment != "" {
		found |= g.name.following(pattern, more)
	}
	return found
}
