package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"portcullis/identity"
	"portcullis/policy"
)

// StateConfig is everything that must agree for a request: it is swapped as a
// whole or not at all.
type StateConfig struct {
	Policy         *policy.Policy
	Shadow         *Shadow // nil: none
	Identity       *identity.Service
	Prefix         string // of the identity endpoints; "" puts them at the root
	Upstreams      []UpstreamConfig
	Routes         []RouteConfig
	CORS           CORS // of the identity endpoints
	RateLimits     []RateLimit
	OwnRateLimits  []string // names of those for the identity endpoints
	HSTS           string   // Strict-Transport-Security of the gateway's own answers over TLS; "": none
	ForwardAuth    ForwardAuthConfig
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
	BodyTimeout      time.Duration // for all of a request's body; 0: not limited
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
	return routeTimeouts{connect: u.ConnectTimeout, header: u.HeaderTimeout, idle: u.IdleTimeout, body: u.BodyTimeout}
}

// State is what one request sees of the configuration, from its beginning to
// its end, whatever is swapped meanwhile.
type State struct {
	loaded         time.Time
	policy         *policy.Policy
	shadow         *comparison // nil: none
	hits           *policy.Hits
	identity       *identity.Service
	endpoints      *endpoints
	routes         []*route // longest path first
	upstreams      map[string]*upstream
	presets        map[string]preset // by upstream
	trustedProxies []netip.Prefix
	forwardAuth    ForwardAuthConfig
	assertions     *assertions
	cookies        CookieConfig
	ownTerms       terms // of the identity endpoints
	hsts           string
	limits         map[string]*limit // by name
}

// NewState builds a State; every problem is reported at once.
func NewState(cfg StateConfig) (*State, error) {
	s := &State{
		loaded: time.Now(), policy: cfg.Policy, identity: cfg.Identity, upstreams: map[string]*upstream{}, presets: map[string]preset{},
		trustedProxies: cfg.TrustedProxies, forwardAuth: cfg.ForwardAuth, assertions: newAssertions(), cookies: cfg.Cookies,
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if cfg.Policy == nil || cfg.Identity == nil {
		return nil, errors.New("a state needs a policy and an identity service")
	}
	s.hits = policy.NewHits(cfg.Policy, nil)
	s.shadow = newComparison(cfg.Shadow, cfg.Policy)
	var err error
	if s.endpoints, err = newEndpoints(cfg); err != nil {
		return nil, err
	}
	errs = append(errs, s.setTerms(cfg))
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
		errs = append(errs, s.endpoints.apart(r.Path))
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
	if err := errors.Join(errs...); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// serves reports whether a request is one that the gateway answers itself.
func (s *State) serves(r *request) bool {
	_, ours := s.endpoints.find(r.method, r.path)
	return ours || s.asks(r, r.peer)
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

// succeed takes over what was counted with the State before, as far as it is about
// the same.
func (s *State) succeed(old *State) {
	s.hits = policy.NewHits(s.policy, old.hits)
	if s.shadow.of(old.shadow) {
		s.shadow = old.shadow
	}
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
