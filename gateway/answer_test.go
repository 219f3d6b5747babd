package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzAnswerHead holds the parser to what it promises: it never reads two
// answers into one, never lets through what it refuses, and never understands a
// framing that net/http does not understand in the same way.
func FuzzAnswerHead(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
		"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
		"HTTP/1.0 404 Not Found\nX: y\n\n",
		"HTTP/1.1 204 No Content\nContent-Length: 0\nConnection: close, x-a\nX-A: 1\n\n",
		"HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n",
		"HTTP/1.1 200\nSet-Cookie: a\nSet-Cookie: b\nDate: x\n\n",
	} {
		f.Add([]byte(crlf(seed)))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		end, err := headEnd(p, 0)
		for seen := range min(len(p), 64) { // however it arrives
			if again, err2 := headEnd(p, seen); seen < end && again != end || end == 0 && err == nil && (again != 0 || err2 != nil) {
				t.Fatalf("%q after %d: %d, %v; whole: %d, %v", p, seen, again, err2, end, err)
			}
		}
		if err != nil || end == 0 {
			return
		}
		var a answerHead
		head, err := a.parse(nil, p[:end])
		if err != nil {
			return
		}
		for _, line := range strings.SplitAfter(string(head), "\r\n") {
			if line != "" && !strings.HasSuffix(line, "\r\n") || strings.Contains(strings.TrimSuffix(line, "\r\n"), "\n") || strings.HasPrefix(line, " ") {
				t.Fatalf("%q passes on the line %q", p, line)
			}
			name, _, _ := strings.Cut(strings.ToLower(line), ":")
			switch name {
			case "connection", "transfer-encoding", "keep-alive", "upgrade", "trailer", "te", "x-gateway-error":
				t.Fatalf("%q passes on %q", p, line)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(p)), nil)
		if err != nil {
			return // stricter than we are is fine: the client will see what there is
		}
		defer resp.Body.Close()
		if resp.StatusCode != a.status {
			t.Fatalf("%q: status %d, net/http %d", p, a.status, resp.StatusCode)
		}
		if a.status < 200 {
			return // net/http takes 1xx for final when asked like this
		}
		chunked := len(resp.TransferEncoding) > 0
		switch kind := a.body(false); {
		case kind == bodyChunked != chunked && kind != bodyNone:
			t.Fatalf("%q: kind %d, net/http %v", p, kind, resp.TransferEncoding)
		case kind == bodyLength && resp.ContentLength != a.length:
			t.Fatalf("%q: length %d, net/http %d", p, a.length, resp.ContentLength)
		case kind == bodyUntilClose && resp.ContentLength != -1:
			t.Fatalf("%q: no length, net/http %d", p, resp.ContentLength)
		}
	})
}

// FuzzChunkFilter holds the filter to net/http's reader of chunked bodies, and
// to itself: how the bytes arrive must make no difference.
func FuzzChunkFilter(f *testing.F) {
	for _, seed := range []string{
		"5\nhello\n0\n\n", "5;x=y\nhello\n00\nA: b\n\nrest", "a\n0123456789\n1\nx\n0\n\n", "F\n", "1\nab", "0\n\n", "0;\n\n",
	} {
		f.Add([]byte(crlf(seed)), uint8(1))
	}
	f.Fuzz(func(t *testing.T, p []byte, step uint8) {
		run := func(bare bool, step int) (out []byte, used int, done bool, err error) {
			filter := chunkFilter{bare: bare}
			for used < len(p) && !filter.done() && err == nil {
				piece := bytes.Clone(p[used:min(used+step, len(p))])
				var kept, n int
				kept, n, err = filter.filter(piece)
				out, used = append(out, piece[:kept]...), used+n
			}
			return out, used, filter.done(), err
		}
		framed, used, done, err := run(false, max(len(p), 1))
		bare, _, _, _ := run(true, max(len(p), 1))
		stepped, used2, done2, err2 := run(false, int(step)+1)
		if err == nil && (!bytes.Equal(framed, stepped) || used != used2) || done != done2 || (err == nil) != (err2 == nil) {
			t.Fatalf("%q: %q, %d, %v, %v; in steps of %d: %q, %d, %v, %v", p, framed, used, done, err, int(step)+1, stepped, used2, done2, err2)
		}
		if !done {
			return
		}
		// The answer that carries it, for a parser that we did not write.
		read := func(body []byte) []byte {
			in := bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(body)))
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatalf("%q, filtered from %q: %v", body, p, err)
			}
			if n := in.Buffered(); n > 0 {
				t.Fatalf("%q, filtered from %q: %d bytes left", body, p, n)
			}
			return got
		}
		if got := read(framed); !bytes.Equal(got, bare) {
			t.Fatalf("%q, filtered from %q: %q, want %q", framed, p, got, bare)
		}
	})
}

func TestChunkFilterLimitsWhatIsNoData(t *testing.T) {
	for name, body := range map[string]string{
		"an extension":  "1;" + strings.Repeat("x", maxChunkOverhead+1),
		"a trailer":     "0\r\n" + strings.Repeat("x", maxChunkOverhead+1),
		"many trailers": "0\r\n" + strings.Repeat("X: y\r\n", maxChunkOverhead/4+1),
	} {
		var f chunkFilter
		if _, _, err := f.filter([]byte(body)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestFrameChunk(t *testing.T) {
	var buf [largeBuffer]byte
	for n, want := range map[int]string{1: "1\r\n", 255: "ff\r\n", 4660: "1234\r\n", largeBuffer - chunkPrefix - chunkSuffix: "1fff7\r\n"} {
		for i := range buf {
			buf[i] = 'x'
		}
		if got := string(frameChunk(&buf, n)); got != want+strings.Repeat("x", n)+"\r\n" {
			t.Errorf("%d: %.20q…%q", n, got, got[len(got)-4:])
		}
	}
}
