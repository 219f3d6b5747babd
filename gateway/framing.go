package gateway

import (
	"bytes"
	"fmt"
)

var errBlankLine = fmt.Errorf("%w: empty line before a request", errFieldFraming)

// framing follows what a client sends from one request to the next (RFC 9112 §2
// and §6), to the letter, and decides what of it the server may see:
//
//   - never the end of a head that two servers could frame in two ways: a bare line
//     feed, two lengths, a length beside a transfer coding;
//   - of a chunked body only sizes and data, and no size that is not hexadecimal
//     digits alone;
//   - never a byte of the next request before this one was read to its end: what
//     stands behind a refused request is not taken for one, and the answers to a
//     client that pipelines can't change places.
//
// The zero framing waits for a request.
type framing struct {
	stage   framingStage
	blank   bool   // an empty line came before it, which RFC 9112 §2.2 allows
	started bool   // the request line has come
	line    []byte // what has come of the line that is not whole yet
	isHead  bool   // the request line, of this request or the last, says HEAD

	sized   bool // there is a Content-Length
	chunked bool // there is a Transfer-Encoding
	left    int64
	chunks  chunkFilter

	pending []byte // came in one read with the end of the request before
	err     error  // why there is nothing more to be had
}

type framingStage uint8

const (
	framingHead framingStage = iota
	framingBody
	framingOpaque // an upgraded connection: there are no messages any more
)

// fresh reports whether nothing of a request has come yet.
func (f *framing) fresh() bool {
	return f.stage == framingHead && !f.started && !f.blank && len(f.line) == 0
}

// accept takes the bytes that come next: p[:kept] is what the server may see of
// p[:used], and what is left has to wait. An error is for the next read.
func (f *framing) accept(p []byte) (kept, used int) {
	switch f.stage {
	case framingOpaque:
		return len(p), len(p)
	case framingHead:
		var ended bool
		if used, ended = f.head(p); !ended {
			return used, used
		}
		kept = used
		f.stage = framingBody
	}
	rest := p[used:]
	if !f.chunked {
		n := int(min(f.left, int64(len(rest))))
		if f.left -= int64(n); f.left == 0 {
			f.next()
		}
		return kept + n, used + n
	}
	passed, taken, err := f.chunks.filter(rest)
	switch {
	case err != nil:
		f.err = err
	case f.chunks.done():
		f.next()
	}
	return kept + passed, used + taken
}

// next waits for another request.
func (f *framing) next() {
	*f = framing{line: f.line[:0], pending: f.pending, isHead: f.isHead}
}

// answeredWithoutBody reports whether the request that has come, or has begun to, is
// HEAD, so that whoever has sent it takes no body for a part of the answer.
func (f *framing) answeredWithoutBody() bool {
	return f.isHead || !f.started && bytes.HasPrefix(f.line, []byte("HEAD "))
}

// head goes through lines up to the empty one that ends the head. What of a line
// is not whole goes to the server, too, which has a limit for all of it. A line
// that is refused does not: its head never ends.
func (f *framing) head(p []byte) (used int, ended bool) {
	f.isHead = f.isHead && f.started
	for {
		n := bytes.IndexByte(p[used:], '\n')
		if n < 0 {
			f.line = append(f.line, p[used:]...)
			return len(p), false
		}
		line := p[used : used+n]
		if len(f.line) > 0 {
			f.line = append(f.line, line...)
			line = f.line
		}
		if ended, f.err = f.headLine(line); f.err != nil {
			if !f.started { // the server answers only what is more than empty lines
				p[used] = '?'
				used++
			}
			return used, false
		}
		f.line = f.line[:0]
		if used += n + 1; ended {
			return used, true
		}
	}
}

// headLine takes a line without its line feed.
func (f *framing) headLine(line []byte) (ended bool, err error) {
	if !f.started {
		f.isHead = bytes.HasPrefix(line, []byte("HEAD "))
	}
	line, ok := bytes.CutSuffix(line, []byte{'\r'})
	switch {
	case !ok:
		return false, fmt.Errorf("%w: line does not end in CRLF", errFieldSyntax)
	case !f.started && len(line) > 0:
		f.started = true
		return false, nil
	case !f.started && f.blank:
		return false, errBlankLine
	case !f.started:
		f.blank = true
		return false, nil
	case len(line) == 0:
		if f.sized && f.chunked {
			return false, fmt.Errorf("%w: both Content-Length and Transfer-Encoding", errFieldFraming)
		}
		return true, nil
	}
	return false, f.field(line)
}

// field looks at the two fields that frame a body. Whether a field is well formed
// at all is decided with the rest of the head, by clientHeader.
func (f *framing) field(line []byte) error {
	switch line[0] | 0x20 {
	case 'c':
		value, ok := cutField(line, "content-length:")
		if !ok {
			return nil
		}
		if f.sized || !digits(value) {
			return fmt.Errorf("%w: Content-Length", errFieldFraming)
		}
		f.sized, f.left = true, decimal(value)
	case 't':
		value, ok := cutField(line, "transfer-encoding:")
		if !ok {
			return nil
		}
		if f.chunked || !bytes.EqualFold(value, []byte("chunked")) {
			return fmt.Errorf("%w: Transfer-Encoding", errFieldFraming)
		}
		f.chunked = true
	}
	return nil
}

// cutField returns the value of a field line that begins with name and a colon.
func cutField(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.Trim(line[len(name):], " \t"), true
}
