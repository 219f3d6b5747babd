package policy

import (
	"hash/maphash"
	"math/bits"
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

// hasher derives the keys of nodes.
type hasher struct {
	seed maphash.Seed
	mask uint64 // all ones; tests clear most of them to see collisions
}

func newHasher() hasher { return hasher{maphash.MakeSeed(), 1<<64 - 1} }

// rootKey is the key of the node that no segment leads to. Any constant does.
const rootKey = 0x9e3779b97f4a7c15

func (h hasher) segment(s string) uint64 { return maphash.String(h.seed, s) }

// child returns the key of the node that a segment leads to; never 0.
func (h hasher) child(parent, segment uint64) uint64 {
	hi, lo := bits.Mul64(parent^0xa0761d6478bd642f, segment^0xe7037ed1a0b428db)
	return max((hi^lo)&h.mask, 1)
}

// nameChild returns the key of the node that a name leads to: the next one, so
// that the node lies beside its parent and came with it from memory.
func (h hasher) nameChild(parent uint64) uint64 { return max((parent+1)&h.mask, 1) }

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
