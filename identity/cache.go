package identity

import "sync"

// verifiedTokens bounds the cache of verified tokens: two generations of this
// many, about 1 kB each.
const verifiedTokens = 16384

// generations is a bounded map for values that can be made again. It keeps two
// generations: when the young one is full it becomes the old one, and the old
// one is forgotten; what is found in the old one moves to the young one. Recently
// used entries stay, and nothing has to be tracked per use.
type generations[V any] struct {
	mu         sync.RWMutex
	limit      int
	young, old map[string]V
}

func newGenerations[V any](limit int) *generations[V] {
	return &generations[V]{limit: limit, young: map[string]V{}}
}

func (g *generations[V]) get(key []byte) (V, bool) {
	g.mu.RLock()
	v, ok := g.young[string(key)]
	promote := false
	if !ok {
		v, ok = g.old[string(key)]
		promote = ok
	}
	g.mu.RUnlock()
	if promote {
		g.put(string(key), v)
	}
	return v, ok
}

func (g *generations[V]) put(key string, v V) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.young) >= g.limit {
		g.old, g.young = g.young, make(map[string]V, g.limit/8)
	}
	g.young[key] = v
}
