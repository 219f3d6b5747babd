package gateway

import (
	"errors"
	"unicode"
	"unicode/utf8"
)

// Refusals of a path that has more than one reading.
var (
	errPathForm     = errors.New("not an absolute path")
	errPathSegment  = errors.New("empty, dot or parameter segment")
	errPathByte     = errors.New("character that must be percent-encoded")
	errPathEncoding = errors.New("percent-encoding that is malformed, needless or ambiguous")
)

// canonicalPath accepts a path (RFC 3986 §3.3, without the query) that every
// server reads in the same way, and returns it decoded, which is what policy and
// routes are written in; the caller forwards the very bytes it has checked. It
// repairs nothing, because what is repaired here is repaired differently
// elsewhere. Refused are:
//
//   - anything but an absolute path; empty segments, "." and "..", but for an
//     empty last one (a trailing slash);
//   - bytes that may not stand in a path (controls, space, "\", non-ASCII), and
//     ";", since servers disagree whether what follows belongs to the segment;
//   - percent-encodings that are malformed, in lower case, of a character that
//     needs none (RFC 3986 §2.3), of "/", "\", ";" or a control character, of
//     invalid UTF-8 or an invisible rune, or of a "%" that a second decoding
//     would take for the beginning of another encoding.
//
// dst is the buffer to decode into when there is something to decode.
func canonicalPath(dst, path []byte) ([]byte, error) {
	if len(path) == 0 || path[0] != '/' {
		return nil, errPathForm
	}
	encoded, start := false, 1
	for i := 1; i < len(path); i++ {
		switch c := path[i]; {
		case c == '/':
			if badSegment(path[start:i], false) {
				return nil, errPathSegment
			}
			start = i + 1
		case c == '%':
			encoded = true
		case !pathByte(c):
			return nil, errPathByte
		}
	}
	if badSegment(path[start:], true) {
		return nil, errPathSegment
	}
	if !encoded {
		return path, nil
	}
	return decodePath(dst, path)
}

// badSegment reports whether a segment is one that servers collapse or resolve.
func badSegment(s []byte, last bool) bool {
	switch len(s) {
	case 0:
		return !last
	case 1:
		return s[0] == '.'
	case 2:
		return s[0] == '.' && s[1] == '.'
	}
	return false
}

// decodePath decodes percent-encodings, each of which must be the only way to
// write its character.
func decodePath(dst, path []byte) ([]byte, error) {
	dst = dst[:0]
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return nil, errPathEncoding
			}
			hi, lo := upperHex(path[i+1]), upperHex(path[i+2])
			if hi < 0 || lo < 0 {
				return nil, errPathEncoding
			}
			if c = byte(hi<<4 | lo); !needsEncoding(c) {
				return nil, errPathEncoding
			}
			if c == '%' && looksEncoded(path[i+3:]) {
				return nil, errPathEncoding
			}
			i += 2
		}
		dst = append(dst, c)
	}
	for rest := dst; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 || !unicode.IsGraphic(r) {
			return nil, errPathEncoding
		}
		rest = rest[n:]
	}
	return dst, nil
}

// needsEncoding reports whether an encoded c is acceptable: it is not one of
// the unreserved characters, which are the same unencoded, nor one that would
// become syntax once decoded.
func needsEncoding(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return false
	case c < ' ', c == 0x7f:
		return false
	}
	switch c {
	case '-', '.', '_', '~', '/', '\\', ';':
		return false
	}
	return true
}

// looksEncoded reports whether what follows a decoded "%" would make a
// percent-encoding of it: two hex digits, in either case, themselves encoded or not.
func looksEncoded(rest []byte) bool {
	return len(rest) > 0 && (isHex(rest[0]) || rest[0] == '%')
}

// pathByte reports whether c may stand in a path as it is: pchar of RFC 3986
// but for ";".
func pathByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	switch c {
	case '-', '.', '_', '~', '!', '$', '&', '\'', '(', ')', '*', '+', ',', '=', ':', '@':
		return true
	}
	return false
}

// validQuery accepts what can be sent on as it is.
func validQuery(query []byte) bool {
	for _, c := range query {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// upperHex returns the value of an upper-case hexadecimal digit, or -1.
func upperHex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
