package gateway

import "errors"

var errChunkSyntax = errors.New("malformed chunked body")

// What may stand between the data of two chunks (extensions), and behind the
// last one (trailers): it is dropped, so it is not worth much.
const maxChunkOverhead = 8 << 10

// chunkFilter follows a chunked body (RFC 9112 §7.1) and leaves of it only what
// has one reading: sizes and data, without extensions and trailers.
type chunkFilter struct {
	bare bool // leave only the data

	state    chunkState
	left     int64 // of the chunk's data
	nibbles  int   // of the size
	overhead int
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart
	trailerLine
	trailerLF
	chunkEndLF
	chunkDone
)

func (f *chunkFilter) done() bool { return f.state == chunkDone }

// filter takes the next bytes of the body. It filters them in place: what is to
// be passed on is p[:kept]. used is less than len(p) only if the body has ended.
func (f *chunkFilter) filter(p []byte) (kept, used int, err error) {
	for used < len(p) && f.state != chunkDone {
		if f.state == chunkData {
			n := int(min(f.left, int64(len(p)-used)))
			if kept != used {
				copy(p[kept:], p[used:used+n])
			}
			kept += n
			used += n
			if f.left -= int64(n); f.left == 0 {
				f.state = chunkDataCR
			}
			continue
		}
		c := p[used]
		used++
		keep, err := f.framing(c)
		if err != nil {
			return kept, used, err
		}
		if keep && !f.bare {
			p[kept] = c
			kept++
		}
	}
	return kept, used, nil
}

// framing takes the next byte that is not data, and reports whether it is one to
// pass on.
func (f *chunkFilter) framing(c byte) (bool, error) {
	switch f.state {
	case chunkSize:
		return f.size(c)
	case chunkExtension:
		if c == '\r' {
			f.state = chunkSizeLF
			return true, nil
		}
		return false, f.skip(c)
	case chunkSizeLF:
		if f.state = chunkData; f.left == 0 {
			f.state, f.overhead = trailerStart, 0
		}
		return true, expect(c, '\n')
	case chunkDataCR:
		f.state = chunkDataLF
		return true, expect(c, '\r')
	case chunkDataLF:
		f.state, f.nibbles, f.overhead = chunkSize, 0, 0
		return true, expect(c, '\n')
	case trailerStart:
		if c == '\r' {
			f.state = chunkEndLF
			return true, nil
		}
		f.state = trailerLine
		return false, f.skip(c)
	case trailerLine:
		if c == '\r' {
			f.state = trailerLF
			return false, nil
		}
		return false, f.skip(c)
	case trailerLF:
		f.state = trailerStart
		return false, expect(c, '\n')
	default: // chunkEndLF
		if c != '\n' {
			return false, errChunkSyntax
		}
		f.state = chunkDone
		return true, nil
	}
}

func (f *chunkFilter) size(c byte) (bool, error) {
	var nibble byte
	switch {
	case '0' <= c && c <= '9':
		nibble = c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		nibble = c | 0x20 - 'a' + 10
	case f.nibbles > 0 && c == '\r':
		f.state = chunkSizeLF
		return true, nil
	case f.nibbles > 0 && c == ';':
		f.state = chunkExtension
		return false, nil
	default:
		return false, errChunkSyntax
	}
	if f.nibbles == 0 {
		f.left = 0
	}
	if f.nibbles++; f.nibbles > 15 {
		return false, errChunkSyntax
	}
	f.left = f.left<<4 | int64(nibble)
	return true, nil
}

// skip lets a byte of an extension or a trailer be dropped.
func (f *chunkFilter) skip(c byte) error {
	if f.overhead++; f.overhead > maxChunkOverhead || c < ' ' && c != '\t' || c == 0x7f {
		return errChunkSyntax
	}
	return nil
}

func expect(c, want byte) error {
	if c != want {
		return errChunkSyntax
	}
	return nil
}
