package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// saysThenPanics is a connection to a target that says this much and then brings the
// exchange down.
type saysThenPanics struct {
	net.Conn
	said string
}

func (c *saysThenPanics) Read(p []byte) (int, error) {
	if c.said == "" {
		panic("in the middle of an exchange")
	}
	n := copy(p, c.said)
	c.said = c.said[n:]
	return n, nil
}

// However far an exchange has come when it goes down, what the client gets is no
// answer that is not one, and nothing is left behind.
func TestAPanicIsNoAnswer(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
	post := "POST /public/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
	for road, before := range map[string]string{"fast path": "", "server": "\r\n"} {
		for name, test := range map[string]struct {
			raw, said string
			begun     bool // the answer, when it happens
		}{
			"before there is an answer":  {get("/public/x"), "", false},
			"in the middle of its head":  {get("/public/x"), head[:20], false},
			"after its head":             {get("/public/x"), head, true},
			"in the middle of its body":  {get("/public/x"), head + "half", true},
			"with a body of the request": {post, head + "half", true},
		} {
			t.Run(road+"/"+name, func(t *testing.T) {
				e := startFast(t, func(*Config) {})
				target := e.gateway.state.Load().route("/public/x").upstream.targets[0]
				ours, theirs := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, theirs) }()
				target.put(&upstreamConn{Conn: &saysThenPanics{ours, test.said}, target: target}, 0, 1)
				conn, err := net.Dial("tcp", e.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(conn, before+test.raw+get("/public/next")); err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(conn)
				_ = conn.Close()
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal("the connection does not end")
				}
				said := string(b)
				if test.begun {
					if strings.Count(said, "HTTP/1.1 ") > 1 || strings.Contains(said, "internal_error") || strings.Contains(said, "ok") {
						t.Errorf("the client heard %q", said)
					}
				} else if strings.Count(said, "HTTP/1.1 ") != 1 || !strings.HasPrefix(said, "HTTP/1.1 500 ") || !strings.Contains(said, "Connection: close\r\n") {
					t.Errorf("the client heard %q", said)
				}
				waitUntil(t, func() bool { return e.gateway.clients.count() == 0 })
				if n := target.active.Load(); n != 0 {
					t.Errorf("%d exchanges go on", n)
				}
				if _, err := ours.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("the target's connection is open: %v", err)
				}
				if seen := e.requests(); len(seen) != 0 {
					t.Errorf("the upstream saw %q", seen)
				}
				if log := e.log.String(); strings.Count(log, "msg=request") != 1 || strings.Count(log, "panic: in the middle") != 1 || !strings.Contains(log, "level=ERROR") {
					t.Errorf("log: %s", log)
				}
			})
		}
	}
}

// panicsOnce is a log that brings down the first request that is recorded.
type panicsOnce struct {
	slog.Handler
	done *atomic.Bool
}

func (l panicsOnce) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "request" && !l.done.Swap(true) {
		panic("in the middle of a record")
	}
	return l.Handler.Handle(ctx, r)
}

// Whoever has got an answer gets no other.
func TestAPanicAfterAnAnswerEndsTheConnection(t *testing.T) {
	for road, before := range map[string]string{"fast path": "", "server": "\r\n"} {
		t.Run(road, func(t *testing.T) {
			log := &lockedLog{}
			e := startFast(t, func(c *Config) {
				c.Log = slog.New(panicsOnce{slog.NewTextHandler(log, nil), new(atomic.Bool)})
			})
			conn, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			w := newWire(t, conn)
			w.say(before + get("/public/x"))
			w.head()
			w.hear("ok")
			if said, err := io.ReadAll(w.in); len(said) > 0 || isTimeout(err) {
				t.Errorf("then the client heard %q, %v", said, err)
			}
			waitUntil(t, func() bool { return strings.Contains(log.String(), "panic: in the middle") })
		})
	}
}

// panicReader is a body that brings its reader down.
type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("in the middle of a body") }

// A body is read by a goroutine of its own, which must not take the gateway with it.
func TestAPanicInAnUploadEndsTheExchange(t *testing.T) {
	addr := serveUpstream(t, func(_ int, w *wire) { _, _ = io.Copy(io.Discard, w.in) }) // it has no answer before the body's end
	e := startGateway(t, func(c *StateConfig) {
		c.Upstreams = []UpstreamConfig{{Name: "up", Targets: []*url.URL{{Scheme: "http", Host: addr}}}}
	})
	up := e.gateway.state.Load().route("/public").upstream
	ours, theirs := net.Pipe()
	defer theirs.Close()
	in := inbound{conn: &clientConn{Conn: ours}, body: requestBody{kind: bodyChunked, stream: panicReader{}}}
	_, _, err := up.forward(&in, &outbound{method: "POST", target: "/public/x", host: "h"})
	var refused *refusal
	if !errors.Is(err, errPanic) || !errors.As(upstreamRefusal(err), &refused) || refused.code != codeInternal || !refused.close {
		t.Errorf("%v", err)
	}
	if n := up.targets[0].active.Load(); n != 0 {
		t.Errorf("%d exchanges go on", n)
	}
}

// Whatever a client's bytes bring down, it is that client's connection alone.
func TestAPanicInReadingEndsTheConnection(t *testing.T) {
	e := startFast(t, func(*Config) {})
	fast, done := e.gateway.clients.fast, new(atomic.Bool)
	e.gateway.clients.fast = func(c *clientConn, p []byte) int {
		if !done.Swap(true) {
			panic("in the middle of a request")
		}
		return fast(c, p)
	}
	for _, heard := range []bool{false, true} {
		conn, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, "GET /public/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(conn)
		if isTimeout(err) || heard != strings.HasPrefix(string(said), "HTTP/1.1 200 ") || !heard && len(said) > 0 {
			t.Errorf("the client heard %q, %v", said, err)
		}
	}
	waitUntil(t, func() bool { return e.gateway.clients.count() == 0 })
	if log := e.log.String(); strings.Count(log, "panic: in the middle of a request") != 1 || !strings.Contains(log, "level=ERROR") {
		t.Errorf("log: %s", log)
	}
}
