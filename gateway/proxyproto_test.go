package gateway

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func mustAddr(t testing.TB, text string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// count is how many connections an address has.
func (r *room) count(addr string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addresses[netip.MustParseAddr(addr)]
}

// v2 is a header of version 2.
func v2(command, family byte, body string) string {
	return proxyV2Prefix + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

const (
	inet  = "\xcb\x00\x71\x07\xc0\x00\x02\x01\x03\xe8\x00\x50" // from 203.0.113.7:1000 to 192.0.2.1:80
	inet6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x03\xe8\x00\x50"
)

// proxyHeaders are headers, and the client that they tell of: "" is nobody but the
// peer itself, "-" that it is refused.
func proxyHeaders() map[string]struct{ header, client string } {
	unix := strings.Repeat("\x00", 216)
	tlv := func(n int) string { return "\x04" + string([]byte{byte(n >> 8), byte(n)}) + strings.Repeat("x", n) }
	return map[string]struct{ header, client string }{
		"1: TCP4":                         {"PROXY TCP4 203.0.113.7 192.0.2.1 1000 80\r\n", "203.0.113.7"},
		"1: TCP6":                         {"PROXY TCP6 2001:db8::7 2001:db8::1 1000 80\r\n", "2001:db8::7"},
		"1: UNKNOWN":                      {"PROXY UNKNOWN\r\n", ""},
		"1: UNKNOWN with addresses":       {"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ""},
		"1: lowest and highest port":      {"PROXY TCP4 203.0.113.7 192.0.2.1 0 65535\r\n", "203.0.113.7"},
		"1: lower case":                   {"proxy tcp4 203.0.113.7 192.0.2.1 1000 80\r\n", "-"},
		"1: family in lower case":         {"PROXY tcp4 203.0.113.7 192.0.2.1 1000 80\r\n", "-"},
		"1: family of another":            {"PROXY TCP4 2001:db8::7 2001:db8::1 1000 80\r\n", "-"},
		"1: families mixed":               {"PROXY TCP4 203.0.113.7 2001:db8::1 1000 80\r\n", "-"},
		"1: UDP":                          {"PROXY UDP4 203.0.113.7 192.0.2.1 1000 80\r\n", "-"},
		"1: port out of range":            {"PROXY TCP4 203.0.113.7 192.0.2.1 65536 80\r\n", "-"},
		"1: negative port":                {"PROXY TCP4 203.0.113.7 192.0.2.1 -1 80\r\n", "-"},
		"1: port with a leading zero":     {"PROXY TCP4 203.0.113.7 192.0.2.1 01000 80\r\n", "-"},
		"1: address with a leading zero":  {"PROXY TCP4 203.000.113.7 192.0.2.1 1000 80\r\n", "-"},
		"1: address that is a name":       {"PROXY TCP4 localhost 192.0.2.1 1000 80\r\n", "-"},
		"1: address with a zone":          {"PROXY TCP6 fe80::1%eth0 2001:db8::1 1000 80\r\n", "-"},
		"1: two spaces":                   {"PROXY TCP4  203.0.113.7 192.0.2.1 1000 80\r\n", "-"},
		"1: a tab":                        {"PROXY TCP4\t203.0.113.7 192.0.2.1 1000 80\r\n", "-"},
		"1: too few words":                {"PROXY TCP4 203.0.113.7 192.0.2.1 1000\r\n", "-"},
		"1: too many words":               {"PROXY TCP4 203.0.113.7 192.0.2.1 1000 80 x\r\n", "-"},
		"1: bare line feed":               {"PROXY TCP4 203.0.113.7 192.0.2.1 1000 80\n", "-"},
		"1: longer than it may be":        {"PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", "-"},
		"1: as long as it may be":         {"PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n", ""},
		"1: no end":                       {"PROXY UNKNOWN " + strings.Repeat("x", 200), "-"},
		"2: INET":                         {v2(0x21, 0x11, inet), "203.0.113.7"},
		"2: INET6":                        {v2(0x21, 0x21, inet6), "2001:db8::7"},
		"2: INET with more":               {v2(0x21, 0x11, inet+tlv(3)+tlv(0)), "203.0.113.7"},
		"2: INET with much more":          {v2(0x21, 0x11, inet+tlv(2000)), "203.0.113.7"},
		"2: LOCAL":                        {v2(0x20, 0x00, ""), ""},
		"2: LOCAL with addresses":         {v2(0x20, 0x11, inet), ""},
		"2: UNIX":                         {v2(0x21, 0x31, unix), ""},
		"2: unspecified":                  {v2(0x21, 0x00, "whatever"), ""},
		"2: unknown command":              {v2(0x22, 0x11, inet), "-"},
		"2: unknown version":              {v2(0x11, 0x11, inet), "-"},
		"2: unknown family":               {v2(0x21, 0x41, inet), "-"},
		"2: unknown transport":            {v2(0x21, 0x13, inet), "-"},
		"2: datagrams":                    {v2(0x21, 0x12, inet), "-"},
		"2: INET too short":               {v2(0x21, 0x11, inet[:11]), "-"},
		"2: INET6 too short":              {v2(0x21, 0x21, inet), "-"},
		"2: UNIX too short":               {v2(0x21, 0x31, inet), "-"},
		"2: more than there is room for":  {v2(0x21, 0x11, inet+tlv(4000)), "-"},
		"2: most that can be said":        {proxyV2Prefix + "\x21\x11\xff\xff", "-"},
		"2: TLV that is longer than all":  {v2(0x21, 0x11, inet+"\x04\x00\x09x"), "-"},
		"2: TLV that is cut":              {v2(0x21, 0x11, inet+"\x04"), "-"},
		"2: LOCAL that is too large":      {v2(0x20, 0x00, strings.Repeat("x", 3000)), "-"},
		"nothing of the kind":             {"", "absent"},
		"3: signature of 2 with a change": {"\r\n\r\n\x00\r\nQUIX\n\x21\x11\x00\x00", "-"},
	}
}

// The client's address is what a trusted proxy's header says, with TLS behind it or
// not, in one piece or in many.
func TestProxyHeaders(t *testing.T) {
	type mode struct {
		name     string
		protocol ProxyProtocol
		tls      bool
	}
	for _, m := range []mode{{"optional", ProxyOptional, false}, {"required", ProxyRequired, false}, {"required, TLS", ProxyRequired, true}} {
		e := startGatewayAs(t, func(c *Config) {
			c.ProxyProtocol = m.protocol
			if m.tls {
				c.TLS = serverTLS(t)
			}
		}, func(s *StateConfig) { s.TrustedProxies = prefixes(t, "127.0.0.0/8") })
		for name, tc := range proxyHeaders() {
			for _, pieces := range []int{1, 7} {
				t.Run(fmt.Sprintf("%s/%s/%d", m.name, name, pieces), func(t *testing.T) {
					want := tc.client
					switch {
					case want == "absent" && m.protocol == ProxyRequired:
						want = "-"
					case want == "absent", want == "":
						want = "127.0.0.1"
					}
					said := e.through(t, tc.header, pieces, m.tls)
					seen := e.requests()
					switch {
					case want == "-" && (len(seen) > 0 || strings.Contains(said, " 200 ")):
						t.Errorf("answered %q, the upstream saw %q", said, seen)
					case want != "-" && (len(seen) != 1 || !strings.Contains(seen[0], "X-Forwarded-For: "+want+"\r\n")):
						t.Errorf("answered %q, the upstream saw %q; want %s", said, seen, want)
					}
				})
			}
		}
	}
}

// through sends a header, in pieces, and a request behind it, and returns the answer.
func (e *testGateway) through(t *testing.T, header string, pieces int, overTLS bool) string {
	t.Helper()
	conn := e.dialTCP()
	request := get("/public/x", "Connection: close")
	size := len(header)/pieces + 1
	all := header
	if !overTLS {
		all += request
	}
	for rest := all; len(rest) > 0; rest = rest[min(size, len(rest)):] {
		if _, err := io.WriteString(conn, rest[:min(size, len(rest))]); err != nil {
			break // refused already
		}
	}
	if overTLS {
		secure := tls.Client(conn, clientTLS(t))
		_, _ = io.WriteString(secure, request) // may be refused already
		conn = secure
	} else {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	b, _ := io.ReadAll(conn) // reset or not
	return string(b)
}

// Nobody else is believed, whether a header is possible, required or neither.
func TestProxyHeadersOfOthersAreRefused(t *testing.T) {
	for _, protocol := range []ProxyProtocol{ProxyOff, ProxyOptional, ProxyRequired} {
		e := startGatewayAs(t, func(c *Config) { c.ProxyProtocol = protocol }, func(s *StateConfig) { s.TrustedProxies = prefixes(t, "192.0.2.0/24") })
		for _, header := range []string{"PROXY TCP4 203.0.113.7 192.0.2.1 1000 80\r\n", "PROXY UNKNOWN\r\n", v2(0x21, 0x11, inet), v2(0x20, 0, "")} {
			said := e.through(t, header, 1, false)
			if seen := e.requests(); len(seen) > 0 || strings.Contains(said, " 200 ") {
				t.Errorf("%d, %q: answered %q, the upstream saw %q", protocol, header, said, seen)
			}
		}
		if said, ok := e.through(t, "", 1, false), protocol != ProxyRequired; strings.Contains(said, " 200 ") != ok {
			t.Errorf("%d, no header: answered %q", protocol, said)
		}
	}
}

// A balancer of connections says nothing of requests. Where its header does not tell who
// is behind it, what a request says of that is its client's own tale.
func TestWhoIsBehindASilentProxyHeaderIsNotTakenFromTheRequest(t *testing.T) {
	e := startGatewayAs(t, func(c *Config) { c.ProxyProtocol = ProxyOptional }, askedBy("nginx"))
	tale := []string{"Connection: close", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Host: told.test", "X-Original-Method: GET", "X-Original-URI: /public/x"}
	for header, believed := range map[string]bool{
		"": true, "PROXY UNKNOWN\r\n": false, v2(0x20, 0x00, ""): false, v2(0x21, 0x31, strings.Repeat("x", 216)): false,
		"PROXY TCP4 127.0.0.1 192.0.2.1 1000 80\r\n": true, // a proxy of requests behind one of connections
		"PROXY TCP4 192.0.2.9 192.0.2.1 1000 80\r\n": false,
	} {
		_, _ = io.ReadAll(e.say(header + get("/public/x", tale...)))
		seen := strings.Join(e.requests(), "")
		if strings.Contains(seen, "203.0.113.9") != believed || strings.Contains(seen, "told.test") != believed || seen == "" {
			t.Errorf("%q: the upstream saw %q", header, seen)
		}
		said, _ := io.ReadAll(e.say(header + get("/auth/forward", tale...)))
		if strings.HasPrefix(string(said), "HTTP/1.1 200 ") != believed {
			t.Errorf("%q: forward-auth said %q", header, said)
		}
	}
}

// say writes to a new connection.
func (e *testGateway) say(raw string) net.Conn {
	conn := e.dialTCP()
	if _, err := io.WriteString(conn, raw); err != nil {
		e.t.Error(err)
	}
	return conn
}

// The limit counts the clients that headers tell of.
func TestConnectionsPerAddressBehindAProxy(t *testing.T) {
	e := startGatewayAs(t, func(c *Config) { c.ProxyProtocol = ProxyRequired; c.ConnectionsPerAddress = 1 },
		func(s *StateConfig) { s.TrustedProxies = prefixes(t, "127.0.0.0/8") })
	header := func(client string) string { return "PROXY TCP4 " + client + " 192.0.2.1 1000 80\r\n" }
	held := e.dialTCP()
	if res := ask(t, held, header("203.0.113.7")+get("/public/x")); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	if res := ask(t, e.dialTCP(), header("203.0.113.7")+get("/public/x")); res.StatusCode != 503 || res.Header.Get(fieldGatewayError) != string(codeOverloaded) {
		t.Errorf("the second of a client: %s", res.Status)
	}
	if res := ask(t, e.dialTCP(), header("203.0.113.8")+get("/public/x")); res.StatusCode != 200 {
		t.Errorf("another client: %s", res.Status)
	}
	_ = held.Close()
	waitUntil(t, func() bool { return e.gateway.arrivals.room.count("203.0.113.7") == 0 })
}

func FuzzProxyHeader(f *testing.F) {
	for _, tc := range proxyHeaders() {
		f.Add([]byte(tc.header))
		f.Add([]byte(tc.header + get("/")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		source, size, err := parseProxyHeader(b)
		if err != nil && (size != 0 || source.IsValid() || !errors.Is(err, errProxyHeader)) {
			t.Fatalf("%q: %v, %d beside %v", b, source, size, err)
		}
		if size > len(b) || size > proxyV2Size || bytes.HasPrefix(b, []byte(proxyV1Prefix)) && size > proxyV1Size {
			t.Fatalf("%q: %d bytes", b, size)
		}
		// The answer does not depend on how the bytes come, nor on what is behind them.
		decided := size > 0 || err != nil
		for n := range len(b) {
			early, earlySize, earlyErr := parseProxyHeader(b[:n])
			switch done := earlySize > 0 || earlyErr != nil; {
			case done && !decided, done && earlySize != size, done && (earlyErr == nil) != (err == nil), done && early != source:
				t.Fatalf("%q: %v, %d, %v; of %d bytes %v, %d, %v", b, source, size, err, n, early, earlySize, earlyErr)
			case done && earlySize > n:
				t.Fatalf("%q: %d of %d bytes", b, earlySize, n)
			}
		}
		if size > 0 && b[0] == 'P' && source.IsValid() {
			family := "TCP4"
			if source.Addr().Is6() {
				family = "TCP6"
			}
			words := strings.Fields(string(b[:size]))
			if words[1] != family || mustAddr(t, words[2]) != source.Addr() || words[4] != fmt.Sprint(source.Port()) {
				t.Fatalf("%q: %v", b, source)
			}
		}
	})
}
