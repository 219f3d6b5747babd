package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portcullis/policy"
)

// FuzzFraming sends raw bytes to a gateway that allows everything, in front of an
// upstream that parses with net/http. What the upstream has seen whole must be what
// the reference below reads, and the gateway answers as often as it says.
func FuzzFraming(f *testing.F) {
	for _, file := range []string{"testdata/refused.txt", "testdata/refused_bodies.txt"} {
		for _, raw := range vectors(f, file) {
			if strings.HasSuffix(file, "bodies.txt") {
				raw = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + raw
			}
			f.Add([]byte(raw))
			f.Add([]byte(raw + smuggled))
		}
	}
	for _, raw := range []string{
		get("/a"), get("/a") + get("/b?c") + get("/../d") + get("/e"), "\r\n" + get("/a") + "\r\n" + get("/b"),
		"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" + get("/b"),
		"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\nX: y\r\n\r\n" + get("/b"),
		"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc" + get("/b"),
		"POST /a//b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n" + get("/b"),
		"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get("/b"), "GET /a HTTP/1.0\r\n\r\n" + get("/b"),
		"GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + get("/b"),
		"HEAD /a!HTTP/1.1\r\nHost: h\r\n\r\n",
		"HEAD /a HTTP/1.1\r\nHost: h\r\nContent_Length: 5\r\nTransfer.Encoding: chunked\r\n\r\n" + get("/b"),
	} {
		f.Add([]byte(raw))
	}
	e, upstream := startBodies(f)
	open, err := policy.Parse("open.csv", []byte("p, anonymous, /*, *, allow"))
	if err != nil {
		f.Fatal(err)
	}
	cfg := e.config
	cfg.Policy, cfg.Routes = open, []RouteConfig{{Path: "/", Upstream: "up"}}
	state, err := NewState(cfg)
	if err != nil {
		f.Fatal(err)
	}
	e.gateway.Swap(state)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if folded := strings.ToLower(string(raw)); len(raw) > 8000 || strings.Contains(folded, "railer:") || strings.Count(folded, "\nconnection:") > 1 ||
			strings.Contains(folded, "/auth") || strings.Contains(folded, "/.well") {
			return // one head and body has room; what the HTTP library reads in its own, stricter way; own endpoints
		}
		want := referenceRead(raw)
		conn, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // else it would leave too many sockets behind
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(4 * time.Second))
		sent := make(chan struct{})
		go func() { defer close(sent); _, _ = conn.Write(raw) }()
		r := bufio.NewReader(conn)
		for i, method := range want.methods {
			if res, err := readAnswer(r, method); err != nil || (res.StatusCode == 200) != want.forwarded[i] {
				t.Fatalf("answer %d of %d to %q: %v, %v", i+1, len(want.methods), raw, res, err)
			}
		}
		<-sent
		if want.ends {
			if rest, err := io.ReadAll(r); len(rest) > 0 {
				t.Fatalf("%q after the last answer to %q, %v", rest, raw, err)
			}
		}
		if got := upstream.take(); !slices.Equal(got, want.upstream) {
			t.Fatalf("%q\nupstream saw %q\nreference     %q", raw, got, want.upstream)
		}
	})
}

// readAnswer reads the next answer that is not an interim one.
func readAnswer(r *bufio.Reader, method string) (*http.Response, error) {
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if _, err = io.Copy(io.Discard, res.Body); err != nil || res.StatusCode >= 200 {
			return res, err
		}
	}
}

// reading is what strict reading makes of the bytes of a connection.
type reading struct {
	methods   []string // of the requests that are answered
	forwarded []bool   // whether by the upstream
	upstream  []string // the requests that it sees, as bodies keeps them
	ends      bool     // the gateway ends the connection after the last answer
}

func (r *reading) answer(method string, forwarded bool) {
	r.methods, r.forwarded = append(r.methods, method), append(r.forwarded, forwarded)
}

// referenceRead reads requests by RFC 9112, and refuses what the gateway is to
// refuse. It is written to be plain, not fast, and shares with the gateway only
// what is not about framing.
func referenceRead(raw []byte) (out reading) {
	for {
		raw = bytes.TrimPrefix(raw, []byte("\r\n"))
		m, state := referenceHead(raw)
		switch state {
		case unfinished:
			return out
		case malformed:
			if m.size > 0 && m.length > len(raw)-m.size { // told once some of the body has come
				return out
			}
			out.answer(m.method, false)
			out.ends = true
			return out
		}
		body, rest, state := referenceBody(m, raw[m.size:])
		if state == unfinished { // who is refused may or may not be told before all of it has come
			return out
		}
		forwarded := !m.refused && state == whole
		out.answer(m.method, forwarded)
		if forwarded {
			out.upstream = append(out.upstream, m.method+" "+m.target+" "+body)
		}
		if m.close || state == malformed || !forwarded && m.expect {
			out.ends = true
			return out
		}
		raw = rest
	}
}

