package gateway

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

// The fast path. Nearly all requests are alike: they come whole, with a small body or
// none, and are to be forwarded or refused. To parse and answer one of these costs the
// server as much as everything that the gateway has to decide about it. So when the
// server waits for a request, such a one is answered before the server has seen it, on
// the same road. Whatever is special the server gets, as it came: endpoints of ours,
// upgrades, expectations, bodies that are still coming, old versions, the last requests of
// a drain, and all that has a mistake in it.

// errForServer is what the road says, before anything was done, to a request on the fast
// path that does not belong there.
var errForServer = errors.New("the server answers this")

// answerFast answers the requests at the beginning of p that the fast path is for. p is
// what has come while the server waits for a request; what is left is moved to its
// beginning. The error is the server's to know.
func (c *clientConn) answerFast(p []byte) (left int, err error) {
	rest := p
	for {
		used := c.clients.fast(c, rest)
		if c.ended {
			return 0, io.EOF
		}
		if rest = rest[used:]; used == 0 || len(rest) == 0 {
			break
		}
	}
	now := c.answeredAt
	if len(rest) == len(p) {
		if !c.idles {
			return len(p), nil
		}
		now = time.Now()
	}
	limit := c.clients.parking.idle
	if c.idles = len(rest) == 0; !c.idles { // the server takes it for set that this is a header's
		limit, c.between = c.clients.parking.header, false
	}
	return copy(p, rest), c.SetReadDeadline(now.Add(limit))
}

// fastPath answers the request at the beginning of p, and returns its length; 0 if it is
// the server's.
func (g *Gateway) fastPath(c *clientConn, p []byte) int {
	head, size := wholeHead(p)
	if size == 0 || g.draining.Load() {
		return 0
	}
	r := g.newRequest(c, head)
	defer g.release(r)
	r.come, r.answer = p[size:], r.buffers.own
	c.began, c.between = true, false
	if !g.walk(r) {
		return 0
	}
	c.answeredAt = r.event.end
	if !r.forwarded {
		r.reply()
		c.answeredAt = time.Now() // it was recorded before it was written
	}
	c.ended = c.ended || r.closing
	c.began, c.between, c.idleUntil = false, true, time.Time{}
	return size + int(r.body.length)
}

// wholeHead takes the head of a request off p. Its size is 0 if the head is not whole, or
// not of the form that nearly all have.
func wholeHead(p []byte) (head requestHead, size int) {
	line, _, _ := bytes.Cut(p, []byte("\r\n"))
	method, rest, _ := bytes.Cut(line, []byte{' '})
	target, version, ok := bytes.Cut(rest, []byte{' '})
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if !ok || end < 0 || string(version) != "HTTP/1.1" || len(target) == 0 || target[0] != '/' {
		return requestHead{}, 0
	}
	size = end + 4
	return requestHead{method: method, target: target, version: version, fields: p[len(line)+2 : size]}, size
}

// ordinary reports whether a request on the fast path belongs there, as far as it can be seen
// from the request itself, and takes its body, if it has one.
func (r *request) ordinary() bool {
	h := &r.header
	if r.method == "" || h.special || h.chunked {
		return false
	}
	if !h.contentLength {
		r.body = noBody(r.method)
		return true
	}
	switch r.method {
	case fasthttp.MethodGet, fasthttp.MethodHead: // is not expected to have one
		return false
	}
	if h.length == 0 || h.length > min(maxSmall, int64(len(r.come))) {
		return false
	}
	r.body = requestBody{kind: bodyLength, length: h.length, come: r.come[:h.length]}
	return true
}

// reply writes an answer of ours on the fast path.
func (r *request) reply() {
	r.answer.SkipBody = r.method == fasthttp.MethodHead
	_, err := r.answer.WriteTo(r.conn)
	r.closing = r.closing || err != nil || r.answer.ConnectionClose()
}
