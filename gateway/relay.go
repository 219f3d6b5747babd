package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// errContinueDelay means that the upstream has not said whether it wants the body.
var errContinueDelay = errors.New("no word about the body")

// readHead receives the head of the final answer, and parses it into answer and
// reply. Informational answers are not passed on.
func (f *flight) readHead() error {
	seen := 0
	for interim := 0; interim <= maxInterim; {
		end, err := headEnd(f.in[f.r:f.w], seen)
		if err != nil {
			return fmt.Errorf("%w: %w", errUpstreamMalformed, err)
		}
		if end == 0 {
			seen = f.w - f.r
			if err := f.receiveHead(); err != nil {
				return err
			}
			continue
		}
		f.reply, err = f.answer.parse(f.reply[:0], f.in[f.r:f.r+end])
		if err != nil {
			return fmt.Errorf("%w: %w", errUpstreamMalformed, err)
		}
		f.r += end
		if status := f.answer.status; status >= 200 || status == fasthttp.StatusSwitchingProtocols {
			if f.out.edit != nil {
				f.reply = f.out.edit.apply(f.reply, f.out.host)
			}
			f.exchange.status = status
			f.headAt = f.start.Add(time.Since(f.start)) // one clock, where time.Now reads two
			f.movedAt = f.headAt
			f.exchange.head = f.headAt.Sub(f.start)
			return nil
		}
		interim, seen = interim+1, 0
		if f.answer.status == fasthttp.StatusContinue && f.expecting {
			if err := f.goAhead(); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%w: too many informational answers", errUpstreamMalformed)
}

// receiveHead receives more of the head.
func (f *flight) receiveHead() error {
	if f.w-f.r >= maxHead {
		return fmt.Errorf("%w: head is larger than %d bytes", errUpstreamMalformed, maxHead)
	}
	if f.w == len(f.in) {
		f.useLarge()
	}
	if f.sent.IsZero() {
		f.depart()
	}
	n, err := f.receive(f.in[f.w:], false)
	f.w += n
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errContinueDelay):
		return f.goAhead()
	case f.ended() != nil, errors.Is(err, errUpstreamTimeout):
		return err
	}
	return fmt.Errorf("%w: %w", errUpstreamMalformed, noEOF(err))
}

// relay sends the answer to the client: the head with what has come of the body
// in one write, and then each piece when it comes.
func (f *flight) relay() error {
	kind := f.answer.body(f.out.method == fasthttp.MethodHead)
	body := answerBody{kind: kind, left: f.answer.length, closes: f.http10}
	body.chunks.bare = f.http10
	f.answer.close = f.answer.close || kind == bodyUntilClose
	piece, done, err := body.next(f)
	if err != nil {
		return err
	}
	f.finishHead(kind)
	f.exchange.answered = true
	const oneWrite = smallBuffer + smallBuffer/4
	if len(f.reply)+len(piece) <= oneWrite {
		f.reply = append(f.reply, piece...)
		err = f.reach(f.reply)
	} else if err = f.reach(f.reply); err == nil {
		err = f.reach(piece)
	}
	f.exchange.bytesOut = int64(len(piece))
	if err == nil && !done {
		err = f.relayRest(&body)
	}
	return err
}

// relayRest sends what comes of the body, piece by piece.
func (f *flight) relayRest(body *answerBody) error {
	first := f.headAt.Add(f.timeout.idle)
	if f.endless = body.kind != bodyLength && f.out.caller != nil; f.endless {
		first = earlier(first, f.headAt.Add(revocationLook))
	}
	if f.conn.armed.After(first) {
		_ = f.conn.arm(first) // fails only if closed, which the next read says
	}
	fast := body.kind == bodyLength && body.left > int64(len(f.in))
	for {
		if f.r, f.w = 0, 0; fast {
			f.useLarge()
		}
		piece, done, err := f.nextPiece(body)
		if err != nil {
			return err
		}
		if err := f.reach(piece); err != nil {
			return err
		}
		f.exchange.bytesOut += int64(len(piece))
		if done {
			return nil
		}
		fast = f.w == len(f.in)
	}
}

