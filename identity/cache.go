package identity

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
)

// verifiedTokens bounds the cache of verified tokens: two generations of this
// many, about 1 kB each.
const verifiedTokens = 16384

// generations is a bounded map for values that can be made again. It keeps two
// generations: when the young one is full it becomes the old one, and the old
// one is forgotten; what is found in the old one moves to the young one. Recently
// used entries stay, and nothing has to be tracked per use.
//
// Whoever reads takes no lock: it would be the one thing that the requests of
// different callers have in common, and the processor waits at it for all it has
// asked of memory.
type generations[V any] struct {
	limit int
	seed  maphash.Seed
	read  atomic.Pointer[[2]table[V]] // of young and old

	mu         sync.Mutex // of those who put
	young, old []entry[V] // in the order in which they came
}

func newGenerations[V any](limit int) *generations[V] {
	g := &generations[V]{limit: limit, seed: maphash.MakeSeed()}
	g.read.Store(new([2]table[V]))
	return g
}

func (g *generations[V]) get(key []byte) (v V, ok bool) {
	hash := maphash.Bytes(g.seed, key[max(0, len(key)-hashed):])
	tables := g.read.Load()
	if e := tables[0].find(hash, key); e != nil {
		return e.value, true
	}
	if e := tables[1].find(hash, key); e != nil {
		g.put(e.key, e.value)
		return e.value, true
	}
	return v, false
}

// hashed is how many bytes at the end of a key say where it is. Of a token they
// are its signature, which nobody chooses. The whole key says whether it is the one.
const hashed = 64

func (g *generations[V]) put(key string, v V) {
	e := entry[V]{maphash.String(g.seed, key[max(0, len(key)-hashed):]), key, v}
	g.mu.Lock()
	defer g.mu.Unlock()
	tables := *g.read.Load()
	switch n := len(g.young); {
	case n >= g.limit:
		g.old, g.young = g.young, nil
		tables[1], tables[0] = tables[0], newTable[V](min(g.limit, 1+g.limit/8))
		g.young = tables[0].entries[:0]
		g.read.Store(&tables)
	case n == len(tables[0].entries):
		tables[0] = newTable[V](min(g.limit, max(8, 2*n)))
		copy(tables[0].entries, g.young)
		g.young = tables[0].entries[:n]
		for i := range g.young {
			tables[0].show(i)
		}
		g.read.Store(&tables)
	}
	g.young = append(g.young, e) // there is room: nobody has to be told that it moved
	tables[0].show(len(g.young) - 1)
}

// table finds entries by the hashes of their keys. What index does not show yet is
// nobody's but the writer's, and what it shows does not change any more.
type table[V any] struct {
	entries []entry[V]
	// index is a power of two of positions in entries, counted from 1, at most half
	// of them used; 0 is none. Each is where its hash says, or behind.
	index []atomic.Uint32
}

type entry[V any] struct {
	hash  uint64
	key   string
	value V
}

func newTable[V any](size int) table[V] {
	return table[V]{make([]entry[V], size), make([]atomic.Uint32, 2<<bits.Len(uint(size-1)))}
}

// find returns the entry of key, or nil.
func (t *table[V]) find(hash uint64, key []byte) *entry[V] {
	if len(t.index) == 0 {
		return nil
	}
	for i := hash; ; i++ {
		at := t.index[i&uint64(len(t.index)-1)].Load()
		if at == 0 {
			return nil
		}
		if e := &t.entries[at-1]; e.hash == hash && e.key == string(key) {
			return e
		}
	}
}

// show makes an entry one that is found, in the place of an earlier one of its key.
func (t *table[V]) show(at int) {
	e := &t.entries[at]
	for i := e.hash; ; i++ {
		slot := &t.index[i&uint64(len(t.index)-1)]
		before := slot.Load()
		if before == 0 || t.entries[before-1].hash == e.hash && t.entries[before-1].key == e.key {
			slot.Store(uint32(at + 1))
			return
		}
	}
}
