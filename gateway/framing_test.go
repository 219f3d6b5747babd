package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// smuggled is what an attacker would like to be taken for a request.
const smuggled = "GET /public/ZZTOP HTTP/1.1\r\nHost: gateway.test\r\n\r\n"

// talk writes raw bytes and returns all that comes back until the gateway ends the
// connection.
func (e *testGateway) talk(raw string) string {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	w := newWire(e.t, conn)
	w.say(raw)
	said, err := w.rest()
	if err != nil {
		e.t.Errorf("after %q: %v", said, err)
	}
	return said
}

// answers splits what came back into answers.
func answers(t *testing.T, method, said string) []*http.Response {
	t.Helper()
	var all []*http.Response
	for r := bufio.NewReader(strings.NewReader(said)); ; {
		if _, err := r.Peek(1); err == io.EOF {
			return all
		}
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%q is no answer: %v", said, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("%q is not whole: %v", said, err)
		}
		res.Body = io.NopCloser(bytes.NewReader(body))
		all = append(all, res)
	}
}

// vectors reads a file of named requests.
func vectors(t testing.TB, file string) map[string]string {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, block := range strings.Split(string(source), "\n=== ")[1:] {
		name, lines, _ := strings.Cut(block+"\n", "\n")
		if _, again := all[name]; again {
			t.Fatalf("%s: %q is there twice", file, name)
		}
		all[name] = rawBytes(t, lines)
	}
	if len(all) < 20 {
		t.Fatalf("%s: only %d requests", file, len(all))
	}
	return all
}

// kinds are the kinds of routes: what a request becomes to be for one of them.
func kinds(token string) map[string]func(raw string) string {
	with := func(method, path string, fields ...string) func(string) string {
		return func(raw string) string {
			if method != "" {
				raw = strings.Replace(strings.Replace(raw, "GET ", method+" ", 1), "POST ", method+" ", 1)
			}
			raw = strings.Replace(raw, "/public/x", path, 1)
			return strings.Replace(raw, "Host: gateway.test\r\n", "Host: gateway.test\r\n"+strings.Join(append(fields, ""), "\r\n"), 1)
		}
	}
	return map[string]func(string) string{
		"anonymous":    with("", "/public/x"),
		"protected":    with("", "/tasks/1", "Authorization: Bearer "+token),
		"own endpoint": with("", "/auth/login", "Content-Type: application/json"),
		"preflight":    with("OPTIONS", "/public/x", "Origin: https://app.test", "Access-Control-Request-Method: PUT"),
		"upgrade":      with("", "/public/x", "Connection: Upgrade", "Upgrade: websocket"),
		"error":        with("", "/tasks/1"),
	}
}

func TestAmbiguousRequestsAreRefusedOnEveryKindOfRoute(t *testing.T) {
	e := startGateway(t)
	all := kinds(e.token("uma", "user"))
	for name, raw := range vectors(t, "testdata/refused.txt") {
		for kind, of := range all {
			t.Run(name+"/"+kind, func(t *testing.T) { e.refuses(t, of(raw)+smuggled) })
		}
	}
	if strings.Contains(e.log.String(), "ZZTOP") {
		t.Error("the log quotes a request")
	}
}

// refuses expects one refusal, the end of the connection, and nothing upstream.
func (e *testGateway) refuses(t *testing.T, raw string) {
	t.Helper()
	method, _, _ := strings.Cut(raw, " ")
	all := answers(t, method, e.talk(raw))
	if len(all) != 1 {
		t.Fatalf("%d answers to %q", len(all), raw)
	}
	res := all[0]
	if res.StatusCode < 400 || res.StatusCode > 431 || res.Header.Get(fieldGatewayError) == "" {
		t.Errorf("answered %s", res.Status)
	}
	if body, _ := io.ReadAll(res.Body); bytes.Contains(body, []byte("ZZTOP")) {
		t.Errorf("the answer quotes the request: %s", body)
	}
	if seen := e.requests(); len(seen) != 0 {
		t.Errorf("the upstream saw %q", seen)
	}
}

