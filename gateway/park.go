package gateway

import (
	"net"
	"syscall"
	"time"
)

// parkAfter is how long nothing has to come between two requests for a connection to
// be parked: long enough that whoever is busy never is.
const parkAfter = 500 * time.Millisecond

// parking is where connections wait on which nothing happens. The server keeps a
// read buffer for each connection that it serves, and a goroutine whose stack has
// grown, so it gets one only when the first byte has come: until then a goroutine
// waits for that which does nothing else. One that is quiet after a request it is
// made to let go, by an end of what there is to be read; that it then closes the
// connection parks it (see clientConn.Close). To everybody else it stays the same
// connection: in its counts, its address, its TLS, its deadlines, and to a drain.
type parking struct {
	after  time.Duration // see parkAfter
	header time.Duration // how long the server waits for the first request
	idle   time.Duration // and for the next ones
	// serve is the server's; it returns after it has closed the connection. nil: connections
	// are not parked.
	serve func(net.Conn) error
}

// untilQuiet is when a read has to be woken up at the latest that waits for the
// next request until t, so that the connection can be parked; with mu held.
func (c *clientConn) untilQuiet(t time.Time) time.Time {
	p := &c.clients.parking
	switch {
	case p.serve == nil || p.after >= p.idle || t.IsZero():
		return t
	case c.idleUntil.IsZero(): // t is p.idle from now
		c.idleUntil, c.quietAt = t, t.Add(p.after-p.idle)
	default: // it was parked, and t is for the header of a request of which there should be some
		c.quietAt = time.Now().Add(p.after)
	}
	return c.quietAt
}

// extendQuiet is extendRead for a connection that may be parked.
func (c *clientConn) extendQuiet(now time.Time) bool {
	quiet := !now.Before(c.quietAt) || !now.Before(c.readWant)
	switch {
	case !now.Before(c.idleUntil):
		return false
	case quiet && c.framing.stage == framingHead && c.socket() != nil:
		c.parking = true
		return false
	case quiet: // it can't be, or is yet to send the rest of a body
		c.idleUntil = time.Time{}
		c.readArmed = c.readWant
	default:
		c.readArmed = c.quietAt
	}
	return c.Conn.SetReadDeadline(c.readArmed) == nil
}

// socket is the connection's, beneath all else; nil if it can't be waited for.
func (c *clientConn) socket() syscall.RawConn {
	tcp, ok := tcpOf(c.Conn)
	if !ok {
		return nil
	}
	return rawSocket(tcp)
}

// awaitFirst lets the connection wait for its first byte, and reports whether it is
// served when that has come.
func (c *clientConn) awaitFirst() bool {
	p := &c.clients.parking
	if p.serve == nil || p.header <= 0 {
		return false
	}
	socket := c.socket()
	if socket == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headerUntil = time.Now().Add(p.header)
	if !c.leaving {
		c.readArmed = c.headerUntil
		_ = c.Conn.SetReadDeadline(c.readArmed) // a closed connection says so when read
	}
	go func() {
		_ = awaitReadable(socket) // whatever it is that came instead, the server finds the same
		_ = p.serve(c)
	}()
	return true
}

// park parks the connection, if it is for that that the server lets go of it.
func (c *clientConn) park() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.parking || c.closed.Load() {
		return false
	}
	c.parking = false
	go c.parked()
	return true
}

// parked is the life of a parked connection. Its goroutine ends with it: when the
// server is to park it again, that begins another, with a small stack.
func (c *clientConn) parked() {
	c.framing.line = nil // it may have held a long one
	if c.awaitRequest() {
		_ = c.clients.parking.serve(c) // what goes wrong with it is recorded where it does
		return
	}
	_ = c.Close() // the client has left, or will learn it from this
}

// awaitRequest waits until something comes, and reports whether that is a request, or
// may be one.
func (c *clientConn) awaitRequest() bool {
	socket := c.socket()
	if socket == nil {
		return false
	}
	for {
		if last, again := c.armParked(); last {
			return again
		}
		if err := awaitReadable(socket); err == nil {
			return true
		} else if !isTimeout(err) || !time.Now().Before(c.idleUntil) && !c.isLeaving() {
			return false
		}
	}
}

// armParked sets the deadline of a parked connection: the one that it had before.
// last is set if it must not wait, because it is leaving; it is then served once
// more if again.
func (c *clientConn) armParked() (last, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		return true, c.lastRead()
	}
	c.readArmed = c.idleUntil
	return false, c.Conn.SetReadDeadline(c.readArmed) == nil
}

func (c *clientConn) isLeaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving
}
