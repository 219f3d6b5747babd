package identity

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestGenerationsForgetWhatIsNotUsed(t *testing.T) {
	g := newGenerations[int](10)
	g.put("kept", 1)
	g.put("forgotten", 2)
	for i := range 1000 {
		g.put(fmt.Sprint(i), i)
		if _, ok := g.get([]byte("kept")); !ok {
			t.Fatalf("an entry that is always used was forgotten after %d others", i)
		}
		if n := len(g.young) + len(g.old); n > 20 {
			t.Fatalf("%d entries of at most 20", n)
		}
	}
	if _, ok := g.get([]byte("forgotten")); ok {
		t.Error("an entry that is never used is still there")
	}
}

func TestGenerationsKeyIsCopied(t *testing.T) {
	g := newGenerations[int](10)
	key := []byte("alice")
	g.put(string(key), 1)
	copy(key, "mallo")
	if _, ok := g.get(key); ok {
		t.Error("another key finds the entry")
	}
	if _, ok := g.get([]byte("alice")); !ok {
		t.Error("the key lost its entry when the caller's bytes changed")
	}
}

func TestGenerationsInParallel(t *testing.T) {
	g := newGenerations[string](50)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				key := fmt.Sprint((i * (w + 1)) % 200)
				if v, ok := g.get([]byte(key)); ok && v != key {
					t.Errorf("%s has the value of %s", key, v)
				}
				g.put(key, key)
			}
		})
	}
	wg.Wait()
}

// The end of a key only says where to look.
func TestGenerationsCompareWholeKeys(t *testing.T) {
	g := newGenerations[string](1000)
	end := strings.Repeat("s", 2*hashed)
	key := func(i int) string { return fmt.Sprint(i) + end }
	for i := range 100 {
		g.put(key(i), key(i))
	}
	for i := range 100 {
		if v, ok := g.get([]byte(key(i))); !ok || v != key(i) {
			t.Fatalf("the entry of %s is %q, %v", key(i), v, ok)
		}
	}
	for _, other := range []string{end, "0" + end[1:], "0" + end + "s", "100" + end, ""} {
		if v, ok := g.get([]byte(other)); ok {
			t.Errorf("%q finds the entry of %q", other, v)
		}
	}
}

func TestGenerationsTakeTheLastValue(t *testing.T) {
	g := newGenerations[int](100)
	for i := range 50 {
		g.put("key", i)
		if v, _ := g.get([]byte("key")); v != i {
			t.Fatalf("%d instead of %d", v, i)
		}
	}
}
