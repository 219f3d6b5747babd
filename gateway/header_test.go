package gateway

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
)

// block makes a header block of lines as it comes over the wire.
func block(lines ...string) []byte {
	return []byte("Host: gateway.test\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")
}

func TestClientMaySayWhatIsItsToSay(t *testing.T) {
	raw := block("Accept: */*", "X-Custom: a", "X-Custom: b", "cookie: k=v", "User-Agent: curl", "Content-Type: text/plain")
	var h clientHeader
	if err := h.read(raw, true); err != nil {
		t.Fatal(err)
	}
	got := string(h.appendForwardable(nil, raw, false))
	want := "Accept: */*\r\nX-Custom: a\r\nX-Custom: b\r\ncookie: k=v\r\nUser-Agent: curl\r\nContent-Type: text/plain\r\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestEverySpellingOfAReservedNameIsDropped(t *testing.T) {
	names := []string{fieldUserID, fieldUserName, fieldUserEmail, fieldUserRoles, fieldUserPermissions, fieldUserTenant,
		fieldSessionID, fieldAssertion, fieldRequestID, fieldForwardedFor, fieldForwardedProto, fieldForwardedHost,
		fieldTraceparent, fieldGatewayError, "Forwarded", "X-Real-IP", "X-HTTP-Method-Override", "X-Original-URL",
		"X-Forwarded-Tls-Client-Cert-Info", "SSL-Client-Subject-DN", "Cf-Access-Authenticated-User-Email", "Tailscale-User-Login", "X-Middleware-Subrequest",
		"X-Auth-Request-User", "Remote-User", "X-Consumer-Username", "X-Forwarded-User", "Authorization",
		"Connection", "Transfer-Encoding", "Content-Length", "TE", "Trailer", "Expect", "Upgrade", "Keep-Alive", "Proxy-Authorization"}
	spellings := map[string]func(string) string{
		"as it is":     func(s string) string { return s },
		"lower case":   strings.ToLower,
		"upper case":   strings.ToUpper,
		"underscores":  func(s string) string { return strings.ReplaceAll(s, "-", "_") },
		"dots":         func(s string) string { return strings.ReplaceAll(s, "-", ".") },
		"other tchars": func(s string) string { return strings.ReplaceAll(s, "-", "~") },
		"mixed":        func(s string) string { return strings.Replace(strings.ToLower(s), "-", "_", 1) },
	}
	for _, name := range names {
		for how, spell := range spellings {
			raw := []byte(spell(name) + ": 1\r\nX-Kept: yes\r\n\r\n")
			var h clientHeader
			_ = h.read(raw, true) // some are refused by themselves; here only the copy counts
			if got := string(h.appendForwardable(nil, raw, false)); got != "X-Kept: yes\r\n" {
				t.Errorf("%s (%s): forwarded %q", name, how, got)
			}
		}
	}
}

func TestConnectionTakesAwayTheClientsOwnFieldsOnly(t *testing.T) {
	raw := block("Connection: close, X-Hop , upgrade", "X-Hop: 1", "x-hop: 2", "X-Stays: 3", "Upgrade: websocket")
	var h clientHeader
	if err := h.read(raw, true); err != nil {
		t.Fatal(err)
	}
	if got := string(h.appendForwardable(nil, raw, false)); got != "X-Stays: 3\r\n" {
		t.Errorf("forwarded %q", got)
	}
	if !h.upgradeListed || string(h.upgrade) != "websocket" {
		t.Errorf("upgrade %q, listed %v", h.upgrade, h.upgradeListed)
	}
}

func TestAuthorizationPassesOnlyWhereTheRouteAsks(t *testing.T) {
	raw := block("Authorization: Bearer x")
	var h clientHeader
	if err := h.read(raw, true); err != nil {
		t.Fatal(err)
	}
	if got := string(h.appendForwardable(nil, raw, false)); got != "" {
		t.Errorf("forwarded %q", got)
	}
	if got := string(h.appendForwardable(nil, raw, true)); got != "Authorization: Bearer x\r\n" {
		t.Errorf("forwarded %q", got)
	}
}

func TestAnAliasIsNeverTakenForTheField(t *testing.T) {
	raw := block("Content_Length: 5", "transfer.encoding: chunked", "authorization~: Bearer x", "X_Request_Id: forged")
	var h clientHeader
	if err := h.read(raw, true); err != nil {
		t.Fatal(err)
	}
	if h.contentLength || h.chunked || h.authorization != nil || h.requestID != nil {
		t.Errorf("believed an alias: %+v", h)
	}
}

func TestHeaderWithTwoReadingsIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		raw    string
		http10 bool
		want   error
	}{
		"two Content-Length":              {raw: "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", want: errFieldFraming},
		"list in Content-Length":          {raw: "Host: a\r\nContent-Length: 1, 1\r\n\r\n", want: errFieldFraming},
		"sign in Content-Length":          {raw: "Host: a\r\nContent-Length: +1\r\n\r\n", want: errFieldFraming},
		"negative Content-Length":         {raw: "Host: a\r\nContent-Length: -2\r\n\r\n", want: errFieldFraming},
		"hexadecimal Content-Length":      {raw: "Host: a\r\nContent-Length: 0x1\r\n\r\n", want: errFieldFraming},
		"empty Content-Length":            {raw: "Host: a\r\nContent-Length:\r\n\r\n", want: errFieldFraming},
		"overflowing Content-Length":      {raw: "Host: a\r\nContent-Length: 9999999999999999999\r\n\r\n", want: errFieldFraming},
		"length and chunked":              {raw: "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", want: errFieldFraming},
		"two Transfer-Encoding":           {raw: "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", want: errFieldFraming},
		"Transfer-Encoding list":          {raw: "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", want: errFieldFraming},
		"Transfer-Encoding identity":      {raw: "Host: a\r\nTransfer-Encoding: identity\r\n\r\n", want: errFieldFraming},
		"Transfer-Encoding xchunked":      {raw: "Host: a\r\nTransfer-Encoding: xchunked\r\n\r\n", want: errFieldFraming},
		"Transfer-Encoding with HTTP/1.0": {raw: "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n", http10: true, want: errFieldFraming},
		"no Host":                         {raw: "Accept: */*\r\n\r\n", want: errFieldHost},
		"two Host":                        {raw: "Host: a\r\nHost: b\r\n\r\n", want: errFieldHost},
		"two equal Host":                  {raw: "Host: a\r\nhost: a\r\n\r\n", want: errFieldHost},
		"two Authorization":               {raw: "Host: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", want: errFieldCredentials},
		"space before the colon":          {raw: "Host: a\r\nX-Name : 1\r\n\r\n", want: errFieldSyntax},
		"space in a name":                 {raw: "Host: a\r\nX User Id: 1\r\n\r\n", want: errFieldSyntax},
		"folded line":                     {raw: "Host: a\r\nX-Name: 1\r\n 2\r\n\r\n", want: errFieldSyntax},
		"folded line with a tab":          {raw: "Host: a\r\nX-Name: 1\r\n\t2\r\n\r\n", want: errFieldSyntax},
		"bare line feed":                  {raw: "Host: a\nX-Name: 1\r\n\r\n", want: errFieldSyntax},
		"bare carriage return in a value": {raw: "Host: a\r\nX-Name: 1\rX-User-Id: 2\r\n\r\n", want: errFieldSyntax},
		"NUL in a value":                  {raw: "Host: a\r\nX-Name: 1\x00\r\n\r\n", want: errFieldSyntax},
		"no colon":                        {raw: "Host: a\r\nX-Name\r\n\r\n", want: errFieldSyntax},
		"empty name":                      {raw: "Host: a\r\n: 1\r\n\r\n", want: errFieldSyntax},
		"non-ASCII name":                  {raw: "Host: a\r\nX-Ünser-Id: 1\r\n\r\n", want: errFieldSyntax},
		"truncated block":                 {raw: "Host: a\r\nX-Name: 1", want: errFieldSyntax},
	} {
		t.Run(name, func(t *testing.T) {
			var h clientHeader
			if err := h.read([]byte(tc.raw), !tc.http10); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestEveryClassifiedNameFitsTheBuffer(t *testing.T) {
	src, err := os.ReadFile("field.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range regexp.MustCompile(`"([a-z0-9-]+)"`).FindAllSubmatch(src, -1) {
		if n++; len(m[1]) > longestClassified {
			t.Errorf("%s is longer than longestClassified", m[1])
		}
	}
	if n < 50 {
		t.Fatalf("found only %d names: has the table moved?", n)
	}
}

// Whatever the bytes are, no line that folds to a reserved name is forwarded,
// and what is forwarded parses to the same lines again.
func FuzzHeader(f *testing.F) {
	f.Add([]byte("Host: a\r\nX-User-Id: 1\r\nX_User_Id: 2\r\nConnection: X-A\r\nX-A: 1\r\n\r\n"))
	f.Add([]byte("Host: a\r\nCookie: a=1; portcullis_access=2;\"__Host-portcullis_refresh\"=3; b\r\n\r\n"))
	f.Add([]byte("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var h clientHeader
		if h.read(raw, true) != nil {
			return
		}
		out := h.appendForwardable(nil, raw, false)
		for rest := out; len(rest) > 0; {
			name, value, next, err := nextField(rest)
			if err != nil || name == nil {
				t.Fatalf("forwarded %q does not parse: %v", out, err)
			}
			if equalFold(name, "cookie") && holdsOwnCookie(value) {
				t.Fatalf("forwarded %q", out)
			}
			if rest = next; len(name) <= longestClassified {
				var buf [longestClassified]byte
				if c := classOf(fold(&buf, name)); c != classEndToEnd && c != classCookie && c != classCSRFToken {
					t.Fatalf("forwarded %q of class %d", name, c)
				}
			}
		}
	})
}
