package gateway

import (
	"bytes"
	"errors"
	"fmt"
)

// Refusals of a request whose header has more than one reading. The
// connection is closed after each: what follows on it can't be trusted either.
var (
	errVersion          = errors.New("neither HTTP/1.1 nor HTTP/1.0")
	errFieldSyntax      = errors.New("malformed header field")
	errFieldFraming     = errors.New("ambiguous message framing")
	errFieldHost        = errors.New("missing or repeated Host")
	errFieldCredentials = errors.New("repeated Authorization")
)

// clientHeader is what the gateway itself needs to know of a request's header.
// Its slices point into the server's read buffer and die with the request.
type clientHeader struct {
	host          []byte
	authorization []byte
	upgrade       []byte
	requestID     []byte
	traceparent   []byte
	// What a proxy says of where the request came from: all lines, joined with ", ".
	forwardedFor, forwardedProto, forwardedHost, forwarded []byte

	authorizes   bool     // there is an Authorization field, if an empty one
	cookies      [][]byte // the Cookie fields that hold cookies of ours
	cookieCaller bool     // the caller is whom those prove; see authenticate

	connection    [][]byte // field names that Connection lists
	upgradeListed bool     // Connection lists "upgrade"
	chunked       bool
	contentLength bool
	length        int64 // Content-Length
	special       bool  // more is wanted than an answer: an upgrade, an expectation, a use of the connection

	forwardable []fieldLine // see appendForwardable
}

// fieldLine is a field that may be forwarded, by its place in the block.
type fieldLine struct {
	class      fieldClass
	begin, end uint32 // of the line
	nameEnd    uint32
}

// read walks the header block as it came over the wire, classifies each
// field, and refuses what two servers could read in two ways. It relies on
// nothing that the HTTP library made of the same bytes.
//
// http11 is whether the request line said HTTP/1.1.
func (h *clientHeader) read(raw []byte, http11 bool) error {
	*h = clientHeader{connection: h.connection[:0], cookies: h.cookies[:0], forwardable: h.forwardable[:0]}
	hosts, authorizations := 0, 0
	var refused error
	for whole := len(raw); len(raw) > 0; {
		name, value, rest, err := nextField(raw)
		if err != nil {
			return err
		}
		begin, end := whole-len(raw), whole-len(rest)
		if raw = rest; name == nil {
			break
		}
		var buf [longestClassified]byte
		class := classOf(fold(&buf, name))
		switch {
		case class == classEndToEnd, class == classCookie, class == classCSRFToken,
			class == classAuthorization && exact(name, buf[:len(name)]):
			h.forwardable = append(h.forwardable, fieldLine{class, uint32(begin), uint32(end), uint32(begin + len(name))})
		}
		if class != classEndToEnd && class != classReserved && !exact(name, buf[:len(name)]) {
			continue // an alias such as Content_Length: nothing to us, and never forwarded
		}
		switch class {
		case classHost:
			h.host = value
			hosts++
		case classAuthorization:
			h.authorization, h.authorizes = value, true
			authorizations++
		case classContentLength:
			if h.contentLength || !digits(value) {
				refused = fmt.Errorf("%w: Content-Length", errFieldFraming)
			}
			h.contentLength = true
			h.length = decimal(value)
		case classTransferEncoding:
			if h.chunked || !http11 || !bytes.EqualFold(value, []byte("chunked")) {
				refused = fmt.Errorf("%w: Transfer-Encoding", errFieldFraming)
			}
			h.chunked = true
		case classConnection:
			h.listConnection(value)
		case classUpgrade:
			h.upgrade, h.special = value, true
		case classExpect:
			h.special = true
		case classRequestID:
			h.requestID = value
		case classTraceparent:
			h.traceparent = value
		case classCookie:
			if holdsOwnCookie(value) {
				h.cookies = append(h.cookies, value)
			}
		case classForwardedFor:
			h.forwardedFor = joinField(h.forwardedFor, value)
		case classForwardedProto:
			h.forwardedProto = joinField(h.forwardedProto, value)
		case classForwardedHost:
			h.forwardedHost = joinField(h.forwardedHost, value)
		case classForwarded:
			h.forwarded = joinField(h.forwarded, value)
		}
	}
	switch {
	case refused != nil:
		return refused
	case h.chunked && h.contentLength:
		return fmt.Errorf("%w: both Content-Length and Transfer-Encoding", errFieldFraming)
	case hosts > 1 || http11 && hosts == 0:
		return errFieldHost
	case authorizations > 1:
		return errFieldCredentials
	}
	return nil
}

// listConnection remembers the field names that a Connection value lists.
func (h *clientHeader) listConnection(value []byte) {
	for len(value) > 0 {
		token, rest, _ := bytes.Cut(value, []byte{','})
		value = rest
		token = trimOWS(token)
		switch {
		case len(token) == 0:
		case bytes.EqualFold(token, []byte("upgrade")):
			h.upgradeListed = true
		case bytes.EqualFold(token, []byte("keep-alive")):
			continue
		case bytes.EqualFold(token, []byte("close")):
		default:
			h.connection = append(h.connection, token)
		}
		h.special = true
	}
}

// appendForwardable appends to dst the field lines of raw that are the client's
// to say. It expects the block that read has accepted.
func (h *clientHeader) appendForwardable(dst, raw []byte, passAuthorization bool) []byte {
	for _, f := range h.forwardable {
		name, line := raw[f.begin:f.nameEnd], raw[f.begin:f.end]
		if len(h.connection) > 0 && h.named(name) {
			continue
		}
		switch f.class {
		case classCookie:
			if len(h.cookies) > 0 {
				dst = appendOtherCookies(dst, name, trimOWS(line[len(name)+1:len(line)-2]))
				continue
			}
		case classCSRFToken:
			if h.cookieCaller {
				continue
			}
		case classAuthorization:
			if !passAuthorization {
				continue
			}
		}
		dst = append(dst, line...)
	}
	return dst
}

// named reports whether the client's Connection field lists name.
func (h *clientHeader) named(name []byte) bool {
	for _, n := range h.connection {
		if bytes.EqualFold(n, name) {
			return true
		}
	}
	return false
}
