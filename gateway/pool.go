package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultIdleConns   = 128
	defaultIdleTimeout = 60 * time.Second // also of bodies: see routeTimeouts
)

// upstreamOptions describes an upstream. Zero fields have defaults.
type upstreamOptions struct {
	targets          []*url.URL // scheme (http or https) and authority; at least one
	leastConnections bool       // instead of round robin
	idleConns        int        // kept open per target at most; 128 by default
	idleTimeout      time.Duration
	tls              *tls.Config // for https targets; nil for the defaults
	health           healthOptions
}

// upstream is a service that requests are forwarded to: its targets, and the
// connections to them.
type upstream struct {
	name             string
	targets          []*target
	leastConnections bool
	idleConns        int

	next    atomic.Uint32
	epoch   atomic.Uint32 // ticks of sweep
	flights sync.Pool     // of *flight
	large   sync.Pool     // of *[largeBuffer]byte

	stop    context.CancelFunc
	workers sync.WaitGroup
}

// newUpstream checks the options and starts the upstream's own goroutines, which
// close ends.
func newUpstream(name string, o upstreamOptions) (*upstream, error) {
	if len(o.targets) == 0 {
		return nil, fmt.Errorf("upstream %s: no targets", name)
	}
	if o.idleConns <= 0 {
		o.idleConns = defaultIdleConns
	}
	if o.idleTimeout <= 0 {
		o.idleTimeout = defaultIdleTimeout
	}
	u := &upstream{
		name: name, leastConnections: o.leastConnections, idleConns: o.idleConns,
	}
	longest := longestEjection
	if len(o.targets) == 1 {
		longest = longestOnlyEjection
	}
	for _, at := range o.targets {
		t, err := newTarget(at, o.tls)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", name, err)
		}
		t.breaker.longest = longest
		u.targets = append(u.targets, t)
	}
	ctx, stop := context.WithCancel(context.Background())
	u.stop = stop
	u.workers.Go(func() { u.sweep(ctx, o.idleTimeout) })
	if o.health.path != "" {
		o.health.setDefaults()
		u.workers.Go(func() { u.checkHealth(ctx, o.health) })
	}
	return u, nil
}

// close ends the upstream's goroutines and idle connections. Exchanges under way
// go on to their end; their connections are not kept.
func (u *upstream) close() {
	u.stop()
	u.workers.Wait()
	for _, t := range u.targets {
		t.closeIdle()
	}
}

// targetStatus is what an operator may want to know of a target.
type targetStatus struct {
	addr    string
	healthy bool // takes requests
	active  int  // exchanges under way
	idle    int  // connections kept
}

// status describes the targets at now.
func (u *upstream) status(now time.Time) []targetStatus {
	all := make([]targetStatus, 0, len(u.targets))
	for _, t := range u.targets {
		t.mu.Lock()
		idle := len(t.idle)
		t.mu.Unlock()
		all = append(all, targetStatus{
			addr: t.addr, healthy: !t.down.Load() && !t.breaker.open(now),
			active: int(t.active.Load()), idle: idle,
		})
	}
	return all
}

// pick chooses a target that is none of tried. probe is whether the breaker lets
// this request through to see whether the target is back.
func (u *upstream) pick(now time.Time, tried []*target) (t *target, probe bool, err error) {
	start := 0
	if n := len(u.targets); n > 1 {
		start = int(u.next.Add(1) % uint32(n))
	}
	for {
		t := u.candidate(start, now, tried)
		if t == nil {
			return nil, false, errNoTarget
		}
		if ok, probe := t.breaker.admit(now); ok {
			return t, probe, nil
		}
		tried = append(slices.Clip(tried), t)
	}
}

func (u *upstream) candidate(start int, now time.Time, tried []*target) (best *target) {
	for i := range u.targets {
		t := u.targets[(start+i)%len(u.targets)]
		if t.down.Load() || t.breaker.open(now) || slices.Contains(tried, t) {
			continue
		}
		if !u.leastConnections {
			return t
		}
		if best == nil || t.active.Load() < best.active.Load() {
			best = t
		}
	}
	return best
}

// sweep closes the connections that have been idle for idleTimeout, or up to
// half as long again.
func (u *upstream) sweep(ctx context.Context, idleTimeout time.Duration) {
	tick := time.NewTicker(idleTimeout / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			epoch := u.epoch.Add(1)
			for _, t := range u.targets {
				t.closeIdleSince(epoch - 3)
			}
		}
	}
}

// target is one address of an upstream.
type target struct {
	addr   string // host:port
	tls    *tls.Config
	dialer net.Dialer

	active  atomic.Int32 // exchanges under way
	down    atomic.Bool  // says the active health check
	breaker breaker

	mu     sync.Mutex
	idle   []*upstreamConn // the most recently used last
	closed bool
}

func newTarget(at *url.URL, config *tls.Config) (*target, error) {
	t := &target{}
	port := at.Port()
	switch at.Scheme {
	case "http":
		if port == "" {
			port = "80"
		}
	case "https":
		if port == "" {
			port = "443"
		}
		t.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if config != nil {
			t.tls = config.Clone()
		}
		if t.tls.ServerName == "" {
			t.tls.ServerName = at.Hostname()
		}
		t.tls.NextProtos = []string{"http/1.1"}
	default:
		return nil, fmt.Errorf("target %s: scheme is neither http nor https", at.Redacted())
	}
	if at.Hostname() == "" || at.User != nil || at.Path != "" && at.Path != "/" || at.RawQuery != "" {
		return nil, fmt.Errorf("target %s: must be scheme://host:port", at.Redacted())
	}
	t.addr = net.JoinHostPort(at.Hostname(), port)
	return t, nil
}

// take returns the most recently used idle connection, or nil.
func (t *target) take() *upstreamConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := len(t.idle) - 1
	if last < 0 {
		return nil
	}
	c := t.idle[last]
	t.idle[last] = nil
	t.idle = t.idle[:last]
	return c
}

// put keeps a connection whose exchange has ended cleanly, if there is room.
func (t *target) put(c *upstreamConn, epoch uint32, limit int) {
	c.reused, c.epoch = true, epoch
	t.mu.Lock()
	keep := !t.closed && len(t.idle) < limit
	if keep {
		t.idle = append(t.idle, c)
	}
	t.mu.Unlock()
	if !keep {
		_ = c.Close() // nothing is under way on it
	}
}

// closeIdleSince closes the connections that became idle in that epoch or before.
func (t *target) closeIdleSince(epoch uint32) {
	t.mu.Lock()
	n := 0
	for n < len(t.idle) && int32(epoch-t.idle[n].epoch) >= 0 {
		n++
	}
	old := slices.Clone(t.idle[:n])
	t.idle = slices.Delete(t.idle, 0, n)
	t.mu.Unlock()
	for _, c := range old {
		_ = c.Close() // nothing is under way on it
	}
}

func (t *target) closeIdle() {
	t.mu.Lock()
	old := t.idle
	t.idle, t.closed = nil, true
	t.mu.Unlock()
	for _, c := range old {
		_ = c.Close() // nothing is under way on it
	}
}
