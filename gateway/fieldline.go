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
	colon := bytes.IndexByte(line, ':')
	if colon < 1 {
		return nil, nil, nil, fmt.Errorf("%w: no name", errFieldSyntax)
	}
	name = line[:colon]
	for _, c := range name {
		if !tokenByte(c) {
			return nil, nil, nil, fmt.Errorf("%w: name is no token", errFieldSyntax)
		}
	}
	value = bytes.Trim(line[colon+1:], " \t")
	if !printable(value) {
		return nil, nil, nil, fmt.Errorf("%w: control character in a value", errFieldSyntax)
	}
	return name, value, rest, nil
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

// tokenByte reports whether c is a tchar of RFC 9110 §5.6.2: one bit for each of
// the first 64 characters, and of the next.
func tokenByte(c byte) bool {
	const (
		low  = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' | 0x3ff<<'0'
		high = 0x3ffffff<<('A'-64) | 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 0x3ffffff<<('a'-64) | 1<<('|'-64) | 1<<('~'-64)
	)
	if c < 64 {
		return low>>c&1 != 0
	}
	return c < 128 && uint64(high)>>(c-64)&1 != 0
}

// printable reports whether a value holds no control character but tabs. It looks
// at eight bytes at a time, since tokens are long.
func printable(value []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for len(value) >= 8 {
		w := binary.LittleEndian.Uint64(value)
		del := w ^ 0x7f*ones
		// The highest bit of a byte is set where one is below ' ', or is DEL.
		if ((w-' '*ones)&^w|(del-ones)&^del)&highs != 0 && !plain(value[:8]) {
			return false
		}
		value = value[8:]
	}
	return plain(value)
}

// plain is printable for few bytes.
func plain[S string | []byte](s S) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
