package gateway

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"portcullis/identity"
	"portcullis/policy"
)

// Config is what cannot change while the gateway runs.
type Config struct {
	HeaderBytes   int           // of a request; more is 431
	HeaderTimeout time.Duration // for a request's header to arrive
	IdleTimeout   time.Duration // for the next request on a connection
	Connections   int           // open at a time, more are answered 503; 0: 256 × 1024
	SharedLimits  *SharedLimits // where replicas count together; nil: each by itself
	Decisions     *DecisionLog  // nil: none
	Hits          HitStore      // where it is stored what rules decide; nil: nowhere
	Log           *slog.Logger
	Tracing       *Tracing   // nil: none
	AccessLog     *AccessLog // for the records of requests that Log's level lets through; nil: Log
	Metrics       prometheus.Registerer

	// ConnectionsPerAddress bounds those of one client: of an IPv4 address or an
	// IPv6 /64 network, which is not a trusted proxy's. 0: as many as there is room for.
	ConnectionsPerAddress int
	ProxyProtocol         ProxyProtocol
	TLS                   *tls.Config  // nil: plain HTTP
	TLSProblem            func() error // why TLS is not as its files say; nil: never
}

// Gateway is the edge server.
type Gateway struct {
	app        *fiber.App
	arrivals   *arrivals
	tlsProblem func() error
	state      atomic.Pointer[State]
	recorder   *recorder
	log        *slog.Logger
	clients    clients
	draining   atomic.Bool
	shared     *SharedLimits
	requests   sync.Pool // of *request
	reloads    *reloads
	// decisions is where decisions are logged; nil: nowhere.
	decisions *DecisionLog
	ledger    *hitLedger // nil: hits are not stored
}

// New returns a Gateway that serves state.
func New(cfg Config, state *State) *Gateway {
	g := &Gateway{log: cfg.Log, tlsProblem: cfg.TLSProblem, recorder: newRecorder(cfg.Log, cfg.AccessLog, cfg.Metrics), reloads: newReloads(cfg.Metrics)}
	g.shared, g.decisions = cfg.SharedLimits, cfg.Decisions
	cfg.Metrics.MustRegister(newGauges(g))
	g.recorder.tracing = cfg.Tracing
	g.state.Store(state)
	g.arrivals = newArrivals(cfg, func(peer netip.Addr) bool { return g.state.Load().trusts(peer) })
	g.reloads.serving(state)
	cfg.Metrics.MustRegister(newShadowCollector(g))
	if cfg.Hits != nil {
		g.ledger = newHitLedger(cfg.Hits)
	}
	g.app = fiber.New(fiber.Config{
		DisableStartupMessage: true,
		// What the server refuses before serve sees it gets our answers, too.
		ErrorHandler: g.refuseUnserved,
		// The policy decides on methods; the server only has to know that they are ones.
		RequestMethods:               append(methods(), "CONNECT", "TRACE"),
		ReadBufferSize:               cfg.HeaderBytes,
		ReadTimeout:                  cfg.HeaderTimeout,
		IdleTimeout:                  cfg.IdleTimeout,
		Concurrency:                  g.arrivals.room.limit + maxLingering, // not its to refuse
		BodyLimit:                    bodyBuffer,
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		DisableHeaderNormalizing:     true,
		DisableDefaultContentType:    true,
		DisableKeepalive:             false,
	})
	g.app.Use(g.serve)
	server := g.app.Server()
	server.SecureErrorLogMessage = true // errors must not quote requests
	server.CloseOnShutdown = true
	server.NoDefaultServerHeader = true
	server.Logger = quietLogger{}
	prepareServer(server)
	known := server.Handler
	server.Handler = g.whileDraining(func(ctx *fasthttp.RequestCtx) {
		// Fiber answers a method it does not know by itself, in its own words.
		if method(ctx.Method()) == "" {
			// What follows need not even be HTTP.
			g.refuse(ctx, &refusal{code: codeMethodUnknown, close: true})
			return
		}
		known(ctx)
	})
	return g
}

// bodyBuffer is how much of a body the server may hold before it streams.
const bodyBuffer = 64 << 10

// quietLogger drops what the HTTP library would log about single connections:
// it quotes requests.
type quietLogger struct{}

func (quietLogger) Printf(string, ...any) {}

