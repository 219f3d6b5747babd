package policy

import (
	"errors"
	"hash/maphash"
	"slices"
)

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
			key = b.hash.nameChild(at.key)
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
