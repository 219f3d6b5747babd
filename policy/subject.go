package policy

import (
	"fmt"
	"slices"
	"strings"
)

// subjectID is the position of a subject in subjects.names.
type subjectID uint32

// The built-in subjects. Every caller is anonymous; a caller with a valid
// token is authenticated besides.
const (
	anonymous     subjectID = 0
	authenticated subjectID = 1
)

const (
	rolePrefix       = "role:"
	permissionPrefix = "perm:"
)

// subjects interns the subjects that a file names and knows who inherits whom.
type subjects struct {
	names []string             // with prefix, as the file writes them
	ids   map[string]subjectID // by name

	// roles maps a role's bare name, as users and tokens carry it, to its
	// subject. It holds roles and nothing else: that is why no role that a user
	// could be given can turn into a permission or a built-in subject.
	roles map[string]subjectID

	// The subjects that id inherits, itself excluded, in ascending order, are
	// inherited[offsets[id]:offsets[id+1]].
	offsets   []uint32
	inherited []subjectID
	// blooms[id] has the bit id%64 of each subject that id is or inherits. With
	// up to 64 subjects it is exact; with more it spares most searches.
	blooms []uint64
}

func newSubjects() *subjects {
	s := &subjects{ids: make(map[string]subjectID), roles: make(map[string]subjectID)}
	s.intern("anonymous")
	s.intern("authenticated")
	return s
}

func (s *subjects) intern(name string) subjectID {
	if id, ok := s.ids[name]; ok {
		return id
	}
	id := subjectID(len(s.names))
	name = strings.Clone(name) // not to keep the whole file in memory
	s.names = append(s.names, name)
	s.ids[name] = id
	if role, ok := strings.CutPrefix(name, rolePrefix); ok {
		s.roles[role] = id
	}
	return id
}

// of appends the subjects that a caller is by itself, as far as the
// policy knows them.
func (s *subjects) of(c Caller, ids []subjectID) []subjectID {
	ids = append(ids, anonymous)
	if !c.Authenticated {
		return ids
	}
	ids = append(ids, authenticated)
	for _, role := range c.Roles {
		if id, ok := s.roles[role]; ok {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *subjects) isPermission(id subjectID) bool {
	return strings.HasPrefix(s.names[id], permissionPrefix)
}

// inherits returns what id inherits, directly or not, in ascending order.
func (s *subjects) inherits(id subjectID) []subjectID {
	return s.inherited[s.offsets[id]:s.offsets[id+1]]
}

// is reports whether whoever is id is other as well.
func (s *subjects) is(id, other subjectID) bool {
	if id == other {
		return true
	}
	if s.blooms[id]&(1<<(other%64)) == 0 {
		return false
	}
	_, found := slices.BinarySearch(s.inherits(id), other)
	return found
}

// withPrefix lists the names that begin with prefix, without it, sorted.
func (s *subjects) withPrefix(prefix string) []string {
	var names []string
	for _, name := range s.names {
		if bare, ok := strings.CutPrefix(name, prefix); ok {
			names = append(names, bare)
		}
	}
	slices.Sort(names)
	return names
}

// checkSubject returns nil if the text names a subject that may stand in a p
// line. known are the subjects to suggest.
func checkSubject(text string, known *subjects) *fault {
	if text == "" {
		return &fault{0, "subject is missing", "write role:NAME, perm:NAME, anonymous or authenticated"}
	}
	if _, ok := known.ids[text]; ok {
		return nil // built in, or checked before
	}
	prefix, name, prefixed := strings.Cut(text, ":")
	if !prefixed || prefix+":" != rolePrefix && prefix+":" != permissionPrefix {
		return &fault{0, fmt.Sprintf("unknown subject %q", text), suggestSubject(text, prefix, name, known)}
	}
	at := len(prefix) + 1
	if name == "" {
		return &fault{at, fmt.Sprintf("name is missing after %s:", prefix), ""}
	}
	if strings.HasPrefix(name, rolePrefix) || strings.HasPrefix(name, permissionPrefix) {
		return &fault{at, fmt.Sprintf("subject %q has two prefixes", text), fmt.Sprintf("did you mean %s?", name)}
	}
	for i, c := range []byte(name) {
		if !isLetter(c) && !isDigit(c) && (i == 0 || !strings.ContainsRune("._:-", rune(c))) {
			return &fault{at + i, fmt.Sprintf("%q in the name of a subject", c), "names are letters, digits and any of . _ : - after the first"}
		}
	}
	return nil
}

func suggestSubject(text, prefix, name string, known *subjects) string {
	switch {
	case text == "*":
		return "did you mean anonymous (everybody)?"
	case nearest(text, known.names[:2], 2) != "":
		return didYouMean(text, known.names[:2])
	case name == "" || name == text:
		return fmt.Sprintf("did you mean %s%s?", rolePrefix, strings.TrimSuffix(text, ":"))
	}
	for _, right := range []string{rolePrefix, permissionPrefix} {
		if strings.EqualFold(prefix+":", right) || nearest(prefix+":", []string{right}, 2) != "" ||
			strings.HasPrefix(prefix, right[:4]) {
			return fmt.Sprintf("did you mean %s%s?", right, name)
		}
	}
	return "write role:NAME, perm:NAME, anonymous or authenticated"
}