// Serve answers requests on ln until Shutdown.
func (g *Gateway) Serve(ln net.Listener) error {
	clients := g.clients.listen(ln)
	clients.arrivals = g.arrivals
	if g.draining.Load() {
		return clients.Close() // Shutdown may have closed the listeners that it knew
	}
	return g.app.Listener(clients)
}

// Swap makes the next request see state. Requests under way end on the one they
// began with.
func (g *Gateway) Swap(state *State) {
	state.adopt(g.state.Load())
	state.succeed(g.state.Load())
	old := g.state.Swap(state)
	if g.ledger != nil {
		g.ledger.collect(old.hits)
		g.ledger.collect(state.hits) // those of before are over
	}
	g.reloads.serving(state)
	g.reloads.count.WithLabelValues("ok").Inc()
	old.close()
}

// Policy is the policy of the State that is served.
func (g *Gateway) Policy() *policy.Policy { return g.state.Load().policy }

// request is what serve learns of one request. It holds copies: the server's
// buffers change under whoever keeps them.
type request struct {
	ctx       *fasthttp.RequestCtx
	header    clientHeader
	method    string
	path      string // canonical and decoded: what routes and policy are about
	target    string // path and query as sent
	host      string
	principal *identity.Principal
	peer      netip.Addr
	client    netip.Addr
	told      told   // by a trusted proxy
	event     *event // the record of it, which an upgraded connection outlives
	fields    []byte // lines for the answer, whosever it is
	limited   []byte // those of rate limits, until it is clear that the caller may see them
	hsts      string // for an answer of ours over TLS; "": nothing
	asked     *asked // by a proxy that does the forwarding; nil: the request is the client's own
	forwarded bool   // the answer is an upstream's: not ours to change or to record
	out       outbound
	buffers   requestBuffers
}

// serve is the whole life of a request. Its order is the security property.
func (g *Gateway) serve(c *fiber.Ctx) error {
	r := g.newRequest(c.Context())
	defer func() {
		if v := recover(); v != nil {
			r.refuse(refuse(codeInternal, recovered(v, debug.Stack())))
		}
		if !r.forwarded {
			r.finish()
			r.event.status, r.event.bytesOut = r.ctx.Response.StatusCode(), int64(len(r.ctx.Response.Body()))
			g.recorder.record(r.event)
		}
		g.release(r)
	}()
	if err := g.road(r); err != nil {
		r.refuse(asRefusal(err))
	}
	return nil
}

// road is what serve wraps: top to bottom, and out at the first refusal.
func (g *Gateway) road(r *request) error {
	st := g.state.Load() // one snapshot for the whole request
	r.hsts = st.hsts
	if err := r.read(st); err != nil {
		return err
	}
	if st.asks(r, r.peer) {
		if err := r.readAsked(st); err != nil { // from here on r is what the proxy asks about
			return err
		}
	}
	g.recorder.tracing.begin(r)
	endpoint, ours := st.endpoints.find(r.method, r.path)
	route := st.route(r.path)
	terms := st.terms(ours, route)
	if r.asked == nil && r.crossOrigin(terms) {
		return nil
	}
	if err := r.limitAddress(terms.limits); err != nil {
		return err
	}
	if !ours || endpoint.readsToken {
		if err := r.authenticate(st); err != nil {
			return err
		}
	}
	if err := r.checkForgery(st); err != nil {
		return err
	}
	denied := g.decide(st, r, routeName(endpoint, ours, route))
	if err := g.limitCaller(r, terms.limits, denied == nil); err != nil { // who is denied has been counted
		return err
	}
	if denied != nil {
		return denied
	}
	if r.asked != nil {
		return r.approve(st, route)
	}
	if ours {
		return endpoint.answer(st, r)
	}
	if route == nil {
		return refuse(codeNotFound, nil)
	}
	return g.forward(st, r, route)
}

// refuse makes the answer a refusal.
func (r *request) refuse(refusal *refusal) {
	r.forwarded = false
	r.event.code, r.event.cause = refusal.code, refusal.cause
	writeRefusal(r.ctx, refusal, r.event.requestID)
}

