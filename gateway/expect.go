package gateway

import "github.com/valyala/fasthttp"

const interimContinue = "HTTP/1.1 100 Continue\r\n\r\n"

// expectContinue is the server's ExpectHandler. It lets the handler run before
// the client is told to send the body: forward lets the upstream decide, and
// handlers that read a body themselves call acceptBody first. If nobody does,
// the connection ends with the answer.
func expectContinue(ctx *fasthttp.RequestCtx) int {
	if c := clientConnOf(ctx); c != nil {
		c.held = true
	}
	return fasthttp.StatusContinue
}

// acceptBody tells a client that waits for "100 Continue" to send its body.
// Handlers that read a request's body themselves call it before.
func acceptBody(ctx *fasthttp.RequestCtx) error {
	c := clientConnOf(ctx)
	if c == nil || !c.held {
		return nil
	}
	c.held = false
	_, err := c.send([]byte(interimContinue))
	return err
}
