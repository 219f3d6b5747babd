package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// A drain looks at the connections that are left after waits that grow from the
// one to the other.
const (
	firstDrainTick = time.Millisecond
	drainTick      = 20 * time.Millisecond
)

// Drain makes the gateway not ready, and every answer from now on asks its client
// to connect anew, and so to somebody else. It goes on accepting connections: who
// balances over several gateways takes a while to notice.
func (g *Gateway) Drain() { g.draining.Store(true) }

// Shutdown stops accepting connections and waits until every request under way
// was answered. When ctx ends, it cuts what is left and returns ctx's error.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.Drain()
	err := g.clients.drain(ctx)
	// The goroutines of connections that were just closed end in a moment, while
	// the server would look for it every 100 ms only.
	for wait := firstDrainTick; wait < 4*drainTick && ctx.Err() == nil && g.app.Server().GetOpenConnectionsCount() > 0; wait *= 2 {
		time.Sleep(wait)
	}
	err = errors.Join(err, g.app.ShutdownWithContext(ctx))
	g.state.Load().close()
	return err
}

// whileDraining ends the connection with each answer once the gateway drains, and
// keeps a drain from taking a connection for idle on which a request is under way.
func (g *Gateway) whileDraining(answer fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		conn, last := clientConnOf(ctx), g.draining.Load()
		conn.began = true // even if all of it was there already, behind the request before
		if last {
			ctx.SetConnectionClose()
		}
		answer(ctx)
		if last { // the answer may have been begun anew
			ctx.SetConnectionClose()
			conn.linger = true
		}
		if conn.began = ctx.Hijacked(); !conn.began { // an upgraded connection is never idle
			conn.between, conn.idleUntil = true, time.Time{}
		}
	}
}

// clients are the open connections of clients and the listeners they come
// through, so that a drain can end what nothing is under way on.
type clients struct {
	mu        sync.Mutex
	open      map[*clientConn]struct{}
	parking   parking                           // set before there are any
	fast      func(c *clientConn, p []byte) int // as parking; nil: there is no fast path
	crashed   func(cause error)                 // as parking: is told why a connection was cut
	listeners map[*clientListener]struct{}
}

// listen makes the connections that ln accepts clients. It goes outermost,
// around TLS.
func (cs *clients) listen(ln net.Listener) *clientListener {
	l := &clientListener{Listener: ln, clients: cs}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.listeners == nil {
		cs.open, cs.listeners = map[*clientConn]struct{}{}, map[*clientListener]struct{}{}
	}
	cs.listeners[l] = struct{}{}
	return l
}

func (cs *clients) add(c *clientConn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open[c] = struct{}{}
}

func (cs *clients) remove(c *clientConn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.open, c)
}

// count returns the number of open connections.
func (cs *clients) count() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.open)
}

func (cs *clients) closeListeners() error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var errs []error
	for l := range cs.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// each calls do for every open connection.
func (cs *clients) each(do func(*clientConn)) {
	cs.mu.Lock()
	all := make([]*clientConn, 0, len(cs.open))
	for c := range cs.open {
		all = append(all, c)
	}
	cs.mu.Unlock()
	for _, c := range all {
		do(c)
	}
}

// drain closes the listeners, and each connection as soon as nothing is under way
// on it; upgraded ones, which end by themselves when they like, when no others are
// left. When ctx ends, it cuts what is left and returns ctx's error.
func (cs *clients) drain(ctx context.Context) error {
	err := cs.closeListeners()
	wait := firstDrainTick
	tick := time.NewTimer(wait)
	defer tick.Stop()
	for ; cs.count() > 0; tick.Reset(wait) {
		tunnels, others := 0, 0
		cs.each(func(c *clientConn) {
			if c.leave() {
				tunnels++
			} else {
				others++
			}
		})
		if others == 0 {
			cs.each((*clientConn).cutTunnel)
		}
		select {
		case <-ctx.Done():
			cs.each((*clientConn).cutTunnel)
			cs.each((*clientConn).sever)
			return errors.Join(err, ctx.Err())
		case <-tick.C:
			wait = min(2*wait, drainTick)
		}
	}
	return err
}

// leave asks the connection to end when it is idle, and reports whether it is a
// tunnel. Any goroutine may call it, any number of times.
func (c *clientConn) leave() (tunnel bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tunnel != nil {
		return true
	}
	if c.arriving { // in the middle of a handshake, which would not survive it
		return false
	}
	c.leaving = true
	c.readArmed = time.Unix(1, 0) // wakes a read up; only the reader knows what it waits for
	_ = c.Conn.SetReadDeadline(c.readArmed)
	return false
}

// lastRead is asked when the read of a leaving connection was woken up that waits
// for the next request, with mu held. A request that has arrived is answered;
// otherwise the connection has left.
func (c *clientConn) lastRead() (again bool) {
	if tcp, ok := tcpOf(c.Conn); ok && readable(rawSocket(tcp)) {
		c.readArmed = c.readWant
		return c.Conn.SetReadDeadline(c.readArmed) == nil
	}
	c.left, c.linger = true, true
	return false
}

func (c *clientConn) cutTunnel() {
	c.mu.Lock()
	t := c.tunnel
	c.mu.Unlock()
	if t != nil {
		t.cut(errTunnelClosed)
	}
}

// carry makes the connection a tunnel's.
func (c *clientConn) carry(t *tunnel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tunnel = t
}