// read takes the request's head apart and refuses what has two readings.
func (r *request) read(st *State) error {
	ctx, e := r.ctx, r.event
	peer, text := peerOf(ctx)
	r.peer, r.client = peer, peer
	e.requestID, e.clientIP = newRequestID(), text
	e.method = method(ctx.Method())
	r.method = e.method

	head := &ctx.Request.Header
	version := string(head.Protocol())
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return &refusal{code: codeMalformedRequest, cause: errVersion, close: true}
	}
	if err := r.header.read(head.RawHeaders(), version == "HTTP/1.1"); err != nil {
		return &refusal{code: codeMalformedRequest, cause: err, close: true}
	}
	if !validHost(r.header.host) {
		return &refusal{code: codeMalformedRequest, cause: errFieldHost, close: true}
	}
	if st.trusts(peer) {
		r.told = r.header.told(st, peer)
		r.client = clientAddr(st, peer, r.told.addresses)
		e.clientIP = r.client.String()
		if id := r.header.requestID; validRequestID(id) {
			e.requestID = string(id)
		}
	}
	return r.readTarget(head.RequestURI())
}

// readTarget reads what the request is about.
func (r *request) readTarget(target []byte) error {
	e := r.event
	path, query, _ := bytes.Cut(target, []byte{'?'})
	r.copyText(target)
	sent := r.target[:len(path)]
	e.path = clip(sent)
	canonical, err := canonicalPath(r.buffers.path[:0], path)
	if err != nil {
		e.path = "" // it may hold anything
		return &refusal{code: codePathNotCanonical, cause: err, close: errors.Is(err, errPathForm)}
	}
	if !validQuery(query) {
		return refuse(codeMalformedRequest, errPathByte)
	}
	if r.path = sent; !bytes.Equal(canonical, path) {
		r.path = string(canonical)
	}
	return nil
}

// authenticate finds out who is calling, from memory. A stranger is fine; a token
// that does not hold is not.
func (r *request) authenticate(st *State) error {
	token, err := r.token(st)
	if token == nil || err != nil {
		return err
	}
	p, err := st.identity.Verify(token)
	if err != nil {
		return err
	}
	if r.header.cookieCaller && p.Issuer != "" {
		return refuse(codeInvalidToken, errors.New("another issuer's token in a cookie of ours"))
	}
	r.principal = p
	r.event.userID, r.event.sessionID, r.event.tenant = p.UserID, p.SessionID, p.Tenant
	return nil
}

// token is the access token that the client sent; nil if it sent none. A cookie
// only counts where there is no Authorization field.
func (r *request) token(st *State) ([]byte, error) {
	if !r.header.authorizes && r.header.cookies != nil {
		token, err := findCookie(r.header.cookies, st.cookies.name(accessCookie))
		r.header.cookieCaller = token != nil
		return token, err
	}
	if r.header.authorization == nil {
		return nil, nil
	}
	scheme, token, ok := bytes.Cut(r.header.authorization, []byte{' '})
	if !ok || !bytes.EqualFold(scheme, []byte("Bearer")) {
		return nil, refuse(codeInvalidToken, errors.New("not a Bearer token"))
	}
	return token, nil
}

// decide asks the policy. A stranger who may not is asked to sign in: whether
// there is anything behind the path is not for strangers to know.
func (g *Gateway) decide(st *State, r *request, route string) error {
	caller := policy.Caller{}
	if r.principal != nil {
		caller = policy.Caller{Authenticated: true, Roles: r.principal.Roles}
	}
	d := st.policy.Decide(caller, r.method, r.path)
	r.event.rule = d.Rule
	st.hits.Count(d)
	if g.decisions != nil {
		g.decisions.note(st, r, route, caller, d)
	}
	if st.shadow != nil {
		st.shadow.ask(r, caller, d)
	}
	switch {
	case d.Allowed:
		return nil
	case r.principal == nil:
		return refuse(codeUnauthenticated, nil)
	}
	return refuse(codeForbidden, nil)
}

