package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// errStale means that a connection taken from the pool turned out dead, or not
// to be trusted, before a byte was sent on it.
var errStale = errors.New("pooled connection is stale")

// upstreamConn is a connection to a target. It carries one exchange at a time
// and is used by one goroutine at a time for each direction.
type upstreamConn struct {
	net.Conn
	target *target
	reused bool   // it has carried an exchange before
	epoch  uint32 // when it became idle, in ticks of the pool's sweeper

	// armed is the read deadline that Conn was told. Deadlines are only set when
	// the one before has fired or is too far away (see flight.tick).
	armed time.Time
	// wrote is set once a write deadline is set; the same holds for those.
	wrote bool
	tls   bool

	// What follows is for round, which talks to the socket itself.
	raw     syscall.RawConn // nil: not possible here
	step    func(fd uintptr) bool
	stage   stage
	out, in []byte // to send; to receive into
	sent    int
	got     int
	err     error
	spare   [1]byte // for unread
}

type stage uint8

const (
	stageCheck stage = iota // nothing was done yet
	stageRead               // what could be sent was sent
)

// dial opens a connection to the target, with TLS if the target has it.
func (t *target) dial(ctx context.Context) (*upstreamConn, error) {
	conn, err := t.dialer.DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", t.addr, err)
	}
	c := &upstreamConn{Conn: conn, target: t}
	if tcp, ok := conn.(*net.TCPConn); ok {
		c.raw = rawSocket(tcp)
	}
	if t.tls == nil {
		c.step = c.exchange
		return c, nil
	}
	secure := tls.Client(conn, t.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS handshake with %s: %w", t.addr, err), conn.Close())
	}
	c.Conn, c.tls = secure, true
	return c, nil
}

// round sends out and, if in is not nil, waits for the first bytes of the
// answer. On a pooled connection it first makes sure that the connection is as
// it was left, which costs one system call, the one that Go's own read would
// spend on finding out that the answer is not there yet.
//
// It returns errStale if nothing was sent. If it returns a timeout, it is to be
// called again, with resume.
func (c *upstreamConn) round(out, in []byte) (int, error) {
	c.out, c.in = out, in
	c.stage, c.sent, c.got, c.err = stageCheck, 0, 0, nil
	return c.resume()
}

func (c *upstreamConn) resume() (int, error) {
	if c.raw == nil || c.tls {
		return c.roundPortably()
	}
	for {
		if err := c.raw.Read(c.step); err != nil {
			if c.stage == stageCheck && isTimeout(err) { // fired while the connection was idle
				if err = c.arm(time.Now().Add(watchDelay)); err == nil {
					continue
				}
			}
			return 0, err
		}
		if c.err != nil || c.sent == len(c.out) {
			return c.got, c.err
		}
		// The socket's buffer is full: wait for room as usual.
		n, err := c.write(c.out[c.sent:], defaultIdleTimeout)
		c.sent += n
		if err != nil || c.in == nil {
			return 0, err
		}
		c.stage = stageRead
	}
}

// roundPortably is resume for connections that round can't talk to directly.
func (c *upstreamConn) roundPortably() (int, error) {
	if c.stage == stageCheck {
		if c.reused && c.raw != nil && !quiet(c.raw) {
			return 0, errStale
		}
		c.stage = stageRead
		n, err := c.write(c.out, defaultIdleTimeout)
		if c.sent = n; err != nil {
			return 0, err
		}
	}
	if c.in == nil {
		return 0, nil
	}
	return c.Read(c.in)
}

// write writes all of p, as long as some of it is taken every idle. It returns
// errUpstreamTimeout otherwise.
func (c *upstreamConn) write(p []byte, idle time.Duration) (int, error) {
	if c.tls || !c.wrote {
		c.wrote = true
		if err := c.SetWriteDeadline(time.Now().Add(idle)); err != nil {
			return 0, err
		}
	}
	sent := 0
	for first := true; ; first = false {
		n, err := c.Conn.Write(p[sent:])
		sent += n
		if err == nil || !isTimeout(err) {
			return sent, err
		}
		// The deadline that fires first was set long ago. TLS can't go on after one.
		if c.tls || !first && n == 0 {
			return sent, fmt.Errorf("%w: takes no more of the request", errUpstreamTimeout)
		}
		if err := c.SetWriteDeadline(time.Now().Add(idle)); err != nil {
			return sent, err
		}
	}
}

// arm sets the read deadline.
func (c *upstreamConn) arm(t time.Time) error {
	c.armed = t
	return c.SetReadDeadline(t)
}

// unread reports whether TLS has taken more off the socket than was asked for:
// bytes behind the end of an answer, which nothing that looks at the socket would
// see, and which would be the beginning of the next one.
func (c *upstreamConn) unread() bool {
	if !c.tls {
		return false
	}
	// With a deadline in the past, a read returns what is there already.
	if c.arm(time.Unix(1, 0)) != nil {
		return true
	}
	c.armed = time.Time{}
	n, err := c.Read(c.spare[:])
	return n > 0 || !isTimeout(err)
}

// closedByPeer reports whether err means that the peer ended the connection.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
