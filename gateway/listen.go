package gateway

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// acceptPause is how long to wait after a failed Accept, and acceptTries how often,
// before it is taken for final.
const (
	acceptPause = 100 * time.Millisecond
	acceptTries = 600
)

// clientListener accepts connections as clientConns: the server that serves
// forward has to listen through one (clients.listen).
type clientListener struct {
	net.Listener
	clients  *clients
	arrivals *arrivals // nil: every connection is a client's as it is
	once     sync.Once
	err      error
}

// Close implements net.Listener, as often as it is called.
func (l *clientListener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

// Accept implements net.Listener. That there are no descriptors left, say, is no
// reason to stop for good, which is what the server would do.
func (l *clientListener) Accept() (net.Conn, error) {
	for failures := 0; ; {
		conn, err := l.Listener.Accept()
		if err != nil {
			if failures++; errors.Is(err, net.ErrClosed) || failures == acceptTries {
				return nil, err
			}
			time.Sleep(acceptPause)
			continue
		}
		failures = 0
		if c := l.admit(conn); c != nil && !c.awaitFirst() {
			return c, nil
		}
	}
}

// admit makes a connection a client's, unless it is turned away.
func (l *clientListener) admit(conn net.Conn) *clientConn {
	c := &clientConn{Conn: direct(conn), writeIdle: defaultIdleTimeout}
	c.tls, _ = conn.(*tls.Conn)
	if l.arrivals != nil && !l.arrivals.admit(c) {
		return nil
	}
	c.clients = l.clients
	l.clients.add(c)
	return c
}
