package gateway

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"portcullis/identity"
)

// What forward fails with; the causes are wrapped.
var (
	errNoTarget          = errors.New("no healthy target")                   // 503
	errUnreachable       = errors.New("upstream cannot be reached")          // 502
	errUpstreamMalformed = errors.New("upstream gave no well-formed answer") // 502
	errUpstreamTimeout   = errors.New("upstream is too slow")                // 504
	errBodyTooLarge      = errors.New("request body is too large")           // 413
	errBodyTimeout       = errors.New("request body does not arrive")        // 408, and close
	errBadBody           = errors.New("request body is malformed")           // 400, and close
	errClientGone        = errors.New("client has left")                     // nobody is there to answer
	errRevoked           = errors.New("the caller's token was revoked")      // in the middle of an answer, or of a tunnel
)

// routeTimeouts bounds the waits of an exchange. A zero field is the default.
type routeTimeouts struct {
	connect time.Duration // for a connection to a target, with TLS; 5 s by default
	header  time.Duration // from the end of the request to the head of the answer; 30 s by default
	idle    time.Duration // for the next byte of a body or tunnel, either way; 60 s by default
	body    time.Duration // from the beginning of the request to the end of its body; no limit by default
}

func (t routeTimeouts) withDefaults() routeTimeouts {
	if t.connect <= 0 {
		t.connect = 5 * time.Second
	}
	if t.header <= 0 {
		t.header = 30 * time.Second
	}
	if t.idle <= 0 {
		t.idle = defaultIdleTimeout
	}
	return t
}

const (
	// A client that leaves is noticed when an exchange has lasted this long.
	watchDelay = 100 * time.Millisecond
	// An upstream that was asked "Expect: 100-continue" and says nothing for
	// this long gets the body anyway (RFC 9110 §10.1.1).
	continueDelay = time.Second
	// A request body whose answer is already given may take this long to end.
	uploadGrace = 50 * time.Millisecond

	smallBuffer = 16 << 10
	largeBuffer = 128 << 10 // a large body costs a third less than with 64 KiB
	maxHead     = 64 << 10  // of an answer

	maxInterim = 16   // informational answers before the final one
	maxTargets = 3    // targets to try to connect to
	maxSmall   = 8192 // of a request body that is sent with the head in one write
)

// outbound is one request as the upstream will see it.
//
// header holds complete field lines ("Name: value\r\n"…) that have already been
// stripped and to which our own have been added last. It contains neither
// hop-by-hop nor framing fields (Content-Length, Transfer-Encoding, Connection,
// Upgrade, Expect, TE, Trailer, Keep-Alive): those are forward's to write.
type outbound struct {
	method, target, host string // target: canonical path plus the query as sent
	header               []byte
	upgrade              string // the protocol asked for ("websocket"), or ""
	answerHeader         []byte // field lines to add to the answer
	edit                 *answerEdit
	timeout              routeTimeouts
	maxBody              int64     // bytes; 0 means no limit
	start                time.Time // when the request began; zero: now

	// caller is whom the answer is for, if that is known. What has no end of its own, a
	// tunnel or an answer without a length, ends when accounts says that what proved
	// them is revoked: there is no next request to be refused.
	caller   *identity.Principal
	accounts *identity.Service

	// done, if set, is called once, when a connection that was upgraded
	// (exchange.upgraded) has ended. Any other exchange is over when forward
	// returns.
	done func(bytesIn, bytesOut int64, err error)
}

// revocationLook is how often it is asked whether the caller may still have what has no end.
const revocationLook = time.Second

func (o *outbound) revoked() bool { return o.caller != nil && o.accounts.Revoked(o.caller) }

// exchange tells what came of a request, for the record of it.
type exchange struct {
	target   string        // the target that was tried last
	attempts int           // connections on which it was sent, or that could not be opened
	status   int           // of the upstream's answer; 0 without one
	head     time.Duration // until the head of the answer had come
	bytesIn  int64         // of the request's body
	bytesOut int64         // of the answer's body, as it went over the wire
	answered bool          // bytes of an answer have gone out: an error can only be logged
	upgraded bool          // see outbound.done
	closing  bool          // the client's connection ends with this answer
}

// inbound is the client's side of an exchange.
type inbound struct {
	conn    *clientConn
	http10  bool // the client speaks HTTP/1.0
	closing bool // its connection ends with this answer
	body    requestBody
}

// flight is one request under way.
type flight struct {
	upstream *upstream
	client   *clientConn
	out      outbound
	timeout  routeTimeouts
	http10   bool // see inbound
	closing  bool

	exchange exchange
	tunnel   *tunnel // what the connections have become; nil: nothing

	request requestBody
	buf     []byte // the request's head, and the beginning or all of its body
	upload  upload

	conn  *upstreamConn // changes under mu only
	probe bool          // the breaker waits for the outcome
	tried []*target

	in     []byte // small or large; in[r:w] has been received and not used
	small  *[smallBuffer]byte
	large  *[largeBuffer]byte // nil unless needed
	r, w   int
	answer answerHead
	reply  []byte // the answer's head, and the beginning or all of its body

	start     time.Time
	sent      time.Time // when the request was sent, or began to be
	headAt    time.Time // when the answer's head had come; zero before
	movedAt   time.Time // see tick
	moved     bool
	watching  bool
	expecting bool // the upstream was asked whether it wants the body
	endless   bool // the answer has no length, and is for a caller: see outbound
	retried   bool

	mu    sync.Mutex
	cause error // why somebody else ended the exchange
}

