package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"

	"github.com/valyala/fasthttp"
)

// requestHead is the head of a request as it came, in memory that is the server's.
type requestHead struct {
	method, target, version []byte
	fields                  []byte // to the empty line, and that
}

// headOf is the head of a request that the server has read.
func headOf(ctx *fasthttp.RequestCtx) requestHead {
	h := &ctx.Request.Header
	return requestHead{method: ctx.Method(), target: h.RequestURI(), version: h.Protocol(), fields: h.RawHeaders()}
}

// read takes the request's head apart and refuses what has two readings.
func (r *request) read(st *State) error {
	e := r.event
	peer, text := r.conn.peerAddr()
	r.peer, r.client = peer, peer
	e.requestID, e.clientIP = newRequestID(), text
	e.method = method(r.head.method)
	r.method = e.method

	version := string(r.head.version)
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return &refusal{code: codeMalformedRequest, cause: errVersion, close: true}
	}
	if err := r.header.read(r.head.fields, version == "HTTP/1.1"); err != nil {
		return &refusal{code: codeMalformedRequest, cause: err, close: true}
	}
	if !validHost(r.header.host) || len(r.header.host) == 0 && version == "HTTP/1.1" {
		return &refusal{code: codeMalformedRequest, cause: errFieldHost, close: true}
	}
	if st.trusts(peer) {
		r.told = r.header.told(st, peer)
		r.client = clientAddr(st, peer, r.told.addresses)
		e.clientIP = r.client.String()
		if id := r.header.requestID; validRequestID(id) {
			e.requestID = string(id)
		}
	}
	return r.readTarget(r.head.target)
}

// readTarget reads what the request is about.
func (r *request) readTarget(target []byte) error {
	e := r.event
	path, query, _ := bytes.Cut(target, []byte{'?'})
	r.copyText(target)
	sent := r.target[:len(path)]
	e.path = clip(sent)
	canonical, err := canonicalPath(r.buffers.path[:0], path)
	if err != nil {
		e.path = "" // it may hold anything
		return &refusal{code: codePathNotCanonical, cause: err, close: errors.Is(err, errPathForm)}
	}
	if !validQuery(query) {
		return refuse(codeMalformedRequest, errPathByte)
	}
	if r.path = sent; !bytes.Equal(canonical, path) {
		r.path = string(canonical)
	}
	return nil
}

// methods lists the methods that may be forwarded if the policy allows it. CONNECT
// and TRACE are not among them: the one is for another kind of proxy, the other
// hands the caller what only the upstream should see.
func methods() []string {
	return []string{
		"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "SEARCH", "REPORT",
		"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "PURGE", "LINK", "UNLINK",
	}
}

// method returns the method as a string of its own, or "" if it is not known.
// Methods are case-sensitive (RFC 9110 §9.1).
func method(m []byte) string {
	switch string(m) { // the frequent ones, without a walk
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	}
	for _, known := range methods() {
		if string(m) == known {
			return known
		}
	}
	return ""
}

// peerAddr is the address at the other end of the connection, or the one that a load
// balancer there has told in a PROXY header, and how it is written. The address of
// nobody, who is not trusted, is that behind a balancer that has not told: it passes on
// connections, and does not see what their clients say of themselves in requests.
func (c *clientConn) peerAddr() (netip.Addr, string) {
	if c.peerText == "" {
		c.peer = addrOf(c.RemoteAddr())
		c.peerText = c.peer.String()
		if c.proxied != nil && c.proxied.silent {
			c.peer = netip.Addr{}
		}
	}
	return c.peer, c.peerText
}

// clientAddr walks X-Forwarded-For from its end: each trusted proxy vouches for
// the address before its own, and the first that is not a trusted proxy is the
// client. What stands further left is the client's own tale.
func clientAddr(st *State, peer netip.Addr, forwardedFor []byte) netip.Addr {
	addr := peer
	for rest := forwardedFor; len(rest) > 0 && st.trusts(addr); {
		var last []byte
		if i := bytes.LastIndexByte(rest, ','); i >= 0 {
			rest, last = rest[:i], rest[i+1:]
		} else {
			rest, last = nil, rest
		}
		next, err := netip.ParseAddr(string(bytes.TrimSpace(last)))
		if err != nil {
			break
		}
		addr = next.Unmap()
	}
	return addr
}

// validHost accepts a uri-host with a port (RFC 9110 §7.2) in the spelling that
// every server reads in the same way: no user information, no empty label and so no
// trailing dot, an IPv6 address in brackets without a zone, a port without leading
// zeros. HTTP/1.0 may leave it out.
func validHost(host []byte) bool {
	name, port := host, []byte(nil)
	if len(host) > 0 && host[0] == '[' {
		end := bytes.IndexByte(host, ']')
		if end < 0 {
			return false
		}
		if addr, err := netip.ParseAddr(string(host[1:end])); err != nil || !addr.Is6() || addr.Zone() != "" {
			return false
		}
		name, port = nil, host[end+1:]
	} else if colon := bytes.IndexByte(host, ':'); colon >= 0 {
		name, port = host[:colon], host[colon:]
		if colon == 0 {
			return false
		}
	}
	return validPort(port) && validName(name) && len(host) <= 255
}

// validPort accepts nothing, or a colon and a port.
func validPort(port []byte) bool {
	if len(port) == 0 {
		return true
	}
	digit, n := port[1:], 0
	if port[0] != ':' || len(digit) == 0 || len(digit) > 5 || digit[0] == '0' {
		return false
	}
	for _, c := range digit {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 1<<16-1
}

// validName accepts nothing, or labels with dots between them.
func validName(name []byte) bool {
	last := byte('.')
	for _, c := range name {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '~':
		case c == '.' && last != '.':
		default:
			return false
		}
		last = c
	}
	return len(name) == 0 || last != '.'
}

// validRequestID accepts what a trusted proxy may call a request.
func validRequestID(id []byte) bool {
	for _, c := range id {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return len(id) > 0 && len(id) <= 64
}

// validTraceparent accepts version 00 of W3C Trace Context §3.2.
func validTraceparent(t string) bool {
	if len(t) != 55 || t[:3] != "00-" || t[35] != '-' || t[52] != '-' {
		return false
	}
	zero := true
	for i, c := range []byte(t[3:]) {
		switch {
		case i == 32, i == 49:
			if zero { // an id of zeros is none
				return false
			}
			zero = true
		case '1' <= c && c <= '9', 'a' <= c && c <= 'f':
			zero = false
		case c != '0':
			return false
		}
	}
	return true
}

// newRequestID returns 32 hexadecimal digits, fit for a trace id as well. It is a
// name, not a secret.
func newRequestID() string {
	var b [32]byte
	return string(appendRandomHex(b[:0], 2))
}

// appendRandomHex appends so many times 16 hexadecimal digits.
func appendRandomHex(dst []byte, words int) []byte {
	for range words {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], rand.Uint64()) //nolint:gosec // a name, not a secret
		dst = hex.AppendEncode(dst, b[:])
	}
	return dst
}
