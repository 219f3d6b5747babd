package gateway

import (
	"time"

	"github.com/valyala/fasthttp"
)

// A request's memory is used again by a later one, which must not find anything in
// it: what is kept is room, never content.

// requestBuffers is the room that a request's work takes.
type requestBuffers struct {
	event  event
	text   []byte
	path   []byte             // that was decoded
	header []byte             // for the upstream
	answer []byte             // field lines for the client
	own    *fasthttp.Response // for an answer of ours on the fast path
}

// Room beyond these is not kept: requests of that size are rare.
const (
	maxKeptBytes  = 16 << 10
	maxKeptFields = 128
)

func (g *Gateway) newRequest(conn *clientConn, head requestHead) *request {
	r, _ := g.requests.Get().(*request)
	if r == nil {
		r = &request{buffers: requestBuffers{path: make([]byte, 0, 512), own: new(fasthttp.Response)}}
	}
	r.conn, r.head = conn, head
	r.event = &r.buffers.event
	r.event.start = time.Now()
	return r
}

// release takes the request back, but not if it was upgraded, because then its
// event is still to be recorded.
func (g *Gateway) release(r *request) {
	if r.out.done != nil {
		return
	}
	b, h := &r.buffers, &r.header
	if !r.forwarded {
		b.own.Reset()
	}
	clear(h.connection[:cap(h.connection)])
	clear(h.cookies[:cap(h.cookies)])
	*r = request{
		header:  clientHeader{connection: kept(h.connection, maxKeptFields), cookies: kept(h.cookies, maxKeptFields), forwardable: kept(h.forwardable, maxKeptFields)},
		buffers: requestBuffers{path: b.path, own: b.own, text: kept(b.text, maxKeptBytes), header: kept(b.header, maxKeptBytes), answer: kept(b.answer, maxKeptBytes)},
	}
	g.requests.Put(r)
}

// kept is the room of s, unless it is too much to keep.
func kept[E any](s []E, most int) []E {
	if cap(s) > most {
		return nil
	}
	return s[:0]
}

// copyText makes strings of what the client said of the target: the server's
// memory changes once the request is over, and so does ours.
func (r *request) copyText(target []byte) {
	b := append(append(r.buffers.text[:0], target...), r.header.host...)
	r.buffers.text = b
	text := string(b)
	r.target, r.host = text[:len(target)], text[len(target):]
}
