package policy

// caller is a Caller in terms of the index.
type caller struct {
	subjects []subjectID
	bloom    uint64 // of all that they are or inherit
}

// search is the walk of one decision through the trie. It looks for a denial
// that applies; on the way it keeps the first permission it meets. The order of
// the walk is the order in which patterns of one path are more specific: at the
// first segment in which they differ a literal comes before a name and a name
// before "*".
type search struct {
	*document
	*index
	caller caller
	method methodSet
	path   string

	hashes   [maxSegments]uint64
	segments int // of the path; those past maxSegments have no hash

	found, denied bool
	deciding      uint32 // rule, if found
}

// split prepares the path; false if it is none that a rule could match.
func (s *search) split() bool {
	if s.path == "" || s.path[0] != '/' {
		return false
	}
	for rest, more := s.path[1:], true; more; s.segments++ {
		var segment string
		segment, rest, more = cutSegment(rest)
		if isOdd(segment, !more) {
			return false
		}
		if s.segments < maxSegments {
			s.hashes[s.segments] = s.hash.segment(segment)
		}
	}
	return true
}

// visit looks at the node that the first depth segments of the path lead to and
// at what is beneath. names is the set of segments that were taken for names.
// It is given the node's key so as not to wait for the node to be fetched from
// memory before it probes for the next.
func (s *search) visit(n *node, key uint64, depth int, names uint32) {
	if depth == s.segments {
		s.consider(n, n.exact())
		s.consider(n, n.rest())
		return
	}
	if n.flags&hasLiterals != 0 {
		s.descend(s.hash.child(key, s.hashes[depth]), depth+1, names)
	}
	if n.flags&hasNames != 0 {
		s.descend(s.hash.nameChild(key), depth+1, names|1<<depth)
	}
	s.consider(n, n.rest())
}

func (s *search) descend(key uint64, depth int, names uint32) {
	if s.denied {
		return
	}
	// A false probe, if it is not told here by chance, is told by its prefix.
	n := s.find(key)
	if n != nil && int(n.depth) == depth && n.names == names && (!s.found || n.flags&hasDenials != 0) {
		s.visit(n, key, depth, names)
	}
}

// consider takes the first rule of a node's list that applies, if it is better
// than what was found before: the list has its denials first.
func (s *search) consider(n *node, l list) {
	if l.n == 0 || s.denied {
		return
	}
	var best uint32
	if l.n > s.scanLimit {
		best = s.lookUp(s.tables[l.from])
	} else {
		best = s.scan(l)
	}
	if best == noRule {
		return
	}
	deny := s.rules[best].deny
	if s.found && !deny || !prefixMatches(s.prefix(n), s.path) {
		return
	}
	s.found, s.denied, s.deciding = true, deny, best
}

const noRule = 1<<32 - 1

// scan returns the first rule of a short list that applies.
func (s *search) scan(l list) uint32 {
	for i := l.from; i < l.from+l.n; i++ {
		r := &s.rules[i]
		if r.methods&s.method != 0 && s.callerIs(r.subject) {
			return i
		}
	}
	return noRule
}

func (s *search) callerIs(subject subjectID) bool {
	if s.caller.bloom&(1<<(subject%64)) == 0 {
		return false
	}
	for _, id := range s.caller.subjects {
		if s.subjects.is(id, subject) {
			return true
		}
	}
	return false
}
