package gateway

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// buckets counts the requests of many callers by the generic cell rate algorithm, a
// token bucket that is one number: when the bucket will be full again.
//
// Memory is fixed. A bucket that is full is as good as none, and gives way first;
// where all of a set are in use, the one that is nearest to full does. So whoever
// wants an empty bucket of theirs forgotten has to fill the set with emptier ones,
// in a set that they cannot know: that takes more requests than it gains.
type buckets struct {
	seeds [kindCount]maphash.Seed
	start time.Time // what instants are counted from, by a clock that is never set back
	sets  []bucketSet
}

const (
	bucketsPerSet = 8
	manyCallers   = 16384 // sets: 131,072 buckets in 2.2 MB
	fewCallers    = 64
)

type bucketSet struct {
	mu      sync.Mutex
	buckets [bucketsPerSet]bucket
}

type bucket struct {
	caller uint64
	full   int64 // when, in ns after start
}

// kind keeps apart what callers are counted by: no user can be named so that they
// are taken for an address.
type kind uint8

const (
	kindAddress kind = iota
	kindUser
	kindTenant
	kindRoute
	kindCount
)

func newBuckets(sets int) *buckets {
	b := &buckets{start: time.Now(), sets: make([]bucketSet, sets)}
	for i := range b.seeds {
		b.seeds[i] = maphash.MakeSeed() // nobody outside can tell who shares a set with whom
	}
	return b
}

// address identifies a caller by address. Of IPv6 the network counts, because
// whoever has one address has all of those.
func (b *buckets) address(addr netip.Addr) uint64 {
	raw := networkOf(addr).As16()
	return maphash.Bytes(b.seeds[kindAddress], raw[:])
}

func (b *buckets) name(k kind, name string) uint64 { return maphash.String(b.seeds[k], name) }

// take counts a request of a caller whose bucket gains one request in every, and
// holds so many that it is full after whole. It returns how long the bucket takes to
// be full again. Requests that are not ok are not counted.
func (b *buckets) take(caller uint64, at time.Time, every, whole time.Duration) (debt time.Duration, ok bool) {
	now := int64(at.Sub(b.start))
	set := &b.sets[caller%uint64(len(b.sets))]
	set.mu.Lock()
	defer set.mu.Unlock()
	mine := &set.buckets[0]
	for i := range set.buckets {
		c := &set.buckets[i]
		if c.caller == caller {
			mine = c
			break
		}
		if c.full < mine.full {
			mine = c
		}
	}
	full := now
	if mine.caller == caller {
		full = max(mine.full, now)
	}
	next := full + int64(every)
	if next-now > int64(whole) {
		return time.Duration(full - now), false
	}
	mine.caller, mine.full = caller, next
	return time.Duration(next - now), true
}