// nextPiece receives what comes next of the body.
func (f *flight) nextPiece(body *answerBody) (piece []byte, done bool, err error) {
	f.w, err = f.receive(f.in, false)
	switch {
	case err == nil:
		return body.next(f)
	case errors.Is(err, io.EOF) && body.kind == bodyUntilClose:
		return body.end(), true, nil
	case f.ended() != nil, errors.Is(err, errUpstreamTimeout), errors.Is(err, errRevoked):
		return nil, false, err
	}
	return nil, false, fmt.Errorf("%w: answer is not whole: %w", errUpstreamMalformed, noEOF(err))
}

// reach writes to the client.
func (f *flight) reach(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := f.client.send(p); err != nil {
		return fmt.Errorf("%w: %w", errClientGone, err)
	}
	return nil
}

// finishHead adds to the answer's head what is ours to say.
func (f *flight) finishHead(kind bodyKind) {
	h := append(f.reply, f.out.answerHeader...)
	f.closing = f.closing || f.expecting || f.answer.close && f.upload.partial()
	switch {
	case kind == bodyUntilClose, kind == bodyChunked:
		if f.http10 {
			f.closing = true
		} else {
			h = append(h, "Transfer-Encoding: chunked\r\n"...)
		}
	case f.answer.chunked && !f.http10 && f.out.method == fasthttp.MethodHead: // as it would be for GET
		h = append(h, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case f.closing:
		h = append(h, "Connection: close\r\n"...)
	case f.http10:
		h = append(h, "Connection: keep-alive\r\n"...)
	}
	f.reply = append(h, "\r\n"...)
}

// answerBody follows an answer's body to its end and frames it for the client.
type answerBody struct {
	kind   bodyKind
	left   int64 // of bodyLength
	chunks chunkFilter
	closes bool   // the client knows the end of a body without length by the end of the connection
	frame  []byte // for bodyUntilClose
}

// next takes what has been received and returns what of it goes to the client.
// done means that the body has ended.
func (b *answerBody) next(f *flight) (piece []byte, done bool, err error) {
	received := f.in[f.r:f.w]
	switch b.kind {
	case bodyNone:
		return nil, true, nil
	case bodyLength:
		n := int(min(b.left, int64(len(received))))
		f.r += n
		b.left -= int64(n)
		return received[:n], b.left == 0, nil
	case bodyChunked:
		kept, used, err := b.chunks.filter(received)
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", errUpstreamMalformed, err)
		}
		f.r += used
		return received[:kept], b.chunks.done(), nil
	}
	f.r = f.w
	if b.closes || len(received) == 0 {
		return received, false, nil
	}
	b.frame = strconv.AppendInt(b.frame[:0], int64(len(received)), 16)
	b.frame = append(b.frame, "\r\n"...)
	b.frame = append(b.frame, received...)
	b.frame = append(b.frame, "\r\n"...)
	return b.frame, false, nil
}

// end returns what tells the client that a body without length has ended.
func (b *answerBody) end() []byte {
	if b.closes {
		return nil
	}
	return []byte("0\r\n\r\n")
}

// switchProtocols passes on the answer 101, if the client has asked for it.
func (f *flight) switchProtocols() error {
	if !f.upgrading() || f.answer.http10 || !f.answer.upgradeListed ||
		!bytes.EqualFold(f.answer.upgrade, []byte(f.out.upgrade)) {
		return fmt.Errorf("%w: switches to a protocol that was not asked for", errUpstreamMalformed)
	}
	h := append(f.reply, f.out.answerHeader...)
	h = append(h, "Connection: Upgrade\r\nUpgrade: "...)
	h = append(h, f.answer.upgrade...)
	h = append(h, "\r\n\r\n"...)
	f.reply = append(h, f.in[f.r:f.w]...) // and what the upstream has said behind it
	f.exchange.answered = true
	if err := f.reach(f.reply); err != nil {
		return err
	}
	f.exchange.upgraded = true
	f.exchange.bytesOut = int64(f.w - f.r)
	return nil
}
