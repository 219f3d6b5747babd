package gateway

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// requestBody is the body of the client's request as it came.
type requestBody struct {
	kind   bodyKind // none, length or chunked
	length int64    // of bodyLength; may be 0
	stream io.Reader
	whole  bool   // it is in the flight's buf
	come   []byte // all of it, if that has come with the head
}

// requestBodyOf is the body of a request that the server has read the head of.
func requestBodyOf(ctx *fasthttp.RequestCtx, method string) requestBody {
	b := requestBody{stream: ctx.RequestBodyStream()}
	switch length := ctx.Request.Header.ContentLength(); {
	case b.stream == nil: // the length is then a default of fasthttp's: 0 or -2
		return noBody(method)
	case length >= 0:
		b.kind, b.length, b.whole = bodyLength, int64(length), length == 0
	default:
		b.kind = bodyChunked
	}
	return b
}

// noBody is the body of a request that has none.
func noBody(method string) requestBody {
	b := requestBody{whole: true}
	switch method {
	case fasthttp.MethodPost, fasthttp.MethodPut, fasthttp.MethodPatch:
		b.kind = bodyLength // RFC 9110 §8.6
	}
	return b
}

// any reports whether there is a body of at least, perhaps, a byte.
func (b *requestBody) any() bool { return b.kind == bodyChunked || b.length > 0 }

// streams reports whether some of the body has yet to come.
func (b *requestBody) streams() bool { return b.any() && !b.whole }

// upload is the request's body on its way, in a goroutine of its own.
type upload struct {
	done  chan struct{} // closed at its end; nil if there is none
	bytes int64         // of the body; the upload's until done
	whole bool          // all of it was sent; the upload's until it has ended
	ended atomic.Int64  // when, in ns after the flight's start; 0 before
}

func (u *upload) active() bool { return u.done != nil && u.ended.Load() == 0 }

// partial reports whether some of the body has not been sent, so far or for good.
func (u *upload) partial() bool { return u.done != nil && (u.active() || !u.whole) }

// sentAt returns when the request was complete: after start, if there was an
// upload, and otherwise at.
func (u *upload) sentAt(start, at time.Time) time.Time {
	if u.done == nil {
		return at
	}
	return start.Add(time.Duration(u.ended.Load()))
}

// prepare writes the request's head to buf, with as much of the body as is there
// already.
func (f *flight) prepare() error {
	b := &f.request
	if f.out.maxBody > 0 && b.length > f.out.maxBody {
		return errBodyTooLarge
	}
	f.expecting = f.client.held && b.any()
	if !f.expecting {
		f.client.held = false // of a request without a body
	}
	f.appendHead()
	switch {
	case b.come != nil:
		f.buf = append(f.buf, b.come...)
		f.upload.bytes, b.whole = b.length, true
	case b.kind == bodyLength && b.streams() && !f.expecting:
		return f.readFirst()
	}
	return nil
}

// appendHead writes the request's head to buf.
func (f *flight) appendHead() {
	out := &f.out
	h := append(f.buf[:0], out.method...)
	h = append(h, ' ')
	h = append(h, out.target...)
	h = append(h, " HTTP/1.1\r\nHost: "...)
	h = append(h, out.host...)
	h = append(h, "\r\n"...)
	h = append(h, out.header...)
	switch f.request.kind {
	case bodyChunked:
		h = append(h, "Transfer-Encoding: chunked\r\n"...)
	case bodyLength:
		h = append(h, "Content-Length: "...)
		h = strconv.AppendInt(h, f.request.length, 10)
		h = append(h, "\r\n"...)
	}
	if f.expecting {
		h = append(h, "Expect: 100-continue\r\n"...)
	}
	if f.upgrading() {
		h = append(h, "Connection: Upgrade\r\nUpgrade: "...)
		h = append(h, out.upgrade...)
		h = append(h, "\r\n"...)
	}
	f.buf = append(h, "\r\n"...)
}

func (f *flight) upgrading() bool { return f.out.upgrade != "" && !f.request.any() && !f.http10 }

// readFirst reads what the server has fetched of the body already: all of it if
// it is small, so that it goes out with the head.
func (f *flight) readFirst() error {
	b := &f.request
	head := len(f.buf)
	first := int(min(b.length, maxSmall))
	for len(f.buf)-head < first {
		f.buf = append(f.buf, 0)[:len(f.buf)] // room for a byte at least
		room := f.buf[len(f.buf):min(cap(f.buf), head+first)]
		n, err := b.stream.Read(room)
		f.buf = f.buf[:len(f.buf)+n]
		if n < len(room) && err != nil {
			return f.bodyError(err)
		}
		if b.length > maxSmall {
			break // the rest may be a while
		}
	}
	f.upload.bytes = int64(len(f.buf) - head)
	b.whole = f.upload.bytes == b.length
	return nil
}

