package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"golang.org/x/crypto/acme"
)

// What a connection is refused for before its first request.
var (
	errHandshake        = errors.New("TLS handshake failed")
	errChallenge        = errors.New("was an ACME challenge")
	errTooMany          = errors.New("too many connections")
	errTooManyOfAddress = errors.New("too many connections of an address")
)

// arrivals is what connections have to go through before their first request:
// enough room, the PROXY header of a load balancer, and TLS, in that order. All that
// takes reading is done by the goroutine that serves the connection, and counts as
// part of the first request's header: the accept loop never waits for a client, and
// a client has one time limit, not three.
type arrivals struct {
	tls     *tls.Config // nil: plain HTTP
	proxy   ProxyProtocol
	trusts  func(netip.Addr) bool // believed about who is behind them
	room    *room
	refused *prometheus.CounterVec
	log     *slog.Logger
}

func newArrivals(cfg Config, trusts func(netip.Addr) bool) *arrivals {
	a := &arrivals{
		tls: cfg.TLS, proxy: cfg.ProxyProtocol, trusts: trusts, log: cfg.Log,
		room: newRoom(cfg.Connections, cfg.ConnectionsPerAddress),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "portcullis_connections_refused_total", Help: "Connections refused before their first request, by reason.",
		}, []string{"reason"}),
	}
	cfg.Metrics.MustRegister(a.refused)
	return a
}

// admit reports whether there is room for a connection that was accepted, and
// otherwise turns it away. What has to be read from it is left to arrive.
func (a *arrivals) admit(c *clientConn) bool {
	if !a.room.enter() {
		a.turnAway(c, errTooMany)
		return false
	}
	c.room = a.room
	peer := addrOf(c.RemoteAddr())
	if believed := a.trusts(peer); a.proxy == ProxyRequired || a.proxy == ProxyOptional && believed {
		c.proxied = &proxiedConn{Conn: c.Conn, required: a.proxy == ProxyRequired, believed: believed}
		c.Conn, c.arrivals = c.proxied, a
	} else if !a.settle(c) {
		a.turnAway(c, errTooManyOfAddress)
		return false
	}
	if a.tls != nil {
		c.tls = tls.Server(c.Conn, a.tls)
		c.Conn, c.arrivals = c.tls, a
	}
	c.arriving = c.arrivals != nil
	return true
}

// settle counts a connection for the address it comes from, now that this is known,
// and reports whether there is room.
func (a *arrivals) settle(c *clientConn) bool {
	addr := addrOf(c.RemoteAddr())
	if a.trusts(addr) { // many clients in one
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ok := true
	if c.room != nil { // it was not closed meanwhile
		c.counted, ok = c.room.join(addr)
	}
	return ok
}

// arrive does what is left to do for a connection when its first byte is to be read.
func (c *clientConn) arrive() error {
	a := c.arrivals
	c.arrivals = nil
	c.mu.Lock()
	limit := c.readArmed // the server's, for the header
	c.mu.Unlock()
	if err := c.Conn.SetWriteDeadline(limit); err != nil {
		return err
	}
	err := c.handshakes(a)
	c.mu.Lock()
	c.arriving = false
	c.mu.Unlock()
	if err == nil {
		return c.Conn.SetWriteDeadline(time.Time{})
	}
	a.count(c, err)
	var plain tls.RecordHeaderError
	switch {
	case errors.Is(err, errTooManyOfAddress) && a.tls == nil:
		a.answer(c, c.Conn, refuse(codeOverloaded, nil))
	case errors.As(err, &plain) && plain.Conn != nil && method(bytes.TrimRight(plain.RecordHeader[:3], " ")) != "":
		a.answer(c, plain.Conn, &refusal{code: codeMalformedRequest, detail: "This port speaks HTTPS."})
	}
	c.ended = true
	return err
}

// handshakes reads the PROXY header and does the TLS handshake, if there are to be.
func (c *clientConn) handshakes(a *arrivals) error {
	if c.proxied != nil {
		if err := c.proxied.readHeader(); err != nil {
			return err
		}
		if !a.settle(c) {
			return errTooManyOfAddress
		}
	}
	if c.tls == nil {
		return nil
	}
	if err := c.tls.HandshakeContext(context.Background()); err != nil { // its bound is the deadline
		return fmt.Errorf("%w: %w", errHandshake, err)
	}
	if c.tls.ConnectionState().NegotiatedProtocol == acme.ALPNProto {
		return errChallenge
	}
	return nil
}

// turnAway refuses a connection that was just accepted. It does not wait: so short an
// answer has room in the socket's buffer, and before a TLS handshake there is none.
func (a *arrivals) turnAway(c *clientConn, why error) {
	a.count(c, why)
	if a.tls == nil {
		a.answer(c, c.Conn, refuse(codeOverloaded, nil))
		if a.room.lingers(func() { _ = c.Close() }) {
			return
		}
	}
	c.linger = false
	_ = c.Close() // it is refused either way
}

// answer writes the refusal of a connection to the wire.
func (a *arrivals) answer(c *clientConn, wire net.Conn, r *refusal) {
	var answer fasthttp.Response
	writeRefusal(&answer, r, newRequestID())
	answer.Header.SetConnectionClose()
	_, _ = answer.WriteTo(wire) // who does not take it has left
	c.linger = true
}

// count records why a connection was refused. What a client can cause at will is not
// worth a line of a log that somebody reads.
func (a *arrivals) count(c *clientConn, err error) {
	if errors.Is(err, errChallenge) {
		return
	}
	reason := "tls_handshake"
	switch {
	case errors.Is(err, errTooMany):
		reason = "connections"
	case errors.Is(err, errTooManyOfAddress):
		reason = "connections_per_address"
	case errors.Is(err, errProxyHeader):
		reason = "proxy_header"
	}
	a.refused.WithLabelValues(reason).Inc()
	a.log.Debug("connection refused", "reason", reason, "ip", addrOf(c.RemoteAddr()).String(), "cause", err)
}

// addrOf is the address of an end of a connection.
func addrOf(end net.Addr) netip.Addr {
	if tcp, ok := end.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
