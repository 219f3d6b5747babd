package gateway

import (
	"errors"

	"github.com/valyala/fasthttp"
)

// prepareServer sets what forwardServed relies on.
func prepareServer(s *fasthttp.Server) {
	s.StreamRequestBody = true
	s.ExpectHandler = expectContinue
}

// forwardServed is forward for a request that has come through the server, on a
// connection that was accepted by a clientListener. When it returns without an error,
// the caller must leave ctx.Response alone.
//
// If ctx.SetConnectionClose was called before, the answer says that the
// connection ends, and it does.
func (u *upstream) forwardServed(ctx *fasthttp.RequestCtx, out *outbound) (exchange, error) {
	in := inbound{
		conn: clientConnOf(ctx), body: requestBodyOf(ctx, out.method), http10: !ctx.Request.Header.IsHTTP11(),
		closing: ctx.Request.Header.ConnectionClose() || ctx.Response.Header.ConnectionClose(),
	}
	if in.conn == nil {
		return exchange{}, errors.New("forward: the connection is not a clientListener's")
	}
	select {
	case <-ctx.Done(): // the server is shutting down
		in.closing = true
	default:
	}
	x, t, err := u.forward(&in, out)
	switch {
	case t != nil:
		ctx.HijackSetNoResponse(true)
		ctx.Hijack(t.run) // when the handler has returned
	case err == nil:
		ctx.Response.Reset()
		ctx.Response.SetStatusCode(x.status)
		ctx.Response.SkipBody = true
		in.conn.answered()
	}
	if x.closing {
		ctx.SetConnectionClose()
	}
	return x, err
}
