package policy

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math/bits"
	"slices"
)

// index answers for the rules without walking them.
//
// It is a trie over path segments, kept as one open-addressing hash table: a
// node's key is the hash of the segments that lead to it, so following a
// literal costs one probe, and since the keys for a path depend on nothing but
// the path, the processor can wait for several probes at once. The hash says
// where to look; before a rule is used, the node's depth, its names and its
// prefix say whether it is the one that was looked for. Nothing is missed that
// way, because compile refuses (and tries another seed) if two nodes share a
// key.
//
// The cost of a decision is bounded without regard to the number of rules:
//   - at each depth a walk visits at most one node for each placement of names
//     in patterns (say, in the first and the third segment), of which a policy
//     may have maxPlacements;
//   - at a node it looks at no more than scanLimit rules; longer lists have
//     tables by role, searched by bisection;
//   - a rule's subject is compared with what the caller's roles inherit by a
//     bit mask first and a bisection then.
type index struct {
	hash  hasher
	slots []node // a power of two of them
	// tables holds the lists that are too long to be looked through, by the
	// position of their first rule.
	tables    map[uint32]table
	roles     []subjectID // of all tables, ascending within one
	offsets   []uint32    // parallel to roles: where the role's choices begin
	choices   []uint32    // positions of rules, a role's together, in order of precedence
	scanLimit uint32
}

// node stands for a prefix of patterns. The zero node is an empty slot.
type node struct {
	key uint64
	// The rules of the patterns that end here begin at from; those of patterns
	// that end here with a "*" follow them.
	from, exactly, beneath uint32
	// names is the set of the segments leading here that are names: see
	// placementOf. Together with depth and prefix it is what the node is.
	names uint32
	// Where document.text has the segments that lead here, in one of the patterns
	// that begin with them.
	prefixAt uint32
	prefixTo uint16 // relative to prefixAt
	depth    uint8  // in segments
	flags    nodeFlags
}

type nodeFlags uint8

const (
	hasLiterals nodeFlags = 1 << iota // some pattern goes on with a literal
	hasNames                          // some pattern goes on with a name
	hasDenials                        // some deny rule is here or beneath
)

// prefix returns what a node stands for, spelt as one of its patterns does.
func (d *document) prefix(n *node) string {
	return d.text[n.prefixAt : n.prefixAt+uint32(n.prefixTo)]
}

// exact returns the rules of the patterns that end at the node.
func (n *node) exact() list { return list{n.from, n.exactly} }

// rest returns the rules of the patterns that end at the node with a "*".
func (n *node) rest() list { return list{n.from + n.exactly, n.beneath} }

// list is a range of document.rules: what one pattern says, denials first and
// then by line. A list of zero rules is none.
type list struct{ from, n uint32 }

// table is a range of index.roles.
type table list

const (
	minScan = 16
	maxScan = 4096
	// maxChoices bounds the memory of the tables: 16 Mi are at most 192 MiB.
	maxChoices = 16 << 20
)

// hasher derives the keys of nodes.
type hasher struct {
	seed maphash.Seed
	mask uint64 // all ones; tests clear most of them to see collisions
}

func newHasher() hasher { return hasher{maphash.MakeSeed(), 1<<64 - 1} }

// Keys of what is no segment. Any constants do.
const (
	rootKey = 0x9e3779b97f4a7c15
	nameKey = 0xd1b54a32d192ed03
)

func (h hasher) segment(s string) uint64 { return maphash.String(h.seed, s) }

// child returns the key of the node that a segment leads to; never 0.
func (h hasher) child(parent, segment uint64) uint64 {
	hi, lo := bits.Mul64(parent^0xa0761d6478bd642f, segment^0xe7037ed1a0b428db)
	return max((hi^lo)&h.mask, 1)
}

// find returns the node with that key, or nil.
func (ix *index) find(key uint64) *node {
	mask := uint64(len(ix.slots) - 1)
	for i := key & mask; ; i = (i + 1) & mask {
		if n := &ix.slots[i]; n.key == key {
			return n
		} else if n.key == 0 {
			return nil
		}
	}
}

var errCollision = errors.New("two prefixes of patterns have the same hash")

// compile builds the index and sorts the document's rules for it. It fails if
// the policy passes one of the limits above.
func compile(d *document, h hasher) (*index, error) {
	for range 8 {
		b := &builder{document: d, index: index{hash: h}}
		err := b.build()
		if err == nil {
			return &b.index, nil
		}
		if !errors.Is(err, errCollision) {
			return nil, err
		}
		h.seed = maphash.MakeSeed()
	}
	return nil, errCollision
}

type builder struct {
	index
	*document
	used int // slots
}

func (b *builder) build() error {
	b.slots = make([]node, 64)
	*b.empty(rootKey) = node{key: rootKey}
	b.used = 1
	// Where each rule goes: the key of its node, and whether it ends in "*".
	ends := make([]uint64, len(b.rules))
	rest := make([]bool, len(b.rules))
	for i := range b.rules {
		var err error
		if ends[i], rest[i], err = b.insert(uint32(i)); err != nil {
			return err
		}
	}
	b.arrange(ends, rest)
	return b.tabulate()
}

// empty returns the slot where a node with that key belongs.
func (b *builder) empty(key uint64) *node {
	mask := uint64(len(b.slots) - 1)
	i := key & mask
	for b.slots[i].key != 0 {
		i = (i + 1) & mask
	}
	return &b.slots[i]
}

