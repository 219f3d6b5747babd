package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

// ask sends the request, or as much of it as can be sent before there is an
// answer, and waits for the first bytes of that if the request is complete.
func (f *flight) ask() error {
	for {
		if err := f.connect(); err != nil {
			return err
		}
		err := f.send()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errStale):
			f.exchange.attempts--
		case f.mayRetry(err):
			f.retried = true
		case errors.Is(err, errUpstreamTimeout), errors.Is(err, errClientGone), f.ended() != nil:
			return err
		default:
			return fmt.Errorf("%w: %w", errUpstreamMalformed, noEOF(err))
		}
		f.abandon()
	}
}

func (f *flight) send() error {
	if f.request.streams() {
		_, err := f.conn.round(f.buf, nil)
		if err == nil && !f.expecting {
			f.startUpload()
		}
		return err
	}
	n, err := f.receive(f.in, true)
	f.w = n
	return err
}

// mayRetry reports whether a request that failed so may be sent on another
// connection.
func (f *flight) mayRetry(err error) bool {
	if !f.conn.reused || !closedByPeer(err) || f.ended() != nil { // a second try is never on a reused one
		return false
	}
	if f.conn.sent == 0 && !f.conn.tls {
		return true
	}
	switch f.out.method {
	case fasthttp.MethodGet, fasthttp.MethodHead, fasthttp.MethodOptions, fasthttp.MethodPut,
		fasthttp.MethodDelete, fasthttp.MethodTrace:
		return !f.request.any()
	}
	return false
}

// connect takes a connection from the pool or opens one: of the same target,
// always a new one, if the request is sent again.
func (f *flight) connect() error {
	var t *target
	if n := len(f.tried); f.retried && n > 0 {
		t = f.tried[n-1]
	}
	for failed := error(nil); ; t = nil {
		if t == nil {
			var err error
			if t, f.probe, err = f.upstream.pick(f.start, f.tried); err != nil {
				if failed != nil {
					return failed
				}
				return err
			}
		}
		f.exchange.target = t.addr
		f.exchange.attempts++
		if !f.retried {
			if conn := t.take(); conn != nil {
				return f.use(conn)
			}
		}
		conn, err := f.dial(t)
		if err == nil {
			return f.use(conn)
		}
		t.breaker.failed(time.Now(), f.probe)
		f.tried = append(f.tried, t)
		failed = fmt.Errorf("%w: %w", errUnreachable, err)
		if len(f.tried) == maxTargets {
			return failed
		}
	}
}

// use makes conn the one of this exchange, unless that was ended meanwhile.
func (f *flight) use(conn *upstreamConn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cause != nil {
		_ = conn.Close() // nothing was sent on it
		return f.cause
	}
	f.conn = conn
	conn.target.active.Add(1)
	return nil
}

func (f *flight) dial(t *target) (*upstreamConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), f.timeout.connect)
	defer cancel()
	return t.dial(ctx)
}

// abandon gives up the connection before anything has come back on it.
func (f *flight) abandon() {
	t := f.conn.target
	_ = f.conn.Close() // dead, or not to be trusted
	t.active.Add(-1)
	if f.probe {
		t.breaker.undecided()
	}
	f.mu.Lock()
	f.conn, f.probe = nil, false
	f.mu.Unlock()
	if f.retried {
		f.tried = append(f.tried[:0], t)
	}
}

// receive reads what the upstream sends next; asking also sends the request.
func (f *flight) receive(p []byte, asking bool) (n int, err error) {
	if asking {
		f.depart()
		n, err = f.conn.round(f.buf, p)
	} else {
		n, err = f.conn.Read(p)
	}
	for n == 0 {
		switch {
		case f.ended() != nil:
			return 0, f.ended()
		case err != nil && !isTimeout(err):
			return 0, err
		case err != nil:
			if err = f.tick(); err != nil {
				return 0, err
			}
		}
		if asking {
			n, err = f.conn.resume()
		} else {
			n, err = f.conn.Read(p)
		}
	}
	f.moved = true
	return n, nil
}

// depart starts the clock for the answer.
func (f *flight) depart() {
	f.sent = f.start
	if !f.conn.reused {
		f.sent = time.Now()
	}
	first := f.sent.Add(min(watchDelay, f.timeout.header))
	if f.conn.armed.IsZero() || f.conn.armed.After(first) {
		_ = f.conn.arm(first) // fails only if closed, which the next read says
	}
}

// tick is called when the read deadline of the upstream's connection fires. Such
// deadlines are set rarely, and mean nothing by themselves: how long the
// exchange may still wait is decided here, whether it is time to watch the client,
// and whether that may still have an answer without an end.
func (f *flight) tick() error {
	now := time.Now()
	if f.moved {
		f.moved = false
		f.movedAt = now
	}
	if f.endless && f.out.revoked() {
		return errRevoked
	}
	uploading := f.upload.active()
	var limit, next time.Time // when to give up, and when to look again
	switch {
	case f.expecting:
		if limit = f.sent.Add(continueDelay); !now.Before(limit) {
			return errContinueDelay
		}
		next = limit
	case !f.headAt.IsZero() && !uploading:
		limit = f.movedAt.Add(f.timeout.idle)
		next = now.Add(f.timeout.idle / 4)
	case uploading: // has its own limits
		f.movedAt = now
		next = now.Add(watchDelay)
	default:
		limit = f.upload.sentAt(f.start, f.sent).Add(f.timeout.header)
		next = limit
	}
	if !limit.IsZero() && !now.Before(limit) {
		return errUpstreamTimeout
	}
	if !f.watching && !uploading {
		if watch := f.start.Add(watchDelay); !now.Before(watch) {
			f.watching = true
			f.client.watch(f.clientLeft)
		} else if watch.Before(next) {
			next = watch
		}
	}
	if f.endless { // whether anything comes or not: what is revoked is not remembered for ever
		next = earlier(next, now.Add(revocationLook))
	}
	return f.conn.arm(earlier(next, limit))
}

func (f *flight) clientLeft() { f.abort(errClientGone) }

// abort ends the exchange from another goroutine: the upstream learns at once
// that nobody waits for it any more.
func (f *flight) abort(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cause == nil {
		f.cause = cause
	}
	if f.conn != nil {
		_ = f.conn.Close() // whoever uses it finds the cause
	}
}

func (f *flight) ended() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cause
}

// noEOF names the end of a connection in a place where it is an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
