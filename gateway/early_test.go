package gateway

import (
	"io"
	"net"
	"net/url"
	"testing"
	"time"
)

// A target may say what it has to say, that it is overloaded, as soon as it is connected
// to. That is an answer, and is not to be slept through.
func TestAnAnswerThatIsThereBeforeTheRequest(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, okAnswer)
		_, _ = io.Copy(io.Discard, conn)
	}()
	at, err := newTarget(&url.URL{Scheme: "http", Host: ln.Addr().String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := at.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	waitUntil(t, func() bool { return readable(c.raw) })
	time.Sleep(10 * time.Millisecond) // for the poller to hear of it, too: without, less is tested
	if err := c.arm(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	in := make([]byte, 100)
	if n, err := c.round([]byte(get("/x")), in); err != nil || string(in[:n]) != okAnswer {
		t.Errorf("%q, %v", in[:n], err)
	}
}