// The same, when each byte comes by itself.
func TestAmbiguousRequestsAreRefusedInPieces(t *testing.T) {
	for name, raw := range vectors(t, "testdata/refused.txt") {
		whole, pieces := readFraming(t, strings.NewReader(raw+smuggled)), readFraming(t, iotest.OneByteReader(strings.NewReader(raw+smuggled)))
		if (whole == nil) != (pieces == nil) {
			t.Errorf("%s: in one piece %v, in many %v", name, whole, pieces)
		}
	}
}

// readFraming reads all that a framing lets through, and returns why it ended.
func readFraming(t *testing.T, r io.Reader) error {
	t.Helper()
	var f framing
	for buf := make([]byte, 4096); f.err == nil; {
		n, err := r.Read(buf)
		for p := buf[:n]; len(p) > 0 && f.err == nil; {
			kept, used := f.accept(p)
			if used == 0 && kept == 0 && f.err == nil {
				t.Fatalf("stands still at %q", p)
			}
			p = p[used:]
		}
		if errors.Is(err, io.EOF) {
			break
		}
	}
	return f.err
}

// bodies is an upstream that keeps the requests that were whole.
type bodies struct {
	mu    sync.Mutex
	whole []string
}

func (b *bodies) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	b.mu.Lock()
	b.whole = append(b.whole, r.Method+" "+r.RequestURI+" "+string(body))
	b.mu.Unlock()
	_, _ = w.Write([]byte("ok"))
}

func (b *bodies) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	whole := b.whole
	b.whole = nil
	return whole
}

// startBodies starts a gateway in front of bodies.
func startBodies(t testing.TB) (*testGateway, *bodies) {
	t.Helper()
	b := &bodies{}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return startGateway(t, func(c *StateConfig) { c.Upstreams[0].Targets = []*url.URL{at} }), b
}

func TestAmbiguousBodiesAreRefused(t *testing.T) {
	e, upstream := startBodies(t)
	token := e.token("uma", "user")
	for name, body := range vectors(t, "testdata/refused_bodies.txt") {
		for kind, of := range kinds(token) {
			if kind == "error" || kind == "upgrade" {
				continue // answered without reading a body
			}
			t.Run(name+"/"+kind, func(t *testing.T) {
				raw := of("POST /public/x HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n") + body + smuggled
				all := answers(t, "POST", e.talk(raw))
				if len(all) != 1 || all[0].StatusCode != 400 || all[0].Header.Get(fieldGatewayError) != string(codeMalformedRequest) {
					t.Errorf("answers %v", all)
				}
				if whole := upstream.take(); len(whole) != 0 {
					t.Errorf("the upstream saw %q", whole)
				}
			})
		}
	}
}

