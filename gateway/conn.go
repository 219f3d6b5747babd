package gateway

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// errConnEnded is what the server sees when it writes to a connection whose
// exchange was cut: there must be no second answer on it.
var errConnEnded = errors.New("the exchange on this connection was cut")

// clientConn is a client's connection as fasthttp's server sees it. It shows that
// server one request at a time, framed by the letter (see framing), unless it needs no
// server to be answered (see answerFast), and lets forward do four things for which the
// server has no means:
//
//   - write an answer to the wire itself, as the upstream wrote it and when the
//     upstream wrote it; the server's own idea of the answer is dropped;
//   - notice that the client leaves while the handler runs;
//   - hold back "100 Continue" until the upstream has asked for the body;
//   - close without destroying an answer that the client has not read yet.
//
// It also makes deadlines cheap: one that is moved further away is only
// remembered, and is looked up when the one that was set before fires.
//
// The server has to be told by prepareServer.
//
// Its methods are for the goroutine that serves the connection, except where
// noted.
type clientConn struct {
	net.Conn
	clients  *clients
	tls      *tls.Conn // Conn, if it is one
	proxied  *proxiedConn
	arrivals *arrivals // what is left to do before the first request; nil: nothing

	// What the server was told to do with its next write or read.
	placeholder bool // the next write is an answer that forward has given already
	ended       bool // nothing may be written any more
	held        bool // the client waits for "100 Continue", and must not get it yet
	linger      bool // close only after reading what the client still sends, so that the answer reaches it
	reset       bool // close with a reset

	writeIdle  time.Duration // forward's limit for a write that makes no progress
	writeWant  time.Time     // the server's deadline for writes; zero for none
	writeArmed time.Time     // what Conn was told

	peer     netip.Addr // see peerOf
	peerText string     // "" before that was asked

	framing framing // what the server may see of what the client sends

	closed  atomic.Bool
	stuck   atomic.Bool // TLS can't write any more, not even a goodbye
	readErr error       // why the last read failed, if it did
	began   bool        // some of a request has come that is not answered yet
	between bool        // a request was answered, and nothing of the next has come yet
	left    bool        // it was closed for being idle
	idles   bool        // the time until its next request was set by answerFast

	answeredAt time.Time // by the fast path, last

	// See parking.
	headerUntil time.Time // for the first request; zero once the server knows
	idleUntil   time.Time // while between; zero: it is not to be parked
	quietAt     time.Time // when it will have been quiet for long enough

	mu        sync.Mutex // guards what follows: the watch, abortRead and leave are other goroutines
	arriving  bool       // its first request can't be read yet
	leaving   bool       // to be closed when idle
	parking   bool       // the server's next Close parks it
	tunnel    *tunnel    // what it was upgraded to
	readWant  time.Time
	readArmed time.Time
	readIdle  time.Duration // if set, readWant moves on by it as long as bytes come
	readEnd   time.Time     // but not beyond this, if it is set
	moved     bool          // bytes came since readWant was set
	aborted   bool
	unwatched bool // the watch has to end
	room      *room
	counted   netip.Addr // in room
	pushed    []byte
	pushedBuf [1]byte
	watched   chan struct{} // closed when the watch has ended; nil without one
}

// clientConnOf returns the connection of a request, or nil if it was not
// accepted by a clientListener.
func clientConnOf(ctx *fasthttp.RequestCtx) *clientConn {
	c, _ := ctx.Conn().(*clientConn)
	return c
}

// Read implements net.Conn. One goroutine at a time may call it; it need not be
// the one that serves the connection. All that strangers send comes through here: a
// mistake that it uncovers costs them their connection, and nobody else's.
func (c *clientConn) Read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, io.EOF
			c.cut(true)
			c.clients.crashed(recovered(v, debug.Stack()))
		}
	}()
	return c.read(p)
}

func (c *clientConn) read(p []byte) (int, error) {
	if c.held {
		// The server tries to fetch the beginning of a body that the client
		// holds back. To this error it reacts by leaving the body for the
		// handler to read, which is what forward needs. Any other reader is told
		// that there is no body to be had, and the connection ends.
		return 0, fasthttp.ErrBodyTooLarge
	}
	if c.arrivals != nil && c.arrive() != nil {
		return 0, io.EOF // there is nothing for the server to say
	}
	for f := &c.framing; ; {
		if f.err != nil {
			return 0, f.err
		}
		var n, kept, used int
		var err error
		begins := f.stage == framingHead // what comes is not what is left of a body
		if n = copy(p, f.pending); n > 0 {
			kept, used = f.accept(p[:n])
			f.pending = f.pending[used:]
		} else {
			n, err = c.receive(p)
			if n > 0 && err == nil && begins && !c.began && f.fresh() && c.clients.fast != nil {
				if n, err = c.answerFast(p[:n]); n == 0 && err == nil {
					continue
				}
			}
			if kept, used = f.accept(p[:n]); used < n {
				f.pending = append([]byte(nil), p[used:n]...)
			}
		}
		if n > 0 && begins {
			c.began, c.between = true, false
		}
		if kept > 0 || err != nil || len(p) == 0 {
			return kept, err
		}
	}
}

