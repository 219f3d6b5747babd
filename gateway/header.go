package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The names of the fields that tell an upstream who is calling. The gateway
// says them or nobody does: see upstream/README.md.
const (
	fieldUserID          = "X-User-Id"
	fieldUserName        = "X-User-Name"
	fieldUserEmail       = "X-User-Email"
	fieldUserRoles       = "X-User-Roles"
	fieldUserPermissions = "X-User-Permissions"
	fieldUserTenant      = "X-User-Tenant"
	fieldSessionID       = "X-Session-Id"
	fieldAssertion       = "X-Identity-Assertion"
	fieldRequestID       = "X-Request-Id"
	fieldForwardedFor    = "X-Forwarded-For"
	fieldForwardedProto  = "X-Forwarded-Proto"
	fieldForwardedHost   = "X-Forwarded-Host"
	fieldTraceparent     = "traceparent"
	fieldGatewayError    = "X-Gateway-Error"
)

// fieldClass says what becomes of a field that a client sent.
type fieldClass uint8

const (
	classEndToEnd      fieldClass = iota // the client's to say: forwarded as it is
	classHop                             // about this connection only: never forwarded
	classReserved                        // ours to say: never forwarded, whoever says it
	classHost                            // forwarded as the request's authority
	classAuthorization                   // forwarded only where the route asks for it
	classConnection                      // names further fields to drop
	classContentLength
	classTransferEncoding
	classUpgrade
	classRequestID   // reserved, and believed when it comes from a trusted proxy
	classTraceparent // reserved, and continued when it is well formed
	classForwardedFor
	classForwardedProto
	classForwardedHost
	classForwarded
	classCookie    // forwarded without the cookies that are ours
	classCSRFToken // forwarded unless it was for us
)

// longestClassified is the length of the longest name in classOf.
const longestClassified = 40

// classOf looks up a folded name. A switch, so that there is no table to
// initialise and the compiler makes the lookup cheap.
//
// The reserved names are those of this gateway, those by which other
// authenticating proxies vouch for a caller (an upstream that was moved here
// from one of them may still believe them), and those with which a client could
// make an upstream act on another method, path or address than the one that was
// decided on.
func classOf(folded []byte) fieldClass {
	switch string(folded) {
	case "host":
		return classHost
	case "connection":
		return classConnection
	case "content-length":
		return classContentLength
	case "transfer-encoding":
		return classTransferEncoding
	case "upgrade":
		return classUpgrade
	case "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
		"proxy-authentication-info", "te", "trailer", "expect", "http2-settings", "alt-svc":
		return classHop
	case "authorization":
		return classAuthorization
	case "x-request-id":
		return classRequestID
	case "traceparent":
		return classTraceparent
	case "x-forwarded-for":
		return classForwardedFor
	case "x-forwarded-proto":
		return classForwardedProto
	case "x-forwarded-host":
		return classForwardedHost
	case "forwarded":
		return classForwarded
	case "cookie":
		return classCookie
	case "x-csrf-token":
		return classCSRFToken

	// This gateway's own.
	case "x-user-id", "x-user-name", "x-user-email", "x-user-roles", "x-user-permissions",
		"x-user-tenant", "x-session-id", "x-identity-assertion", "x-gateway-error":
		return classReserved
	// oauth2-proxy and its forward-auth users.
	case "x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username",
		"x-forwarded-access-token", "x-auth-request-user", "x-auth-request-email", "x-auth-request-groups",
		"x-auth-request-preferred-username", "x-auth-request-access-token", "x-auth-request-redirect":
		return classReserved
	// Authelia, authentik and the Remote-* family.
	case "remote-user", "remote-groups", "remote-email", "remote-name", "x-remote-user", "x-remote-group",
		"x-remote-groups", "x-remote-email", "x-webauth-user", "x-authentik-username", "x-authentik-groups",
		"x-authentik-email", "x-authentik-name", "x-authentik-uid", "x-authentik-jwt":
		return classReserved
	// Kong, Pomerium, identity-aware proxies of the clouds.
	case "x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-consumer-groups",
		"x-anonymous-consumer", "x-authenticated-userid", "x-authenticated-scope", "x-authenticated-groups",
		"x-credential-identifier", "x-credential-username", "x-userinfo", "x-pomerium-jwt-assertion",
		"x-pomerium-claim-email", "x-pomerium-claim-groups", "x-goog-iap-jwt-assertion",
		"x-goog-authenticated-user-id", "x-goog-authenticated-user-email", "x-amzn-oidc-data",
		"x-amzn-oidc-identity", "x-amzn-oidc-accesstoken", "cf-access-jwt-assertion",
		"x-ms-client-principal", "x-ms-client-principal-id", "x-ms-client-principal-name", "x-ms-client-principal-idp":
		return classReserved
	// Where the request came from and what it was.
	case "x-forwarded", "x-forwarded-port",
		"x-forwarded-server", "x-forwarded-scheme", "x-forwarded-ssl", "x-forwarded-proto-version",
		"x-forwarded-prefix", "x-forwarded-path", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-by",
		"x-forwarded-client-cert", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip",
		"cf-connecting-ip", "fastly-client-ip", "client-ip", "x-original-forwarded-for", "x-envoy-external-address",
		"x-scheme", "x-url-scheme", "front-end-https", "x-host", "x-ssl-client-cert", "x-ssl-client-verify",
		"ssl-client-cert", "x-client-cert", "x-client-verify":
		return classReserved
	// Overrides: the policy decided on the real method and path.
	case "x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-original-uri",
		"x-original-method", "x-original-host", "x-rewrite-url", "x-envoy-original-path", "proxy":
		return classReserved
	}
	return classEndToEnd
}

// fold maps a field name to the name that servers who fold names would take it
// for: CGI, WSGI, PHP and others map every character that is neither letter nor
// digit to "_", so X_User_Id, X.User.Id and X-User-Id are one name to them. It
// returns nil for a name that is too long to be a classified one.
func fold(dst *[longestClassified]byte, name []byte) []byte {
	if len(name) > longestClassified {
		return nil
	}
	for i, c := range name {
		dst[i] = foldByte(c)
	}
	return dst[:len(name)]
}

func foldByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	}
	return '-'
}

// reservedResponseField reports whether an upstream's answer must not carry the
// field: it is the gateway's to say, or would hand the client a proof that was
// meant for the upstream alone (an upstream that echoes what it received).
func reservedResponseField(name []byte) bool {
	var buf [longestClassified]byte
	switch string(fold(&buf, name)) {
	case "x-gateway-error", "x-identity-assertion", "x-request-id":
		return true
	}
	return false
}

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
		case classTransferEncoding:
			if h.chunked || !http11 || !bytes.EqualFold(value, []byte("chunked")) {
				refused = fmt.Errorf("%w: Transfer-Encoding", errFieldFraming)
			}
			h.chunked = true
		case classConnection:
			h.listConnection(value)
		case classUpgrade:
			h.upgrade = value
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
		token = bytes.Trim(token, " \t")
		switch {
		case len(token) == 0:
		case bytes.EqualFold(token, []byte("upgrade")):
			h.upgradeListed = true
		case bytes.EqualFold(token, []byte("close")), bytes.EqualFold(token, []byte("keep-alive")):
		default:
			h.connection = append(h.connection, token)
		}
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
				dst = appendOtherCookies(dst, name, bytes.Trim(line[len(name)+1:len(line)-2], " \t"))
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
