package gateway

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	failuresToEject     = 5
	shortestEjection    = 500 * time.Millisecond
	longestEjection     = 30 * time.Second
	longestOnlyEjection = time.Second // of the only target there is
)

// breaker keeps requests from a target that fails again and again. After a while
// it lets one through; if that fails too, the while doubles.
type breaker struct {
	longest time.Duration

	failures  atomic.Int32 // in a row
	openUntil atomic.Int64 // Unix time in ns; 0 is closed

	mu      sync.Mutex
	backoff time.Duration
	probing bool
}

// open reports whether the target gets no requests at now.
func (b *breaker) open(now time.Time) bool {
	until := b.openUntil.Load()
	return until != 0 && now.UnixNano() < until
}

// admit lets a request through, or not. probe is whether it is the one by which
// the target is tried again: then succeeded, failed or undecided has to follow.
func (b *breaker) admit(now time.Time) (ok, probe bool) {
	if b.openUntil.Load() == 0 {
		return true, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.openUntil.Load() == 0 {
		return true, false
	}
	if b.probing || b.open(now) {
		return false, false
	}
	b.probing = true
	return true, true
}

func (b *breaker) succeeded() {
	if b.failures.Load() != 0 {
		b.failures.Store(0)
	}
	if b.openUntil.Load() != 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.openUntil.Store(0)
		b.backoff, b.probing = 0, false
	}
}

func (b *breaker) failed(now time.Time, probe bool) {
	failures := b.failures.Add(1)
	if !probe && (failures < failuresToEject || b.openUntil.Load() != 0) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backoff = min(max(2*b.backoff, shortestEjection), b.longest)
	b.openUntil.Store(now.Add(b.backoff).UnixNano())
	b.probing = false
}

// undecided says that a probe has proved nothing.
func (b *breaker) undecided() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}