// insert makes the nodes for the pattern of a rule and returns the last one's key.
func (b *builder) insert(i uint32) (end uint64, rest bool, err error) {
	r := &b.rules[i]
	at := b.find(rootKey)
	var denials nodeFlags
	if r.deny {
		denials = hasDenials
	}
	at.flags |= denials
	pattern := b.pattern(r)
	depth, names := uint8(0), uint32(0)
	for after, more := pattern[1:], true; more; {
		var segment string
		segment, after, more = cutSegment(after)
		if segment == "*" {
			return at.key, true, nil
		}
		var key uint64
		if isName(segment) {
			names |= 1 << depth
			at.flags |= hasNames
			key = b.hash.child(at.key, nameKey)
		} else {
			at.flags |= hasLiterals
			key = b.hash.child(at.key, b.hash.segment(segment))
		}
		depth++
		prefix := pattern[:len(pattern)-len(after)]
		if more {
			prefix = prefix[:len(prefix)-1]
		}
		at = b.find(key)
		if at == nil {
			at = b.add(node{key: key, depth: depth, names: names, prefixAt: r.text + uint32(r.patternAt), prefixTo: uint16(len(prefix))})
		} else if at.depth != depth || !samePattern(b.prefix(at), prefix) {
			return 0, false, errCollision
		}
		at.flags |= denials
	}
	return at.key, false, nil
}

// add puts a node into the table, which is kept at most three quarters full.
func (b *builder) add(n node) *node {
	if b.used++; b.used > len(b.slots)/4*3 {
		old := b.slots
		b.slots = make([]node, 2*len(old))
		for i := range old {
			if old[i].key != 0 {
				*b.empty(old[i].key) = old[i]
			}
		}
	}
	slot := b.empty(n.key)
	*slot = n
	return slot
}

// arrange sorts the rules so that those of one list lie together, and tells the
// nodes where.
func (b *builder) arrange(ends []uint64, rest []bool) {
	// One word a rule: slot and kind of list, allow after deny, position in the
	// file. It sorts fast, and the last part says which rule it was.
	type place = uint64
	places := make([]place, len(b.rules))
	for i, key := range ends {
		slot := key & uint64(len(b.slots)-1)
		for b.slots[slot].key != key {
			slot = (slot + 1) & uint64(len(b.slots)-1)
		}
		p := slot << 1
		if rest[i] {
			p |= 1
		}
		p <<= 1
		if !b.rules[i].deny {
			p |= 1
		}
		places[i] = p<<32 | uint64(i)
	}
	slices.Sort(places)

	sorted := make([]rule, len(b.rules))
	for to, p := range places {
		n := &b.slots[p>>34]
		if n.exactly+n.beneath == 0 {
			n.from = uint32(to)
		}
		if p>>33&1 == 0 {
			n.exactly++
		} else {
			n.beneath++
		}
		sorted[to] = b.rules[uint32(p)]
	}
	b.rules = sorted
}

// tabulate makes tables of the lists that are longer than scanLimit, which it
// raises until they fit into the memory they may take.
func (b *builder) tabulate() error {
	b.scanLimit = minScan
	longest := uint32(0)
	for i := range b.slots {
		longest = max(longest, b.slots[i].exactly, b.slots[i].beneath)
	}
	if longest <= minScan {
		return nil
	}
	holders := b.subjects.holders()
	for ; b.scanLimit <= maxScan; b.scanLimit *= 2 {
		if b.tabulateAll(holders) {
			return nil
		}
	}
	return fmt.Errorf("too many roles have rules for one pattern: tables of more than %d choices", maxChoices)
}

func (b *builder) tabulateAll(holders func(subjectID) []subjectID) bool {
	b.tables = make(map[uint32]table)
	b.roles, b.offsets, b.choices = nil, nil, nil
	budget := maxChoices
	for i := range b.slots {
		for _, l := range [...]list{b.slots[i].exact(), b.slots[i].rest()} {
			if l.n <= b.scanLimit {
				continue
			}
			if b.tabulateOne(l, holders, &budget); budget < 0 {
				return false
			}
		}
	}
	b.offsets = append(b.offsets, uint32(len(b.choices)))
	return true
}

// decided are the methods that earlier rules of a list decide for a subject.
type decided struct{ denied, allowed methodSet }

// adds reports whether a rule decides anything that earlier ones do not.
func (d *decided) adds(r *rule) bool {
	before := *d
	if r.deny {
		d.denied |= r.methods
	} else {
		d.allowed |= r.methods
	}
	return *d != before
}

// tabulateOne notes, for every role that some rule of the list applies to,
// which rules can decide.
func (b *builder) tabulateOne(l list, holders func(subjectID) []subjectID, budget *int) {
	type choice struct {
		decided
		rules []uint32
	}
	byRole := make(map[subjectID]*choice)
	bySubject := make(map[subjectID]decided)
	for i := l.from; i < l.from+l.n; i++ {
		r := &b.rules[i]
		d := bySubject[r.subject]
		if !d.adds(r) {
			continue
		}
		bySubject[r.subject] = d
		for _, role := range holders(r.subject) {
			if *budget--; *budget < 0 {
				return
			}
			c := byRole[role]
			if c == nil {
				c = new(choice)
				byRole[role] = c
			}
			if c.adds(r) {
				c.rules = append(c.rules, i)
			}
		}
	}
	roles := slices.Sorted(maps.Keys(byRole))
	b.tables[l.from] = table{uint32(len(b.roles)), uint32(len(roles))}
	for _, role := range roles {
		b.roles = append(b.roles, role)
		b.offsets = append(b.offsets, uint32(len(b.choices)))
		b.choices = append(b.choices, byRole[role].rules...)
	}
}
