package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"portcullis/identity"
	"portcullis/policy"
)

// StateConfig is everything that must agree for a request: it is swapped as a
// whole or not at all.
type StateConfig struct {
	Policy         *policy.Policy
	Identity       *identity.Service
	Prefix         string // of the identity endpoints; "" puts them at the root
	Upstreams      []UpstreamConfig
	Routes         []RouteConfig
	CORS           CORS // of the identity endpoints
	RateLimits     []RateLimit
	OwnRateLimits  []string       // names of those for the identity endpoints
	HSTS           string         // Strict-Transport-Security of the gateway's own answers over TLS; "": none
	TrustedProxies []netip.Prefix // whose X-Forwarded-For and X-Request-Id are believed
	Cookies        CookieConfig
}

// UpstreamConfig is a service behind the gateway. Its name is the audience of
// the assertions it gets.
type UpstreamConfig struct {
	Name             string
	Targets          []*url.URL // http or https, host and port
	LeastConnections bool       // instead of round robin
	ConnectTimeout   time.Duration
	HeaderTimeout    time.Duration // until an answer's header
	IdleTimeout      time.Duration // for bodies to stand still, and for idle connections
	TLS              *tls.Config   // for https targets; nil: the system's roots
	HealthPath       string        // "": no active checks
	HealthInterval   time.Duration
	HealthTimeout    time.Duration
	Headers          string // names of the identity fields: portcullis (or ""), oauth2-proxy, authelia, kong
	OpenAPI          []byte // its API description, shown beside the gateway's
}

func (u UpstreamConfig) open() (*upstream, error) {
	return newUpstream(u.Name, upstreamOptions{
		targets: u.Targets, leastConnections: u.LeastConnections, idleTimeout: u.IdleTimeout, tls: u.TLS,
		health: healthOptions{path: u.HealthPath, interval: u.HealthInterval, timeout: u.HealthTimeout},
	})
}

func (u UpstreamConfig) timeouts() routeTimeouts {
	return routeTimeouts{connect: u.ConnectTimeout, header: u.HeaderTimeout, idle: u.IdleTimeout}
}

// RouteConfig sends what is under a path to an upstream.
type RouteConfig struct {
	Path              string // canonical; what is beneath it belongs to it
	Upstream          string
	PassAuthorization bool          // forward the client's Authorization field
	MaxBody           int64         // bytes; 0: no limit
	HeaderTimeout     time.Duration // until the answer's header; 0: the upstream's
	IdleTimeout       time.Duration // for bodies to stand still; 0: the upstream's
	Rewrite           string        // a canonical path, in place of Path towards the upstream; "": Path stays
	RequestHeaders    HeaderEdit    // of what the client sent; what the gateway says is added after it
	ResponseHeaders   HeaderEdit    // of the upstream's answers
	CORS              CORS
	RateLimits        []string // names
}

// State is what one request sees of the configuration, from its beginning to
// its end, whatever is swapped meanwhile.
type State struct {
	loaded         time.Time
	policy         *policy.Policy
	identity       *identity.Service
	endpoints      *endpoints
	routes         []*route // longest path first
	upstreams      map[string]*upstream
	presets        map[string]preset // by upstream
	trustedProxies []netip.Prefix
	assertions     *assertions
	cookies        CookieConfig
	ownTerms       terms // of the identity endpoints
	hsts           string
	limits         map[string]*limit // by name
}

// terms are what holds on a path before anybody knows who is calling.
type terms struct {
	path   string // for the record
	cors   *cors
	limits *limits
}

// route is a RouteConfig with its upstream found.
type route struct {
	RouteConfig
	name     string // of the upstream
	upstream *upstream
	timeout  routeTimeouts
	own      terms
	stranger []byte // field lines for a request of nobody
	series   series
	// nil where the route changes nothing.
	rewriting   *rewriting
	requestEdit *requestEdit
	answerEdit  *answerEdit
}

// newRoute finds out whether a route can be served.
func newRoute(cfg RouteConfig, up *upstream, timeout routeTimeouts) (*route, error) {
	r := &route{RouteConfig: cfg, name: cfg.Upstream, upstream: up, timeout: timeout}
	if cfg.HeaderTimeout > 0 {
		r.timeout.header = cfg.HeaderTimeout
	}
	if cfg.IdleTimeout > 0 {
		r.timeout.idle = cfg.IdleTimeout
	}
	var errs []error
	fail := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("route %s: %s%w", cfg.Path, what, err))
		}
	}
	if c, err := canonicalPath(nil, []byte(cfg.Path)); err != nil || string(c) != cfg.Path || cfg.Path != "/" && strings.HasSuffix(cfg.Path, "/") {
		fail("", errors.New("not a canonical path without a trailing slash"))
	}
	var err error
	if cfg.Rewrite != "" {
		r.rewriting, err = newRewriting(cfg.Path, cfg.Rewrite)
		fail("rewrite "+cfg.Rewrite+" ", err)
	}
	r.requestEdit, err = newRequestEdit(cfg.RequestHeaders)
	fail("request_headers: ", err)
	r.answerEdit, err = newAnswerEdit(cfg.ResponseHeaders, r.rewriting)
	fail("response_headers: ", err)
	r.own.path = cfg.Path
	r.own.cors, err = newCORS(cfg.CORS)
	fail("", err)
	if r.own.cors != nil && err == nil {
		fail("", r.onlyOurCORS())
	}
	return r, errors.Join(errs...)
}