// startUpload sends the rest of the body while the answer is waited for.
func (f *flight) startUpload() {
	var end time.Time
	if f.timeout.body > 0 {
		end = f.start.Add(f.timeout.body)
	}
	f.client.setReadIdle(f.timeout.idle, end)
	f.upload.done = make(chan struct{})
	go func() {
		defer close(f.upload.done)
		err := caught(f.copyBody)
		f.upload.whole = err == nil
		f.upload.ended.Store(int64(time.Since(f.start)))
		// Whether the upstream has stopped reading because it has answered, the
		// one who reads the answer finds out.
		if err != nil && !errors.Is(err, errUploadRefused) {
			f.abort(err)
		}
	}()
}

// errUploadRefused means that the upstream did not take all of the body.
var errUploadRefused = errors.New("upstream takes no more of the request")

// Room for the frame of a chunk of at most largeBuffer: "1ffff\r\n" and "\r\n".
const (
	chunkPrefix = 7
	chunkSuffix = 2
)

// copyBody sends what is left of the body, framed as it came.
func (f *flight) copyBody() error {
	buf := f.upstream.largeBuffer()
	defer f.upstream.large.Put(buf)
	b := &f.request
	room := buf[chunkPrefix : len(buf)-chunkSuffix]
	for b.kind == bodyChunked || f.upload.bytes < b.length {
		n, err := b.stream.Read(room)
		if n > 0 {
			if f.upload.bytes += int64(n); f.out.maxBody > 0 && f.upload.bytes > f.out.maxBody {
				return errBodyTooLarge
			}
			piece := room[:n]
			if b.kind == bodyChunked {
				piece = frameChunk(buf, n)
			}
			if _, err := f.conn.write(piece, f.timeout.idle); err != nil {
				return fmt.Errorf("%w: %w", errUploadRefused, err)
			}
		}
		switch {
		case err == nil:
		case err == io.EOF && b.kind == bodyChunked:
			if _, err := f.conn.write([]byte("0\r\n\r\n"), f.timeout.idle); err != nil {
				return fmt.Errorf("%w: %w", errUploadRefused, err)
			}
			return nil
		case err != io.EOF || f.upload.bytes < b.length:
			return f.bodyError(err)
		}
	}
	return nil
}

// frameChunk puts the frame of a chunk (RFC 9112 §7.1) around the n bytes at
// buf[chunkPrefix:].
func frameChunk(buf *[largeBuffer]byte, n int) []byte {
	var line [chunkPrefix]byte
	size := append(strconv.AppendInt(line[:0], int64(n), 16), '\r', '\n')
	begin, end := chunkPrefix-len(size), chunkPrefix+n
	copy(buf[begin:], size)
	buf[end], buf[end+1] = '\r', '\n'
	return buf[begin : end+chunkSuffix]
}

// bodyError says why reading the body has failed: what the connection says
// about it counts more than what was made of it.
func (f *flight) bodyError(err error) error {
	switch cause := f.client.readErr; {
	case isTimeout(cause):
		return fmt.Errorf("%w: %w", errBodyTimeout, cause)
	case cause != nil:
		return fmt.Errorf("%w: %w", errClientGone, cause)
	}
	return fmt.Errorf("%w: %w", errBadBody, err)
}

// endUpload ends the upload, if there is one, and reports whether the request's
// body has been sent as a whole. patient is for an exchange that has gone well:
// the answer may have overtaken the end of the body by a hair.
func (f *flight) endUpload(patient bool) bool {
	if f.upload.done == nil {
		return f.request.whole
	}
	if patient && f.upload.active() {
		grace := time.NewTimer(uploadGrace)
		select {
		case <-f.upload.done:
		case <-grace.C:
		}
		grace.Stop()
	}
	if f.upload.active() {
		f.client.abortRead()
		_ = f.conn.Close() // ends a write
	}
	<-f.upload.done
	return f.upload.whole
}

// goAhead tells the client, who has been waiting for it, to send the body.
func (f *flight) goAhead() error {
	if f.watching {
		f.client.unwatch() // what comes now is the body
		f.watching = false
	}
	f.expecting = false
	f.client.held = false
	if _, err := f.client.send([]byte(interimContinue)); err != nil {
		return fmt.Errorf("%w: %w", errClientGone, err)
	}
	f.startUpload()
	return nil
}