// forward hands the request to the route's upstream and the answer to the client.
func (g *Gateway) forward(st *State, r *request, route *route) error {
	e := r.event
	e.route, e.upstream, e.series = route.Path, route.name, &route.series
	out := &r.out
	*out = outbound{
		method: r.method, target: r.target, host: r.host,
		timeout: route.timeout, maxBody: route.MaxBody, edit: route.answerEdit,
		answerHeader: r.answerHeader(), start: e.start,
	}
	if route.rewriting != nil {
		out.target = route.rewriting.target(r.target)
	}
	if r.header.upgradeListed && upgradable(r.header.upgrade) {
		out.upgrade = string(r.header.upgrade)
		out.done = func(_, bytesOut int64, err error) {
			e.bytesOut, e.cause = bytesOut, err
			g.recorder.record(e)
		}
	}
	raw := r.ctx.Request.Header.RawHeaders()
	// Ours come last, so that nothing the client said can take them away.
	out.header = r.header.appendForwardable(r.buffers.header[:0], raw, route.PassAuthorization)
	if route.requestEdit != nil {
		out.header = route.requestEdit.apply(out.header)
	}
	if r.principal != nil {
		lines, err := st.assertions.fields(st, r.principal, route.name, e.start)
		if err != nil {
			return err
		}
		out.header = append(out.header, lines...)
	} else {
		out.header = append(out.header, route.stranger...)
	}
	out.header = r.appendTrace(out.header)
	r.buffers.header = out.header

	x, err := route.upstream.forward(r.ctx, out)
	e.exchange, e.bytesOut, e.status = x, x.bytesOut, x.status
	r.forwarded = x.answered || x.upgraded || err == nil
	switch {
	case x.upgraded: // recorded when it ends
	case r.forwarded:
		e.cause = err // too late to tell the client anything else
		g.recorder.record(e)
	case err != nil:
		return upstreamRefusal(err)
	}
	return nil
}

// answerHeader is what the gateway adds to an upstream's answer.
func (r *request) answerHeader() []byte {
	h := appendField(append(r.buffers.answer[:0], r.fields...), fieldRequestID, r.event.requestID)
	if r.header.cookieCaller { // caches know what Authorization means, and nothing of our cookies
		h = appendField(h, "Vary", "Cookie")
	}
	r.buffers.answer = h
	return h
}

// appendTrace writes where the request came from and how to find it again.
func (r *request) appendTrace(dst []byte) []byte {
	dst = appendField(dst, fieldRequestID, r.event.requestID)
	_, via := peerOf(r.ctx)
	if len(r.told.addresses) > 0 {
		via = string(r.told.addresses) + ", " + via
	}
	dst = appendField(dst, fieldForwardedFor, via)
	dst = appendField(dst, fieldForwardedProto, r.proto())
	host := r.told.host
	if host == "" {
		host = r.host
	}
	dst = appendField(dst, fieldForwardedHost, host)
	trace, recorded := r.event.traceparent()
	if !recorded {
		trace = string(r.header.traceparent)
	}
	if recorded || validTraceparent(trace) {
		return appendField(dst, fieldTraceparent, trace)
	}
	dst = append(dst, fieldTraceparent+": 00-"...)
	dst = append(appendRandomHex(dst, 2), '-')
	dst = appendRandomHex(dst, 1)
	return append(dst, "-00\r\n"...)
}

// proto is how the client speaks to us, or to the trusted proxy in front.
func (r *request) proto() string {
	switch {
	case r.told.proto != "":
		return r.told.proto
	case cameOverTLS(r.ctx):
		return "https"
	}
	return "http"
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
	} {
		if errors.Is(err, m.err) {
			fromClient := m.code == codeBodyTooLarge || m.code == codeMalformedRequest || m.code == codeRequestTimeout
			return &refusal{code: m.code, cause: err, close: fromClient}
		}
	}
	return err
}

// refuse answers what never reached serve.
func (g *Gateway) refuse(ctx *fasthttp.RequestCtx, r *refusal) {
	_, ip := peerOf(ctx)
	e := &event{start: time.Now(), requestID: newRequestID(), clientIP: ip, code: r.code, cause: r.cause}
	e.status = writeRefusal(ctx, r, e.requestID)
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
	if conn != nil && conn.framing.err != nil {
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
	c.Context().Response.SkipBody = conn != nil && conn.framing.answeredWithoutBody()
	return nil
}

// newRequestID returns 32 hexadecimal digits, fit for a trace id as well. It is a
// name, not a secret.
func newRequestID() string {
	var b [32]byte
	return string(appendRandomHex(b[:0], 2))
}

// appendRandomHex appends so many times 16 hexadecimal digits.
func appendRandomHex(dst []byte, words int) []byte {
	for range words {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], rand.Uint64()) //nolint:gosec // a name, not a secret
		dst = hex.AppendEncode(dst, b[:])
	}
	return dst
}