type readState int

const (
	whole readState = iota
	unfinished
	malformed
)

// message is a request's head.
type message struct {
	method, target string
	size           int // of the head in bytes
	length         int // of the body; -1: chunked
	refused        bool
	close, expect  bool
}

// referenceHead reads a head. A line that is none shows at once, what is wrong with
// the rest when the head is whole.
func referenceHead(raw []byte) (m message, state readState) {
	var lines []string
	for rest := raw; ; {
		line, after, ok := strings.Cut(string(rest), "\n")
		if !ok {
			return m, unfinished
		}
		if len(lines) == 0 {
			if name, _, ok := strings.Cut(line, " "); ok {
				m.method = name
			}
		}
		line, ok = strings.CutSuffix(line, "\r")
		if !ok || line == "" && len(lines) == 0 {
			return m, malformed
		}
		if rest = []byte(after); line == "" {
			m.size = len(raw) - len(rest)
			break
		}
		lines = append(lines, line)
	}
	words := strings.Split(lines[0], " ")
	m, state = referenceFields(m, lines[1:], words[len(words)-1] == "HTTP/1.1")
	if len(words) != 3 || words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0" || method([]byte(m.method)) == "" {
		return m, malformed
	}
	m.target = words[1]
	path, query, _ := strings.Cut(m.target, "?")
	_, err := canonicalPath(nil, []byte(path))
	m.refused = m.refused || err != nil || strings.ContainsFunc(query, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' })
	if !strings.HasPrefix(m.target, "/") || strings.ContainsFunc(m.target, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return m, malformed
	}
	return m, state
}

func referenceFields(m message, lines []string, http11 bool) (message, readState) {
	fields, bad := map[string][]string{}, false
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		bad = bad || !ok || name == "" || strings.ContainsFunc(name, func(c rune) bool { return c > 0x7f || !tokenByte(byte(c)) }) ||
			strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
		name = strings.ToLower(name)
		fields[name] = append(fields[name], strings.Trim(value, " \t"))
	}
	hosts, lengths, codings := fields["host"], fields["content-length"], fields["transfer-encoding"]
	if len(lengths) == 1 {
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		bad = bad || err != nil || strings.Trim(lengths[0], "0123456789") != "" || len(lengths[0]) > 18
		m.length = int(n)
	}
	if bad || len(hosts) > 1 || http11 && (len(hosts) == 0 || hosts[0] == "") || len(hosts) == 1 && !validHost([]byte(hosts[0])) ||
		len(lengths)+len(codings) > 1 || len(codings) == 1 && (!http11 || !strings.EqualFold(codings[0], "chunked")) || len(fields["authorization"]) > 1 {
		return m, malformed
	}
	if len(codings) == 1 {
		m.length = -1
	}
	m.refused = m.refused || len(fields["authorization"]) == 1
	m.expect = http11 && len(fields["expect"]) > 0 && strings.EqualFold(fields["expect"][0], "100-continue")
	m.close = !http11
	for option := range strings.SplitSeq(strings.Join(fields["connection"], ","), ",") {
		switch strings.ToLower(strings.Trim(option, " \t")) {
		case "close":
			m.close = true
			return m, whole
		case "keep-alive":
			m.close = false
		}
	}
	return m, whole
}

func referenceBody(m message, raw []byte) (body string, rest []byte, state readState) {
	if m.length >= 0 {
		if len(raw) < m.length {
			return "", nil, unfinished
		}
		return string(raw[:m.length]), raw[m.length:], whole
	}
	for {
		line, rest, state := referenceLine(raw)
		if state != whole {
			return "", nil, state
		}
		digits, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(digits, 16, 60)
		if err != nil || strings.Trim(digits, "0123456789abcdefABCDEF") != "" || len(digits) > 15 {
			return "", nil, malformed
		}
		if raw = rest; n == 0 {
			break
		}
		if uint64(len(raw)) < n {
			return "", nil, unfinished
		}
		body += string(raw[:n])
		switch end := string(raw[n:min(uint64(len(raw)), n+2)]); end {
		case "\r\n":
		case "", "\r":
			return "", nil, unfinished
		default:
			return "", nil, malformed
		}
		raw = raw[n+2:]
	}
	for { // trailers
		line, rest, state := referenceLine(raw)
		if state != whole || line == "" {
			return body, rest, state
		}
		raw = rest
	}
}

// referenceLine reads a line of a chunked body's frame.
func referenceLine(raw []byte) (line string, rest []byte, state readState) {
	for i, c := range raw {
		switch {
		case c == '\n' && i > 0 && raw[i-1] == '\r':
			return string(raw[:i-1]), raw[i+1:], whole
		case i > 0 && raw[i-1] == '\r', c < ' ' && c != '\t' && c != '\r', c == 0x7f:
			return "", nil, malformed
		}
	}
	return "", nil, unfinished
}