// terms are those of the route, or of the identity endpoints. What leads nowhere is
// the gateway's own to answer, and limited so: it would be the place to try tokens.
func (s *State) terms(ours bool, r *route) terms {
	switch {
	case ours:
		return s.ownTerms
	case r == nil:
		return terms{limits: s.ownTerms.limits}
	}
	return r.own
}

// onlyOurCORS takes from the upstream's answers what browsers would take together
// with what the gateway says.
func (r *route) onlyOurCORS() error {
	for _, f := range r.ResponseHeaders.Set {
		if strings.HasPrefix(strings.ToLower(f.Name), corsPrefix) {
			return fmt.Errorf("response_headers: header field %s: is what cors is for", f.Name)
		}
	}
	if r.answerEdit == nil {
		r.answerEdit = &answerEdit{}
	}
	r.answerEdit.dropCORS = true
	return nil
}

// CheckRoutes reports every problem of routes by themselves.
func CheckRoutes(routes []RouteConfig) error {
	var errs []error
	for _, r := range routes {
		_, err := newRoute(r, nil, routeTimeouts{})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// NewState builds a State; every problem is reported at once.
func NewState(cfg StateConfig) (*State, error) {
	s := &State{
		loaded: time.Now(), policy: cfg.Policy, identity: cfg.Identity, upstreams: map[string]*upstream{}, presets: map[string]preset{},
		limits:         map[string]*limit{},
		trustedProxies: cfg.TrustedProxies, assertions: newAssertions(), cookies: cfg.Cookies,
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if cfg.Policy == nil || cfg.Identity == nil {
		return nil, errors.New("a state needs a policy and an identity service")
	}
	var err error
	if s.endpoints, err = newEndpoints(cfg); err != nil {
		return nil, err
	}
	s.hsts, s.ownTerms.path = cfg.HSTS, cfg.Prefix
	for _, r := range cfg.RateLimits {
		l, err := newLimit(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.limits[r.Name] = l
	}
	if s.ownTerms.limits, err = newLimits(s.limits, cfg.OwnRateLimits, cfg.Prefix); err != nil {
		fail("identity: %w", err)
	}
	if s.ownTerms.cors, err = newCORS(cfg.CORS); err != nil {
		fail("identity: %w", err)
	}
	timeouts := map[string]routeTimeouts{}
	for _, u := range cfg.Upstreams {
		up, err := u.open()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.upstreams[u.Name], timeouts[u.Name] = up, u.timeouts()
		if s.presets[u.Name], err = parsePreset(u.Headers); err != nil {
			fail("upstream %s: %w", u.Name, err)
		}
	}
	for _, r := range cfg.Routes {
		up, ok := s.upstreams[r.Upstream]
		if !ok {
			fail("route %s: there is no upstream %q", r.Path, r.Upstream)
			continue
		}
		if s.endpoints.overlaps(r.Path) {
			fail("route %s: overlaps the gateway's own endpoints", r.Path)
		}
		built, err := newRoute(r, up, timeouts[r.Upstream])
		if err != nil {
			errs = append(errs, err)
		}
		if built.own.limits, err = newLimits(s.limits, r.RateLimits, r.Path); err != nil {
			fail("route %s: %w", r.Path, err)
		}
		built.stranger = s.presets[r.Upstream].stranger()
		s.routes = append(s.routes, built)
	}
	slices.SortStableFunc(s.routes, func(a, b *route) int { return len(b.Path) - len(a.Path) })
	for i := 1; i < len(s.routes); i++ {
		if s.routes[i].Path == s.routes[i-1].Path {
			fail("route %s: given twice", s.routes[i].Path)
		}
	}
	if len(errs) > 0 {
		s.close()
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// route returns the route with the longest path that path is under, or nil.
func (s *State) route(path string) *route {
	for _, r := range s.routes {
		if within(path, r.Path) {
			return r
		}
	}
	return nil
}

// within reports whether path is prefix or beneath it, on a segment border.
func within(path, prefix string) bool {
	if prefix == "" {
		return false
	}
	return prefix == "/" || strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}

// trusts reports whether addr is a proxy whose word about its clients counts.
func (s *State) trusts(addr netip.Addr) bool {
	for _, p := range s.trustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Close lets go of a State that was never served.
func (s *State) Close() { s.close() }

// close lets go of connections to upstreams. Requests under way keep theirs.
func (s *State) close() {
	s.identity.Close()
	for _, u := range s.upstreams {
		u.close()
	}
}
