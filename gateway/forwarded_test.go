package gateway

import (
	"net/netip"
	"strings"
	"testing"
)

// What a trusted proxy says of its client is believed as far as it is trusted, in
// either of the two ways to say it, and in neither where the two disagree.
func TestWhatProxiesSayOfTheirClients(t *testing.T) {
	const trusted = "127.0.0.0/8,10.0.0.0/8"
	for name, tc := range map[string]struct {
		trusted string
		fields  string // with "\n" between them
		via     string // before the peer
		client  string // "": the peer
		proto   string // "": http
		host    string // "": that of the request
	}{
		"nobody is trusted":                     {"", "Forwarded: for=203.0.113.9;proto=https;host=x.test\nX-Forwarded-Proto: https\nX-Forwarded-Host: x.test", "", "", "", ""},
		"proto and host":                        {trusted, "X-Forwarded-For: 203.0.113.9\nX-Forwarded-Proto: https\nX-Forwarded-Host: x.test:8443", "203.0.113.9", "203.0.113.9", "https", "x.test:8443"},
		"proto that is none, host that is none": {trusted, "X-Forwarded-Proto: https, http\nX-Forwarded-Host: x.test/y", "", "", "", ""},
		"two protos":                            {trusted, "X-Forwarded-Proto: https\nX-Forwarded-Proto: https", "", "", "", ""},
		"proto in another spelling":             {trusted, "X-Forwarded-Proto: HTTPS", "", "", "", ""},
		"alias of a name":                       {trusted, "X_Forwarded_Proto: https\nX.Forwarded.For: 203.0.113.9\nX_Forwarded_Host: x.test", "", "", "", ""},
		"Forwarded":                             {trusted, "Forwarded: for=203.0.113.9;proto=https;host=x.test;by=10.0.0.1", "203.0.113.9", "203.0.113.9", "https", "x.test"},
		"names in any case":                     {trusted, "forwarded: For=203.0.113.9; PROTO=HTTPS", "203.0.113.9", "203.0.113.9", "https", ""},
		"IPv6 with a port":                      {trusted, `Forwarded: for="[2001:DB8::9]:4711"`, "2001:db8::9", "2001:db8::9", "", ""},
		"IPv4 with a port":                      {trusted, `Forwarded: for="203.0.113.9:4711"`, "203.0.113.9", "203.0.113.9", "", ""},
		"obfuscated port":                       {trusted, `Forwarded: for="203.0.113.9:_x"`, "203.0.113.9", "203.0.113.9", "", ""},
		"several proxies":                       {trusted, "Forwarded: for=6.6.6.6;proto=https, for=203.0.113.9;proto=http;host=a.test,for=10.1.1.1;proto=https", "6.6.6.6, 203.0.113.9, 10.1.1.1", "203.0.113.9", "http", "a.test"},
		"several lines":                         {trusted, "Forwarded: for=203.0.113.9\nForwarded: for=10.1.1.1", "203.0.113.9, 10.1.1.1", "203.0.113.9", "", ""},
		"what the client itself says":           {trusted, "Forwarded: for=6.6.6.6;proto=https;host=evil.test, for=203.0.113.9", "6.6.6.6, 203.0.113.9", "203.0.113.9", "", ""},
		"unknown":                               {trusted, "Forwarded: for=203.0.113.9, for=unknown", "203.0.113.9, unknown", "", "", ""},
		"obfuscated":                            {trusted, "Forwarded: for=_hidden, for=10.1.1.1", "unknown, 10.1.1.1", "10.1.1.1", "", ""},
		"nothing of an address":                 {trusted, "Forwarded: proto=https", "unknown", "", "https", ""},
		"comma in quotes":                       {trusted, `Forwarded: for=203.0.113.9;secret="a, for=6.6.6.6";proto=https`, "203.0.113.9", "203.0.113.9", "https", ""},
		"quote in quotes":                       {trusted, `Forwarded: for=203.0.113.9;secret="a\", for=6.6.6.6";proto=https`, "203.0.113.9", "203.0.113.9", "https", ""},
		"quotes that stay open":                 {trusted, `Forwarded: for="203.0.113.9, for=10.1.1.1`, "", "", "", ""},
		"IPv6 without quotes":                   {trusted, "Forwarded: for=[2001:db8::9]", "", "", "", ""},
		"IPv6 without brackets":                 {trusted, `Forwarded: for="2001:db8::9"`, "", "", "", ""},
		"address with a zone":                   {trusted, `Forwarded: for="[fe80::1%25eth0]"`, "", "", "", ""},
		"port out of range":                     {trusted, `Forwarded: for="203.0.113.9:65536"`, "", "", "", ""},
		"for twice in an element":               {trusted, "Forwarded: for=203.0.113.9;for=6.6.6.6", "", "", "", ""},
		"space around the sign":                 {trusted, "Forwarded: for = 203.0.113.9", "", "", "", ""},
		"empty element":                         {trusted, "Forwarded: for=203.0.113.9,,for=10.1.1.1", "", "", "", ""},
		"comma at the end":                      {trusted, "Forwarded: for=203.0.113.9,", "", "", "", ""},
		"empty":                                 {trusted, "Forwarded:", "", "", "", ""},
		"host with an attack":                   {trusted, `Forwarded: for=203.0.113.9;host="evil.test/x"`, "203.0.113.9", "203.0.113.9", "", ""},
		"both, and they agree":                  {trusted, "Forwarded: for=203.0.113.9, for=10.1.1.1\nX-Forwarded-For: 203.0.113.9,10.1.1.1\nX-Forwarded-Proto: https", "203.0.113.9,10.1.1.1", "203.0.113.9", "https", ""},
		"both, and they disagree":               {trusted, "Forwarded: for=6.6.6.6;proto=https\nX-Forwarded-For: 203.0.113.9\nX-Forwarded-Proto: https", "", "", "", ""},
		"both, one with more":                   {trusted, "Forwarded: for=6.6.6.6, for=203.0.113.9\nX-Forwarded-For: 203.0.113.9", "", "", "", ""},
		"both, of which one is unread":          {trusted, "Forwarded: for=\nX-Forwarded-For: 203.0.113.9", "", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := startGateway(t, func(c *StateConfig) { c.TrustedProxies = prefixes(t, tc.trusted) })
			e.send(get("/public/x", strings.Split(tc.fields, "\n")...))
			seen := e.requests()
			if len(seen) != 1 {
				t.Fatalf("the upstream saw %q", seen)
			}
			via, client, proto, host := "127.0.0.1", "127.0.0.1", "http", "gateway.test"
			if tc.via != "" {
				via = tc.via + ", " + via
			}
			if tc.client != "" {
				client = tc.client
			}
			if tc.proto != "" {
				proto = tc.proto
			}
			if tc.host != "" {
				host = tc.host
			}
			for _, line := range []string{"X-Forwarded-For: " + via, "X-Forwarded-Proto: " + proto, "X-Forwarded-Host: " + host} {
				if !strings.Contains(seen[0], "\r\n"+line+"\r\n") {
					t.Errorf("missing %q in\n%s", line, seen[0])
				}
			}
			if strings.Contains(strings.ToLower(seen[0]), "\r\nforwarded:") {
				t.Errorf("Forwarded was passed on:\n%s", seen[0])
			}
			waitUntil(t, func() bool { return strings.Contains(e.log.String(), "msg=request") }) // the answer may come first
			if want := "ip=" + client + " "; !strings.Contains(e.log.String(), want) {
				t.Errorf("want %s in\n%s", want, e.log)
			}
		})
	}
}

func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"for=203.0.113.9;proto=https, for=_x", `for="[2001:db8::1]:80";host="a\"b"`, "for=unknown,for=1.2.3.4", `for="`, ",", "a=b;;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		hops, ok := parseForwarded(s)
		if ok != (len(hops) > 0) || len(hops) > strings.Count(s, ",")+1 {
			t.Fatalf("%q: %v, %v", s, hops, ok)
		}
		for _, h := range hops {
			if _, err := netip.ParseAddr(h.addr); err != nil && h.addr != "unknown" {
				t.Errorf("%q: address %q", s, h.addr)
			}
			if h.proto != "" && h.proto != "http" && h.proto != "https" || !validHost([]byte(h.host)) {
				t.Errorf("%q: %+v", s, h)
			}
		}
	})
}
