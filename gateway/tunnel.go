package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const tunnelBuffer = 8 << 10

// errTunnelClosed is why a tunnel ended that a drain has cut.
var errTunnelClosed = errors.New("the gateway closed the connection")

// tunnel is an upgraded connection: bytes in both directions, each of which ends
// by itself.
type tunnel struct {
	upstream *upstreamConn
	client   *clientConn
	idle     time.Duration
	begun    int64                                    // bytes that the client had before
	done     func(bytesIn, bytesOut int64, err error) // see outbound
	revoked  func() bool                              // whether the caller's token is; nil: nobody is known to call
	movedAt  atomic.Int64                             // when a byte came last, from either side: Unix time in ns

	mu    sync.Mutex
	ended bool
	cause error       // why it was cut, if it was
	look  *time.Timer // for the next look at revoked
}

// upgradable reports whether a connection may become what Upgrade asks for
// (RFC 9110 §7.8). HTTP itself, in the clear (h2c) or inside TLS, would carry
// requests that nobody has decided on, with whatever identity their client likes.
func upgradable(protocols []byte) bool {
	for protocol := range bytes.SplitSeq(bytes.ToLower(protocols), []byte{','}) {
		name, _, _ := bytes.Cut(bytes.Trim(protocol, " \t"), []byte{'/'})
		switch string(name) {
		case "h2", "h2c", "http", "tls":
			return false
		}
	}
	return true
}

// carry makes a tunnel of the two connections.
func (f *flight) carry() *tunnel {
	t := &tunnel{upstream: f.conn, client: f.client, idle: f.timeout.idle, begun: f.exchange.bytesOut, done: f.out.done}
	if caller, accounts := f.out.caller, f.out.accounts; caller != nil {
		t.revoked = func() bool { return accounts.Revoked(caller) }
	}
	f.client.carry(t)
	f.client.framing.stage = framingOpaque
	return t
}

// run is the tunnel's life. Reads of the client's side go through the server's
// buffer, which may hold what the client has sent right behind its request.
func (t *tunnel) run(client net.Conn) {
	if t.revoked != nil {
		t.mu.Lock()
		t.look = time.AfterFunc(revocationLook, t.askRevoked)
		t.mu.Unlock()
	}
	bytesIn, bytesOut, err := t.copyBoth(client)
	t.upstream.target.active.Add(-1)
	if t.done != nil {
		t.done(bytesIn, t.begun+bytesOut, err)
	}
}

// askRevoked ends the tunnel of a caller who could not ask for it any more: there is no
// next request to be refused.
func (t *tunnel) askRevoked() {
	if t.revoked() {
		t.cut(errRevoked)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.look.Reset(revocationLook)
	}
}

// copyBoth copies until both directions have ended or one has failed.
func (t *tunnel) copyBoth(client io.Reader) (bytesIn, bytesOut int64, err error) {
	t.movedAt.Store(time.Now().UnixNano())
	t.client.writeIdle = t.idle
	var upErr error
	up := make(chan struct{})
	go func() {
		defer close(up)
		bytesIn, upErr = t.copy(t.toUpstream, t.upstream, client, t.client)
	}()
	bytesOut, err = t.copy(t.client.send, t.client.Conn, t.upstream, t.upstream)
	<-up
	t.cut(nil)
	if t.cause != nil {
		return bytesIn, bytesOut, t.cause
	}
	return bytesIn, bytesOut, errors.Join(upErr, err)
}

func (t *tunnel) toUpstream(p []byte) (int, error) { return t.upstream.write(p, t.idle) }

// copy copies one direction to its end, and closes that direction of dst. A
// failure ends the other direction, too.
func (t *tunnel) copy(write func([]byte) (int, error), dst net.Conn, src io.Reader, waits readDeadline) (n int64, err error) {
	buf := make([]byte, tunnelBuffer)
	for {
		got, err := t.read(src, waits, buf)
		if got > 0 {
			n += int64(got)
			if _, err := write(buf[:got]); err != nil {
				t.cut(nil)
				return n, fmt.Errorf("tunnel: write: %w", err)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if half(dst) != nil { // then it ends as a whole
				t.cut(nil)
			}
			return n, nil
		default:
			t.cut(nil)
			return n, fmt.Errorf("tunnel: read: %w", err)
		}
	}
}

// half closes our direction of a side of the tunnel.
func half(dst net.Conn) error {
	if c, ok := dst.(*upstreamConn); ok {
		dst = c.Conn
	}
	return closeWrite(dst)
}

type readDeadline interface{ SetReadDeadline(time.Time) error }

// read waits as long as bytes come, from either side, at least every idle.
func (t *tunnel) read(src io.Reader, waits readDeadline, buf []byte) (int, error) {
	for {
		limit := time.Unix(0, t.movedAt.Load()).Add(t.idle)
		if err := waits.SetReadDeadline(limit); err != nil {
			return 0, err
		}
		n, err := src.Read(buf)
		if n > 0 {
			t.movedAt.Store(time.Now().UnixNano())
			return n, err
		}
		if err != nil && (!isTimeout(err) || t.movedAt.Load() <= limit.Add(-t.idle).UnixNano()) {
			return 0, err
		}
	}
}

// cut ends the tunnel. The first cause counts.
func (t *tunnel) cut(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	t.ended, t.cause = true, cause
	if t.look != nil {
		t.look.Stop()
	}
	_ = t.upstream.Close() // whoever uses them is told
	_ = t.client.Close()
}
