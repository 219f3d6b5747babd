package gateway

import (
	"errors"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// refuse makes the answer a refusal.
func (r *request) refuse(refusal *refusal) {
	r.forwarded = false
	r.event.code, r.event.cause = refusal.code, refusal.cause
	writeRefusal(r.answer, refusal, r.event.requestID)
	r.conn.linger = r.conn.linger || r.answer.ConnectionClose()
}

// upstreamRefusal maps the failures of an exchange to what the client is told.
func upstreamRefusal(err error) error {
	for _, m := range []struct {
		err  error
		code code
	}{
		{errNoTarget, codeNoTarget},
		{errUpstreamTimeout, codeUpstreamTimeout},
		{errUpstreamMalformed, codeUpstreamMalformed},
		{errUnreachable, codeUpstreamUnreach},
		{errBodyTooLarge, codeBodyTooLarge},
		{errBadBody, codeMalformedRequest},
		{errBodyTimeout, codeRequestTimeout},
		{errClientGone, codeMalformedRequest},
		{errPanic, codeInternal},
	} {
		if errors.Is(err, m.err) {
			fromClient := m.code == codeBodyTooLarge || m.code == codeMalformedRequest || m.code == codeRequestTimeout
			return &refusal{code: m.code, cause: err, close: fromClient || m.code == codeInternal}
		}
	}
	return err
}

// refuse answers what never reached serve.
func (g *Gateway) refuse(ctx *fasthttp.RequestCtx, r *refusal) {
	conn := clientConnOf(ctx)
	_, ip := conn.peerAddr()
	e := &event{start: time.Now(), requestID: newRequestID(), clientIP: ip, code: r.code, cause: r.cause}
	e.status = writeRefusal(&ctx.Response, r, e.requestID)
	conn.linger = conn.linger || ctx.Response.ConnectionClose()
	e.bytesOut = int64(len(ctx.Response.Body()))
	g.recorder.record(e)
}

// refuseUnserved answers requests that the server could not make sense of. The
// error quotes what the client sent, so it is neither shown nor, but for what
// framing says, logged.
func (g *Gateway) refuseUnserved(c *fiber.Ctx, err error) error {
	refused := &refusal{code: codeMalformedRequest, close: true}
	var fe *fiber.Error
	conn := clientConnOf(c.Context())
	if conn.framing.err != nil {
		refused.cause = conn.framing.err
	} else if errors.As(err, &fe) {
		switch fe.Code {
		case fiber.StatusRequestHeaderFieldsTooLarge:
			refused.code = codeHeaderTooLarge
		case fiber.StatusRequestTimeout:
			refused.code = codeRequestTimeout
		case fiber.StatusRequestEntityTooLarge:
			refused.code = codeBodyTooLarge
		}
	}
	g.refuse(c.Context(), refused)
	c.Context().Response.SkipBody = conn.framing.answeredWithoutBody()
	return nil
}