// A refusal that reads no body still must not take what follows it for a request
// unless the body had an end.
func TestWhatFollowsARefusal(t *testing.T) {
	e, upstream := startBodies(t)
	head := "POST /tasks/1 HTTP/1.1\r\nHost: gateway.test\r\n" // by a stranger
	for name, tc := range map[string]struct {
		raw  string
		want []int
	}{
		"a body of a length":                       {head + "Content-Length: 4\r\n\r\nGET " + smuggled, []int{401, 200}},
		"a body that looks like a request":         {head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(smuggled)) + smuggled + smuggled, []int{401, 200}},
		"a chunked body":                           {head + "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nHost: b\r\n\r\n" + smuggled, []int{401, 200}},
		"a malformed chunked body":                 {head + "Transfer-Encoding: chunked\r\n\r\n2 \r\nab\r\n0\r\n\r\n" + smuggled, []int{401}},
		"a body that was asked for and not needed": {head + "Expect: 100-continue\r\nContent-Length: 4\r\n\r\nGET " + smuggled, []int{401}},
		"an empty line":                            {head + "Content-Length: 0\r\n\r\n\r\n" + smuggled, []int{401, 200}},
		"two empty lines":                          {head + "Content-Length: 0\r\n\r\n\r\n\r\n" + smuggled, []int{401, 400}},
		"a close":                                  {head + "Connection: close\r\nContent-Length: 0\r\n\r\n" + smuggled, []int{401}},
		"HTTP/1.0":                                 {"GET /tasks/1 HTTP/1.0\r\n\r\n" + smuggled, []int{401}},
		"a path that is not canonical":             {get("/a/../b") + smuggled, []int{400, 200}},
		"absolute-form":                            {get("http://gateway.test/public/x") + smuggled, []int{400}},
		"asterisk-form":                            {"OPTIONS * HTTP/1.1\r\nHost: gateway.test\r\n\r\n" + smuggled, []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			raw := tc.raw
			if last := tc.want[len(tc.want)-1]; last == 200 { // then it would stay open
				raw = strings.TrimSuffix(raw, "\r\n") + "Connection: close\r\n\r\n"
			}
			var got []int
			for _, res := range answers(t, "POST", e.talk(raw)) {
				got = append(got, res.StatusCode)
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("answers %v, want %v", got, tc.want)
			}
			want := 0
			if tc.want[len(tc.want)-1] == 200 {
				want = 1
			}
			if seen := upstream.take(); len(seen) != want {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}

// Answers that the gateway gives itself and those that an upstream gives must not
// change places: a cache or proxy in front would give them to the wrong callers.
func TestPipelinedAnswersComeInOrder(t *testing.T) {
	e := startGateway(t)
	var raw strings.Builder
	var want []int
	for range 50 {
		raw.WriteString(get("/tasks") + get("/public/x") + get("/a//b") + get("/public/y") + "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
		want = append(want, 401, 200, 400, 200, 415)
	}
	raw.WriteString(get("/public/z", "Connection: close"))
	want = append(want, 200)
	var got []int
	for _, res := range answers(t, "GET", e.talk(raw.String())) {
		got = append(got, res.StatusCode)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// What is well formed is accepted in any number of pieces.
func TestFramingLetsThroughWhatIsWellFormed(t *testing.T) {
	const chunked = "POST /1 HTTP/1.1\r\nhost: a\r\ntransfer-ENCODING:\tChunked \r\n\r\n"
	for name, tc := range map[string]struct{ in, out string }{
		"no body":               {"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		"an empty line before":  {"\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		"a length":              {"PUT /1 HTTP/1.1\r\nHost: a\r\nCONTENT-length: 5 \r\n\r\nab\n\r\n", ""},
		"chunks":                {chunked + "2\r\nab\r\nA\r\n0123456789\r\n0\r\n\r\n", ""},
		"extensions, trailers":  {chunked + "2;a=\"b\"\r\nab\r\n0;c\r\nX: y\r\nHost: z\r\n\r\n", chunked + "2\r\nab\r\n0\r\n\r\n"},
		"names that look alike": {"GET /1 HTTP/1.1\r\nHost: a\r\nContent-Length-X: a\r\nTransfer-Encodings: b\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.out == "" {
				tc.out = tc.in
			}
			twice := tc.in + tc.in
			for size := 1; size <= len(twice); size++ {
				var f framing
				var got strings.Builder
				for rest := []byte(twice); len(rest) > 0; {
					kept, used := f.accept(rest[:min(size, len(rest))])
					got.Write(rest[:kept])
					rest = rest[used:]
				}
				if got.String() != tc.out+tc.out || f.err != nil {
					t.Fatalf("in pieces of %d: %q, %v", size, got.String(), f.err)
				}
			}
		})
	}
}

func TestValidHost(t *testing.T) {
	for host, want := range map[string]bool{
		"": true, "a": true, "gateway.test": true, "Gateway.TEST:8080": true, "my_service:1": true, "192.0.2.1": true,
		"[::1]": true, "[2001:db8::1]:65535": true, "[::ffff:192.0.2.1]": true, "xn--bcher-kva.example": true,
		".": false, "a.": false, ".a": false, "a..b": false, ":80": false, "a:": false, "a:0": false, "a:01": false, "a:65536": false,
		"a:x": false, "a:1:2": false, "a b": false, "a@b": false, "a/b": false, "a,b": false, "a%41": false, "b\xc3\xbccher": false,
		"[": false, "[]": false, "[::1": false, "::1": false, "[::1]x": false, "[::1%25lo]": false, "[::1%lo]": false, "[192.0.2.1]": false,
		"[::1]:": false, strings.Repeat("a", 256): false,
	} {
		if got := validHost([]byte(host)); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}
