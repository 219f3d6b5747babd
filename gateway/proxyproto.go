package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ProxyProtocol says whether load balancers tell in a PROXY header, before anything
// else on a connection, who is behind them (the PROXY protocol of HAProxy, versions 1
// and 2). Only trusted proxies are believed.
type ProxyProtocol uint8

// Whether there are PROXY headers.
const (
	ProxyOff      ProxyProtocol = iota
	ProxyOptional               // trusted proxies may send a header; one of anybody else is a malformed request
	ProxyRequired               // a connection without a header, or not of a trusted proxy, is closed
)

var errProxyHeader = errors.New("PROXY header is missing, malformed or of nobody who is trusted")

const (
	proxyV1Prefix = "PROXY "
	proxyV1Size   = 107 // at most, with CRLF
	proxyV2Prefix = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV2Head   = 16
	proxyV2Size   = proxyV2Head + 2048 // at most, with what is optional
)

// proxiedConn is a connection that may begin with a PROXY header.
type proxiedConn struct {
	net.Conn
	required bool
	believed bool

	rest   []byte // read with the header, and not part of it
	source netip.AddrPort
	silent bool // there was a header, and it does not say who is behind the proxy
}

// readHeader reads the header. The caller has set a deadline.
func (p *proxiedConn) readHeader() error {
	if !p.believed {
		return fmt.Errorf("%w: not a trusted proxy", errProxyHeader)
	}
	buf := make([]byte, 0, 256)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := p.Conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		source, size, parseErr := parseProxyHeader(buf)
		switch {
		case errors.Is(parseErr, errNoProxyHeader) && !p.required:
			p.rest = buf
			return nil
		case parseErr != nil:
			return parseErr
		case size > 0:
			p.source, p.rest, p.silent = source, buf[size:], !source.IsValid()
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", errProxyHeader, err)
		}
	}
}

// Read implements net.Conn.
func (p *proxiedConn) Read(b []byte) (int, error) {
	if len(p.rest) > 0 {
		n := copy(b, p.rest)
		p.rest = p.rest[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// RemoteAddr implements net.Conn: it is the client's address once the header is read.
func (p *proxiedConn) RemoteAddr() net.Addr {
	if p.source.IsValid() {
		return net.TCPAddrFromAddrPort(p.source)
	}
	return p.Conn.RemoteAddr()
}

// NetConn returns the connection beneath.
func (p *proxiedConn) NetConn() net.Conn { return p.Conn }

var errNoProxyHeader = fmt.Errorf("%w: something else came", errProxyHeader)

// parseProxyHeader parses the header that b begins with. size is 0 if more is needed to
// tell. source is not valid if the header does not say who is behind the proxy: the
// proxy itself (LOCAL), or something without an IP address.
func parseProxyHeader(b []byte) (source netip.AddrPort, size int, err error) {
	switch {
	case bytes.HasPrefix(b, []byte(proxyV1Prefix)):
		return parseProxyV1(b)
	case bytes.HasPrefix(b, []byte(proxyV2Prefix)):
		return parseProxyV2(b)
	case strings.HasPrefix(proxyV1Prefix, string(b)), strings.HasPrefix(proxyV2Prefix, string(b)):
		return source, 0, nil
	}
	return source, 0, errNoProxyHeader
}

func parseProxyV1(b []byte) (source netip.AddrPort, size int, err error) {
	end := bytes.IndexByte(b[:min(len(b), proxyV1Size)], '\n')
	switch {
	case end < 0 && len(b) < proxyV1Size:
		return source, 0, nil
	case end < 0 || b[end-1] != '\r':
		return source, 0, fmt.Errorf("%w: line does not end in CRLF", errProxyHeader)
	}
	words := strings.Split(string(b[len(proxyV1Prefix):end-1]), " ")
	size = end + 1
	if words[0] == "UNKNOWN" {
		return source, size, nil
	}
	if len(words) != 5 || words[0] != "TCP4" && words[0] != "TCP6" {
		return source, 0, fmt.Errorf("%w: not TCP4 or TCP6, two addresses and two ports", errProxyHeader)
	}
	is4 := words[0] == "TCP4"
	source, ok := proxyEnd(words[1], words[3], is4)
	if _, ok2 := proxyEnd(words[2], words[4], is4); !ok || !ok2 {
		return netip.AddrPort{}, 0, fmt.Errorf("%w: address or port", errProxyHeader)
	}
	return source, size, nil
}

// proxyEnd parses an address and a port in their one spelling.
func proxyEnd(address, port string, is4 bool) (netip.AddrPort, bool) {
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Is4() != is4 || addr.Zone() != "" {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr, uint16(n)), true
}

func parseProxyV2(b []byte) (source netip.AddrPort, size int, err error) {
	if len(b) < proxyV2Head {
		return source, 0, nil
	}
	command, family := b[12], b[13]
	size = proxyV2Head + int(binary.BigEndian.Uint16(b[14:]))
	if command>>4 != 2 || command&15 > 1 || family>>4 > 3 || family&15 > 2 {
		return source, 0, fmt.Errorf("%w: unknown version, command or family", errProxyHeader)
	}
	if size > proxyV2Size {
		return source, 0, fmt.Errorf("%w: larger than %d bytes", errProxyHeader, proxyV2Size)
	}
	local := command&15 == 0 || family>>4 == 0 || family&15 == 0
	addresses := map[byte]int{0: 0, 1: 12, 2: 36, 3: 216}[family>>4] // bytes
	if !local && size < proxyV2Head+addresses {
		return source, 0, fmt.Errorf("%w: too short for its addresses", errProxyHeader)
	}
	if len(b) < size {
		return source, 0, nil
	}
	if local { // nothing in it counts
		return source, size, nil
	}
	if family&15 != 1 {
		return source, 0, fmt.Errorf("%w: not of a stream", errProxyHeader)
	}
	body := b[proxyV2Head:size]
	if !wellFormedTLVs(body[addresses:]) {
		return source, 0, fmt.Errorf("%w: malformed optional part", errProxyHeader)
	}
	switch family >> 4 {
	case 1:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:])), size, nil
	case 2:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)), binary.BigEndian.Uint16(body[32:])), size, nil
	}
	return source, size, nil // AF_UNIX
}

// wellFormedTLVs reports whether b consists of types, lengths and values.
func wellFormedTLVs(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 3 {
			return false
		}
		n := 3 + int(binary.BigEndian.Uint16(b[1:]))
		if n > len(b) {
			return false
		}
		b = b[n:]
	}
	return true
}
