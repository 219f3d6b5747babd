package gateway

import (
	"crypto/tls"
	"log/slog"
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
	g.clients.fast = g.fastPath
	g.clients.crashed = func(cause error) { g.log.Error("a connection was cut", "cause", cause) }
	g.clients.parking = parking{after: parkAfter, header: cfg.HeaderTimeout, idle: cfg.IdleTimeout, serve: server.ServeConn}
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

// request is what is learnt of one request. It holds copies: the buffers that head and
// header point into change under whoever keeps them.
type request struct {
	conn      *clientConn
	ctx       *fasthttp.RequestCtx // the server's; nil on the fast path
	answer    *fasthttp.Response   // to be filled if the answer is ours
	come      []byte               // on the fast path: what came behind the head
	body      requestBody          // on the fast path
	closing   bool                 // on the fast path: the connection ends with the answer
	head      requestHead
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

// serve answers a request that comes through the server.
func (g *Gateway) serve(c *fiber.Ctx) error {
	ctx := c.Context()
	r := g.newRequest(clientConnOf(ctx), headOf(ctx))
	r.ctx, r.answer = ctx, &ctx.Response
	g.walk(r)
	g.release(r)
	return nil
}

// walk is the whole life of a request. It reports false if the request is the server's
// to answer, and nothing has been done about it.
func (g *Gateway) walk(r *request) (walked bool) {
	defer func() {
		if v := recover(); v != nil {
			g.crashed(r, recovered(v, debug.Stack()))
			walked = true
		}
		if walked && !r.forwarded {
			r.finish()
			r.event.status, r.event.bytesOut = r.answer.StatusCode(), int64(len(r.answer.Body()))
			g.recorder.record(r.event)
		}
	}()
	err := g.road(r)
	if err == errForServer { //nolint:errorlint // nobody wraps it
		return false
	}
	if err != nil {
		r.refuse(asRefusal(err))
	}
	return true
}

// crashed is for a request whose walk was ended by a panic. Its connection ends, too:
// nobody knows how much of it was read.
func (g *Gateway) crashed(r *request, cause error) {
	if r.forwarded { // the client has its answer, and must not get another
		r.conn.cut(true)
		g.log.Error("after an answer", "request_id", r.event.requestID, "cause", cause)
		return
	}
	r.refuse(&refusal{code: codeInternal, cause: cause, close: true})
}

// road is what walk wraps: top to bottom, and out at the first refusal. Its order is the
// security property.
func (g *Gateway) road(r *request) error {
	st := g.state.Load() // one snapshot for the whole request
	r.hsts = st.hsts
	err := r.read(st)
	if r.ctx == nil && (err != nil || !r.ordinary() || st.serves(r)) {
		return errForServer
	}
	if err != nil {
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
		return r.approve(st, ours, route)
	}
	if ours {
		return endpoint.answer(st, r)
	}
	if route == nil {
		return refuse(codeNotFound, nil)
	}
	return g.forward(st, r, route)
}
