package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// nextField cuts the first field line off raw. name is nil at the empty line
// that ends the block. RFC 9112 §5: no space before the colon, no folding, CRLF.
func nextField(raw []byte) (name, value, rest []byte, err error) {
	end := bytes.IndexByte(raw, '\n')
	if end < 1 || raw[end-1] != '\r' {
		return nil, nil, nil, fmt.Errorf("%w: line does not end in CRLF", errFieldSyntax)
	}
	line, rest := raw[:end-1], raw[end+1:]
	if len(line) == 0 {
		return nil, nil, rest, nil
	}
	colon := 0
	for colon < len(line) && tokenByte(line[colon]) {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return nil, nil, nil, badName(line)
	}
	name = line[:colon]
	value = trimOWS(line[colon+1:])
	if !printable(value) {
		return nil, nil, nil, fmt.Errorf("%w: control character in a value", errFieldSyntax)
	}
	return name, value, rest, nil
}

// badName tells what is wrong with the name of a field line.
func badName(line []byte) error {
	if bytes.IndexByte(line, ':') < 1 {
		return fmt.Errorf("%w: no name", errFieldSyntax)
	}
	return fmt.Errorf("%w: name is no token", errFieldSyntax)
}

// eachField visits the fields of a block that clientHeader.read has accepted.
func eachField(accepted []byte, visit func(name, value []byte)) {
	for len(accepted) > 0 {
		name, value, rest, err := nextField(accepted)
		if err != nil || name == nil {
			return
		}
		visit(name, value)
		accepted = rest
	}
}

// exact reports whether name is the folded name itself but for case.
func exact(name, folded []byte) bool {
	for i, c := range name {
		if folded[i] == '-' && c != '-' {
			return false
		}
	}
	return true
}

// digits reports whether b is 1*DIGIT, short enough not to overflow.
func digits(b []byte) bool {
	if len(b) == 0 || len(b) > 18 {
		return false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// decimal is the number that digits has accepted.
func decimal(b []byte) int64 {
	n := int64(0)
	for _, c := range b {
		n = n*10 + int64(c-'0')
	}
	return n
}

// tokenByte reports whether c is a tchar of RFC 9110 §5.6.2: one bit for each of
// the first 64 characters, and of the next.
func tokenByte(c byte) bool {
	const (
		low  uint64 = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' | 0x3ff<<'0'
		high uint64 = 0x3ffffff<<('A'-64) | 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 0x3ffffff<<('a'-64) | 1<<('|'-64) | 1<<('~'-64)
	)
	if c < 64 {
		return low>>c&1 != 0
	}
	return c < 128 && high>>(c-64)&1 != 0
}

// printable reports whether a value holds no control character but tabs. It looks
// at eight bytes at a time, since tokens are long.
func printable(value []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	if len(value) < 8 {
		return plain(value)
	}
	// The highest bit of a byte is set where one is below ' ', or above '~'. Where it
	// is not so the arithmetic carries nothing from one byte to the next.
	var found uint64
	for i := 0; i < len(value); i += 8 {
		w := binary.LittleEndian.Uint64(value[min(i, len(value)-8):]) // the last one overlaps
		found |= (w - ' '*ones) | (w + ones)
	}
	return found&highs == 0 || plain(value)
}

// plain is printable byte by byte.
func plain[S string | []byte](s S) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// trimOWS cuts optional white space off both ends (RFC 9110 §5.6.3). Nothing is left
// of an empty value: nil.
func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	if len(b) == 0 {
		return nil
	}
	return b
}
