package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

const expecting = "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"

func TestForwardLetsTheUpstreamDecideAboutTheBody(t *testing.T) {
	for name, framing := range map[string]struct{ field, body, sees string }{
		"of a length":             {"Content-Length: 5\r\n", "hello", "hello"},
		"of more than fits":       {"Content-Length: 40000\r\n", strings.Repeat("x", 40000), strings.Repeat("x", 40000)},
		"of chunks":               {"Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"},
		"of more than is read at": {"Content-Length: 8192\r\n", strings.Repeat("x", 8192), strings.Repeat("x", 8192)},
	} {
		asks := "PUT / HTTP/1.1\r\nHost: h\r\nX-Ours: yes\r\n" + framing.field + "Expect: 100-continue\r\n\r\n"
		t.Run("which is wanted, "+name, func(t *testing.T) {
			noLeaks(t)
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.hear(asks)
				w.silent() // the client was not told to send it
				w.say(interimContinue)
				w.hear(framing.sees)
				w.say(okAnswer)
				w.hear("GET") // the connection is good for more
				w.head()
				w.say(okAnswer)
			})
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
			c := e.dial()
			c.say(expecting + framing.field + "\r\n")
			c.hear(interimContinue)
			c.say(framing.body)
			c.hear(okAnswer)
			if r := e.result(); r.err != nil {
				t.Error(r.err)
			}
			c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			c.hear(okAnswer)
		})
		t.Run("which is not wanted, "+name, func(t *testing.T) {
			noLeaks(t)
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.hear(asks)
				w.say("HTTP/1.1 417 Expectation Failed\r\nDate: x\r\nContent-Length: 2\r\n\r\nno")
				w.hearEnd()
			})
			c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
			c.say(expecting + framing.field + "\r\n")
			c.hear("HTTP/1.1 417 Expectation Failed\r\nDate: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			c.hearEnd()
		})
		t.Run("which is sent without waiting, "+name, func(t *testing.T) {
			noLeaks(t)
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.hear(asks)
				w.say(interimContinue)
				w.hear(framing.sees)
				w.say(okAnswer)
			})
			c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
			c.say(expecting + framing.field + "\r\n" + framing.body)
			c.hear(interimContinue + okAnswer)
		})
		t.Run("which is sent without waiting, and not wanted, "+name, func(t *testing.T) {
			noLeaks(t)
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.hear(asks)
				w.say("HTTP/1.1 413 Content Too Large\r\nDate: x\r\nContent-Length: 2\r\n\r\nno")
				w.hearEnd()
			})
			c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
			c.say(expecting + framing.field + "\r\n" + framing.body)
			c.hear("HTTP/1.1 413 Content Too Large\r\nDate: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			c.hearEnd()
		})
	}
}

func TestForwardSendsTheBodyToAnUpstreamThatDoesNotKnowExpect(t *testing.T) {
	noLeaks(t)
	asked := make(chan time.Time, 1)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		asked <- time.Now()
		w.hear("hello")
		w.say(okAnswer)
	})
	c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
	c.say(expecting + "Content-Length: 5\r\n\r\n")
	c.hear(interimContinue)
	if waited := time.Since(<-asked); waited < continueDelay/2 {
		t.Errorf("after %v already", waited)
	}
	c.say("hello")
	c.hear(okAnswer)
}

func TestForwardIgnoresExpectWithoutABody(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		for range 2 {
			w.hear("GET / HTTP/1.1\r\nHost: h\r\nX-Ours: yes\r\n\r\n")
			w.say(okAnswer)
		}
	})
	c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
	for range 2 {
		c.say("GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n")
		c.hear(okAnswer)
	}
}

func TestAHandlerDecidesAboutTheBodyItself(t *testing.T) {
	accept := func(ctx *fasthttp.RequestCtx, out *outbound) {
		if string(ctx.RequestURI()) == "/accept" {
			if err := acceptBody(ctx); err != nil {
				t.Error(err)
			}
			if got := string(ctx.Request.Body()); got != "hello" {
				t.Errorf("body %q", got)
			}
		}
		out.method = "SELF"
	}
	own := "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown"
	for name, body := range map[string]struct{ framing, body string }{
		"with a length": {"Content-Length: 5\r\n\r\n", "hello"},
		"chunked":       {"Transfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"},
	} {
		head := " HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n" + body.framing
		t.Run("and wants it, "+name, func(t *testing.T) {
			noLeaks(t)
			c := serveEdge(t, testUpstream(t, upstreamOptions{}, "127.0.0.1:1"), accept).dial()
			for range 2 {
				c.say("PUT /accept" + head)
				c.hear(interimContinue)
				c.say(body.body)
				c.hear(own)
			}
		})
		t.Run("and does not, "+name, func(t *testing.T) {
			noLeaks(t)
			c := serveEdge(t, testUpstream(t, upstreamOptions{}, "127.0.0.1:1"), accept).dial()
			c.say("PUT /refuse" + head)
			c.hear(own)
			c.hearEnd() // whether the body comes now can't be known
		})
	}
}