// receive reads what the client sends next, before framing has looked at it.
func (c *clientConn) receive(p []byte) (int, error) {
	if c.pushed != nil && len(p) > 0 {
		n := copy(p, c.pushed)
		c.pushed = nil
		return n, nil
	}
	for {
		n, err := c.Conn.Read(p)
		if err == nil {
			if c.readIdle > 0 {
				c.moved = true
			}
			return n, nil
		}
		if n == 0 && isTimeout(err) {
			if c.extendRead() {
				continue
			}
			if c.left {
				err = io.EOF // that is no failure
			}
		}
		c.readErr = err
		if n == 0 && c.between {
			err = io.EOF // nor is this, and the server knows only of the requests since it was parked
		}
		return n, err
	}
}

// extendRead is asked when a read's deadline has fired, and reports whether that
// was one that has been moved meanwhile.
func (c *clientConn) extendRead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return false
	}
	if c.leaving && !c.began {
		return c.lastRead()
	}
	now := time.Now()
	if c.readIdle > 0 && c.moved {
		c.moved = false
		c.readWant = earlier(now.Add(c.readIdle), c.readEnd)
	}
	if c.between && !c.idleUntil.IsZero() {
		return c.extendQuiet(now)
	}
	if !c.readWant.IsZero() && !now.Before(c.readWant) {
		return false
	}
	c.readArmed = c.readWant
	return c.Conn.SetReadDeadline(c.readArmed) == nil
}

// SetReadDeadline implements net.Conn.
func (c *clientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readIdle = 0
	if !c.headerUntil.IsZero() {
		t, c.headerUntil = c.headerUntil, time.Time{}
	}
	c.readWant = t
	if c.between {
		t = c.untilQuiet(t)
	}
	if t.IsZero() || !c.readArmed.IsZero() && !t.Before(c.readArmed) {
		return nil
	}
	c.readArmed = t
	return c.Conn.SetReadDeadline(t)
}

// setReadIdle lets reads go on as long as bytes come at least every idle, until end,
// if there is to be one.
func (c *clientConn) setReadIdle(idle time.Duration, end time.Time) {
	_ = c.SetReadDeadline(earlier(time.Now().Add(idle), end)) // a closed connection says so when read
	c.readIdle, c.readEnd = idle, end
	c.moved = false
}

// earlier is t, or end if there is one and it comes first.
func earlier(t, end time.Time) time.Time {
	if !end.IsZero() && end.Before(t) {
		return end
	}
	return t
}

// SetWriteDeadline implements net.Conn.
func (c *clientConn) SetWriteDeadline(t time.Time) error {
	c.writeIdle = 0
	c.writeWant = t
	if c.tls == nil && (t.IsZero() || !c.writeArmed.IsZero() && !t.Before(c.writeArmed)) {
		return nil
	}
	c.writeArmed = t
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline implements net.Conn. The server calls it before it hands over an
// upgraded connection, which it must do even if that was cut meanwhile.
func (c *clientConn) SetDeadline(t time.Time) error {
	if c.closed.Load() {
		return nil
	}
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Write implements net.Conn for the server's own answers.
func (c *clientConn) Write(p []byte) (int, error) {
	switch {
	case c.ended, c.arrivals != nil:
		return 0, errConnEnded
	case c.placeholder:
		return c.dropPlaceholder(p)
	case c.held && string(p) == interimContinue:
		return len(p), nil
	}
	return c.send(p)
}

// dropPlaceholder drops the one header block at the beginning of p.
func (c *clientConn) dropPlaceholder(p []byte) (int, error) {
	c.placeholder = false
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 || !bytes.HasPrefix(p, []byte("HTTP/1.1 ")) {
		c.ended = true
		return 0, errConnEnded
	}
	end += 4
	if end == len(p) {
		return len(p), nil
	}
	n, err := c.send(p[end:])
	return n + end, err
}

// send writes all of p to the wire.
func (c *clientConn) send(p []byte) (int, error) {
	if c.writeIdle > 0 && (c.tls != nil || c.writeArmed.IsZero()) {
		c.writeArmed = time.Now().Add(c.writeIdle)
		if err := c.Conn.SetWriteDeadline(c.writeArmed); err != nil {
			return 0, err
		}
	}
	sent := 0
	for first := true; ; first = false {
		n, err := c.Conn.Write(p[sent:])
		sent += n
		// TLS can't go on after a write that timed out.
		if err != nil && c.tls != nil {
			c.stuck.Store(true)
		}
		if err == nil || c.tls != nil || !isTimeout(err) || !c.extendWrite(first || n > 0) {
			return sent, err
		}
	}
}

// extendWrite is extendRead's like. going is whether the client may still be
// taking bytes.
func (c *clientConn) extendWrite(going bool) bool {
	now := time.Now()
	switch {
	case c.writeIdle > 0 && going:
		c.writeArmed = now.Add(c.writeIdle)
	case c.writeIdle > 0:
		return false
	case c.writeWant.IsZero() || now.Before(c.writeWant):
		c.writeArmed = c.writeWant
	default:
		return false
	}
	return c.Conn.SetWriteDeadline(c.writeArmed) == nil
}

// answered makes the server's answer to the request, which it will write when
// the handler returns, disappear.
func (c *clientConn) answered() { c.placeholder = true }

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