// forward sends the request to one of the upstream's targets and the answer to
// the client. When it returns without an error, the answer has been written. When
// it returns one, either nothing has been written and the caller answers, or the
// connection is cut (exchange.answered). A tunnel, if there is one, is the caller's to
// run.
//
// Nothing is sent twice, with one exception: an idempotent request without a
// body whose pooled connection turns out to have been closed by the target is
// sent once more, on a new connection (RFC 9112 §9.3.1).
func (u *upstream) forward(in *inbound, out *outbound) (exchange, *tunnel, error) {
	f, _ := u.flights.Get().(*flight)
	if f == nil {
		f = &flight{small: new([smallBuffer]byte)}
	}
	f.begin(u, in, out)
	err := caught(f.fly) // only land knows what is to be ended, and whether the client can still be told
	if err = f.land(err); err != nil {
		err = fmt.Errorf("forward to %s: %w", u.name, err)
	}
	result, tunnel := f.exchange, f.tunnel
	f.release()
	return result, tunnel, err
}

func (f *flight) begin(u *upstream, in *inbound, out *outbound) {
	client := in.conn
	f.upstream, f.client, f.out = u, client, *out
	f.http10, f.closing, f.request = in.http10, in.closing, in.body
	f.in = f.small[:]
	f.timeout = out.timeout.withDefaults()
	client.readErr = nil
	client.linger = false
	client.writeIdle = f.timeout.idle
	if f.start = out.start; f.start.IsZero() {
		f.start = time.Now()
	}
}

// release forgets everything about the request and keeps the buffers.
func (f *flight) release() {
	u := f.upstream
	if f.large != nil {
		u.large.Put(f.large)
	}
	clear(f.tried)
	clear(f.answer.connection)
	buf, reply, tried, connection := f.buf[:0], f.reply[:0], f.tried[:0], f.answer.connection[:0]
	if cap(buf) > 2*smallBuffer {
		buf = nil
	}
	if cap(reply) > 2*smallBuffer {
		reply = nil
	}
	*f = flight{small: f.small, buf: buf, reply: reply, tried: tried}
	f.answer.connection = connection
	u.flights.Put(f)
}

// fly does the exchange.
func (f *flight) fly() error {
	if err := f.prepare(); err != nil {
		return err
	}
	if err := f.ask(); err != nil {
		return err
	}
	if err := f.readHead(); err != nil {
		return err
	}
	if f.answer.status == fasthttp.StatusSwitchingProtocols {
		return f.switchProtocols()
	}
	return f.relay()
}

// land ends what the exchange began: the upload, the watch, and the use of the
// connections.
func (f *flight) land(err error) error {
	if cause := f.ended(); cause != nil && err != nil {
		err = cause // asked before the upload is ended, which is not its fault
	}
	uploaded := f.endUpload(err == nil)
	if f.watching {
		f.client.unwatch()
	}
	f.exchange.bytesIn = f.upload.bytes
	f.recordOutcome(err)
	switch {
	case f.conn == nil:
	case f.exchange.upgraded: // goes on as a tunnel
	case err == nil && uploaded && !f.answer.close && f.r == f.w && !f.expecting && f.ended() == nil && !f.conn.unread():
		f.conn.target.put(f.conn, f.upstream.epoch.Load(), f.upstream.idleConns)
	default:
		_ = f.conn.Close() // whatever it has to say about it, it is not used again
	}
	if !uploaded || f.expecting {
		f.client.linger = true
		f.closing = true
	}
	if f.conn != nil && !f.exchange.upgraded {
		f.conn.target.active.Add(-1)
	}
	switch {
	case f.exchange.upgraded:
		f.tunnel = f.carry()
	case err != nil && (f.exchange.answered || errors.Is(err, errClientGone)):
		f.client.cut(f.exchange.answered && f.http10)
	}
	f.exchange.closing = f.closing
	return err
}

// recordOutcome tells the target's breaker.
func (f *flight) recordOutcome(err error) {
	if f.conn == nil {
		return
	}
	b := &f.conn.target.breaker
	switch {
	case err == nil || f.exchange.status != 0 && !errors.Is(err, errUpstreamMalformed):
		b.succeeded()
	case errors.Is(err, errUpstreamMalformed):
		b.failed(time.Now(), f.probe)
	case f.probe:
		b.undecided()
	}
}

// useLarge moves on to a large buffer, for a head that is large or a body that
// comes fast.
func (f *flight) useLarge() {
	if f.large == nil {
		f.large = f.upstream.largeBuffer()
	}
	f.w = copy(f.large[:], f.in[f.r:f.w])
	f.r = 0
	f.in = f.large[:]
}

func (u *upstream) largeBuffer() *[largeBuffer]byte {
	b, _ := u.large.Get().(*[largeBuffer]byte)
	if b == nil {
		b = new([largeBuffer]byte)
	}
	return b
}
