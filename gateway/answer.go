package gateway

import (
	"bytes"
	"errors"
	"time"

	"github.com/valyala/fasthttp"
)

// answerHead is the head of an upstream's answer, and how its body ends.
type answerHead struct {
	status  int
	http10  bool
	close   bool // the upstream will close the connection
	chunked bool
	length  int64 // Content-Length; -1 if there is none

	upgrade       []byte // the value of Upgrade
	upgradeListed bool   // Connection lists "upgrade"
	dated         bool

	connection [][]byte // field names that Connection lists
}

// bodyKind is how the end of a body is found (RFC 9112 §6.3).
type bodyKind uint8

const (
	bodyNone bodyKind = iota
	bodyLength
	bodyChunked
	bodyUntilClose
)

func (a *answerHead) body(headRequest bool) bodyKind {
	switch {
	case headRequest || a.status < 200 || a.status == 204 || a.status == 304:
		return bodyNone
	case a.chunked:
		return bodyChunked
	case a.length > 0:
		return bodyLength
	case a.length == 0:
		return bodyNone
	}
	return bodyUntilClose
}

// headEnd finds the end of the head at the beginning of p, of which the first
// seen bytes have been searched before; 0 means that it is not all there. What
// can't become a head is refused at once instead of being waited for.
func headEnd(p []byte, seen int) (int, error) {
	const version = "HTTP/1."
	if n := min(len(p), len(version)); string(p[:n]) != version[:n] {
		return 0, errors.New("not HTTP/1")
	}
	from := max(seen-3, 0)
	if i := bytes.Index(p[from:], []byte("\r\n\r\n")); i >= 0 {
		return from + i + 4, nil
	}
	for i := from; i < len(p); i++ {
		if p[i] == '\n' && (i == 0 || p[i-1] != '\r') {
			return 0, errors.New("line does not end in CRLF")
		}
	}
	return 0, nil
}

// parse reads a whole head, and appends to dst what of it is for the client: the
// status line and the end-to-end fields, as they were written. The framing is
// not among it, but for a Content-Length. Whatever has two readings is an error.
func (a *answerHead) parse(dst, head []byte) ([]byte, error) {
	*a = answerHead{length: -1, connection: a.connection[:0]}
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	dst, err := a.statusLine(dst, line)
	if err != nil {
		return dst, err
	}
	begin := len(dst)
	for {
		name, value, next, err := nextField(rest)
		if err != nil {
			return dst, err
		}
		if name == nil {
			break
		}
		field := rest[:len(rest)-len(next)]
		rest = next
		pass, err := a.field(name, value)
		if err != nil {
			return dst, err
		}
		if pass && !reservedResponseField(name) {
			dst = append(dst, field...)
		}
	}
	if a.chunked && (a.http10 || a.length >= 0) {
		return dst, errors.New("ambiguous framing: Transfer-Encoding and " +
			"Content-Length or HTTP/1.0")
	}
	if a.length >= 0 && (a.status < 200 || a.status == 204) { // RFC 9110 §8.6
		dst = dropFields(dst, begin, [][]byte{[]byte("content-length")})
	}
	if len(a.connection) > 0 {
		dst = dropFields(dst, begin, a.connection)
	}
	if !a.dated && a.status >= 200 { // RFC 9110 §6.6.1: whoever passes it on has to date it
		dst = append(dst, "Date: "...)
		dst = fasthttp.AppendHTTPDate(dst, time.Now())
		dst = append(dst, "\r\n"...)
	}
	return dst, nil
}

// statusLine parses "HTTP/1.1 200 OK". The reason, and the space before it, may
// be missing.
func (a *answerHead) statusLine(dst, line []byte) ([]byte, error) {
	const shortest = len("HTTP/1.1 200")
	if len(line) < shortest || line[8] != ' ' || line[7] != '0' && line[7] != '1' {
		return dst, errors.New("malformed status line")
	}
	code := line[9:shortest]
	if !digits(code) || code[0] == '0' || len(line) > shortest && line[shortest] != ' ' {
		return dst, errors.New("malformed status line")
	}
	for _, c := range line[shortest:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return dst, errors.New("control character in the status line")
		}
	}
	a.status = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	a.http10 = line[7] == '0'
	a.close = a.http10 // not worth keeping: nobody who speaks it expects to be
	dst = append(dst, "HTTP/1.1"...)
	dst = append(dst, line[8:]...)
	if len(line) == shortest {
		dst = append(dst, ' ')
	}
	return append(dst, "\r\n"...), nil
}

// field takes note of what concerns the framing or the connection, and reports
// whether the field is passed on.
func (a *answerHead) field(name, value []byte) (bool, error) {
	switch len(name) {
	case len("TE"):
		return !equalFold(name, "te"), nil
	case len("Date"):
		a.dated = a.dated || equalFold(name, "date")
	case len("Trailer"): // and Upgrade
		if equalFold(name, "upgrade") {
			a.upgrade = value
			return false, nil
		}
		return !equalFold(name, "trailer"), nil // trailers are not passed on
	case len("Connection"): // and Keep-Alive, Set-Cookie
		if equalFold(name, "connection") {
			a.listConnection(value)
			return false, nil
		}
		if equalFold(name, "set-cookie") {
			return !setsOwnCookie(value), nil
		}
		return !equalFold(name, "keep-alive"), nil
	case len("Content-Length"):
		if !equalFold(name, "content-length") {
			return true, nil
		}
		if a.length >= 0 || !digits(value) {
			return false, errors.New("repeated or malformed Content-Length")
		}
		a.length = decimal(value)
	case len("Proxy-Connection"):
		return !equalFold(name, "proxy-connection"), nil
	case len("Transfer-Encoding"):
		if !equalFold(name, "transfer-encoding") {
			return true, nil
		}
		if a.chunked || !equalFold(value, "chunked") {
			return false, errors.New("repeated or unknown Transfer-Encoding")
		}
		a.chunked = true
		return false, nil
	case len("Proxy-Authenticate"):
		return !equalFold(name, "proxy-authenticate"), nil
	}
	return true, nil
}

func (a *answerHead) listConnection(value []byte) {
	for len(value) > 0 {
		var token []byte
		token, value, _ = bytes.Cut(value, []byte{','})
		token = trimOWS(token)
		switch {
		case len(token) == 0, equalFold(token, "keep-alive"):
		case equalFold(token, "close"):
			a.close = true
		case equalFold(token, "upgrade"):
			a.upgradeListed = true
		case equalFold(token, "content-length"), equalFold(token, "transfer-encoding"):
			// Without these the answer would have no end, or another one.
		default:
			a.connection = append(a.connection, token)
		}
	}
}

// dropFields removes the lines of dst[begin:] that have one of the names.
func dropFields(dst []byte, begin int, names [][]byte) []byte {
	kept := dst[:begin]
	for rest := dst[begin:]; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n') + 1
		line := rest[:end]
		rest = rest[end:]
		name := line[:bytes.IndexByte(line, ':')]
		drop := false
		for _, n := range names {
			drop = drop || bytes.EqualFold(n, name)
		}
		if !drop {
			kept = append(kept, line...)
		}
	}
	return kept
}

// equalFold is bytes.EqualFold for a lower-case ASCII name.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
