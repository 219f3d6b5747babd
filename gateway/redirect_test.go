package gateway

import (
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRedirects(t *testing.T) {
	ours := func(host string) bool {
		return strings.HasSuffix(host, "ours.test") || host == "192.0.2.1" || host == "2001:db8::1"
	}
	for _, port := range []string{"443", "8443"} {
		server := httptest.NewServer(RedirectHandler(port, ours))
		defer server.Close()
		suffix := ""
		if port != "443" {
			suffix = ":" + port
		}
		for name, tc := range map[string]struct{ target, host, location string }{
			"a path and a query":       {"/a/b%20c?d=%2e&e", "a.ours.test", "https://a.ours.test" + suffix + "/a/b%20c?d=%2e&e"},
			"a port":                   {"/", "ours.test:8080", "https://ours.test" + suffix + "/"},
			"an address":               {"/", "192.0.2.1:80", "https://192.0.2.1" + suffix + "/"},
			"an IPv6 address":          {"/", "[2001:db8::1]:80", "https://[2001:db8::1]" + suffix + "/"},
			"an IPv6 address alone":    {"/", "[2001:db8::1]", "https://[2001:db8::1]" + suffix + "/"},
			"another's host":           {"/", "evil.test", ""},
			"ours as user information": {"/", "ours.test@evil.test", ""},
			"ours as a port":           {"/", "evil.test:ours.test", ""},
			"a path in the host":       {"/", "evil.test/.ours.test", ""},
			"a backslash in the host":  {"/", "evil.test\\.ours.test", ""},
			"a fragment in the host":   {"/", "evil.test#.ours.test", ""},
			"a query in the host":      {"/", "evil.test?.ours.test", ""},
			"a trailing dot":           {"/", "ours.test.", ""},
			"two slashes":              {"//evil.test/", "ours.test", ""},
			"a backslash":              {"/\\evil.test", "ours.test", ""},
			"dots":                     {"/a/../b", "ours.test", ""},
			"an encoded line end":      {"/a%0d%0aX: y", "ours.test", ""},
			"absolute-form":            {"http://evil.test/", "ours.test", ""},
			"asterisk-form":            {"*", "ours.test", ""},
		} {
			t.Run(port+"/"+name, func(t *testing.T) {
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				// The body, which does not come, is not waited for.
				said := newWire(t, conn)
				said.say("POST " + tc.target + " HTTP/1.1\r\nHost: " + tc.host + "\r\nContent-Length: 9000000\r\n\r\n")
				all, err := io.ReadAll(conn)
				if err != nil {
					t.Fatal(err)
				}
				got := string(all)
				if tc.location != "" && (!strings.HasPrefix(got, "HTTP/1.1 308 ") || !strings.Contains(got, "\r\nLocation: "+tc.location+"\r\n")) {
					t.Errorf("want %s in %q", tc.location, got)
				}
				if tc.location == "" && (!strings.HasPrefix(got, "HTTP/1.1 400 ") || strings.Contains(got, "Location") || strings.Contains(got, "evil")) {
					t.Errorf("want a refusal: %q", got)
				}
			})
		}
	}
}
