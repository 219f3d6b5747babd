package gateway

import (
	"errors"
	"io"
	"net"
	"time"
)

const (
	// How long, and how much, a closing connection goes on reading what the
	// client is still sending, so that the answer is not lost to a reset.
	lingerTime = 2 * time.Second
	lingerSize = 64 << 20
)

// cut ends the connection in the middle of an answer. hard is for an answer
// whose end is the end of the connection: only a reset tells the client that it
// is not whole.
func (c *clientConn) cut(hard bool) {
	c.ended = true
	c.reset = c.reset || hard
}

// Close implements net.Conn. Any goroutine may call it.
func (c *clientConn) Close() error {
	if c.park() {
		return nil
	}
	if c.closed.Swap(true) {
		return nil
	}
	defer c.forget()
	switch {
	case c.reset, c.stuck.Load():
		_ = resetSocket(c.Conn) // closed below in any case
	case c.linger:
		c.drain()
	}
	return c.Conn.Close()
}

// sever ends a connection that another goroutine serves, which is told when it uses
// it next, and so asks nothing of what only that one may know. It is a reset,
// because the end of the connection could be taken for the end of an answer.
func (c *clientConn) sever() {
	if c.closed.Swap(true) {
		return
	}
	defer c.forget()
	if !resetSocket(c.Conn) {
		_ = c.Conn.Close() // best effort, too
	}
}

// resetSocket closes the socket beneath a connection with a reset, and not the TLS
// around it, which would say a proper goodbye. It reports whether there is one.
func resetSocket(conn net.Conn) bool {
	tcp, ok := tcpOf(conn)
	if ok {
		_ = tcp.SetLinger(0) // best effort: the connection ends either way
		_ = tcp.Close()
	}
	return ok
}

// forget is for a connection that has ended: it makes room for another.
func (c *clientConn) forget() {
	c.mu.Lock()
	if c.room != nil {
		c.room.leave(c.counted)
		c.room = nil
	}
	c.mu.Unlock()
	if c.clients != nil { // it was not turned away
		c.clients.remove(c)
	}
}

// drain closes our direction and reads until the client closes its own. Without
// that, what the client goes on sending is answered by a reset, which makes its
// kernel forget the answer that it has not read yet (RFC 9112 §9.6).
func (c *clientConn) drain() {
	if closeWrite(c.Conn) != nil || c.Conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.Conn, lingerSize) // whatever ends it, the connection is closed next
}

// closeWrite closes our direction of a connection.
func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		tcp, ok := tcpOf(conn)
		if !ok {
			return errors.ErrUnsupported
		}
		half = tcp
	}
	return half.CloseWrite()
}

// tcpOf returns the TCP connection beneath conn and its wrappers.
func tcpOf(conn net.Conn) (*net.TCPConn, bool) {
	for {
		if tcp, ok := conn.(*net.TCPConn); ok {
			return tcp, true
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil, false
		}
		conn = wrapper.NetConn()
	}
}
