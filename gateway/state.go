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
	TrustedProxies []netip.Prefix // whose X-Forwarded-For and X-Request-Id are believed
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
}

// State is what one request sees of the configuration, from its beginning to
// its end, whatever is swapped meanwhile.
type State struct {
	policy         *policy.Policy
	identity       *identity.Service
	endpoints      *endpoints
	routes         []*route // longest path first
	upstreams      map[string]*upstream
	trustedProxies []netip.Prefix
	assertions     *assertions
}

// route is a RouteConfig with its upstream found.
type route struct {
	RouteConfig
	name     string // of the upstream
	upstream *upstream
	timeout  routeTimeouts
}

// NewState builds a State; every problem is reported at once.
func NewState(cfg StateConfig) (*State, error) {
	s := &State{
		policy: cfg.Policy, identity: cfg.Identity, upstreams: map[string]*upstream{},
		trustedProxies: cfg.TrustedProxies, assertions: newAssertions(),
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
	timeouts := map[string]routeTimeouts{}
	for _, u := range cfg.Upstreams {
		up, err := u.open()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.upstreams[u.Name], timeouts[u.Name] = up, u.timeouts()
	}
	for _, r := range cfg.Routes {
		up, ok := s.upstreams[r.Upstream]
		if !ok {
			fail("route %s: there is no upstream %q", r.Path, r.Upstream)
			continue
		}
		if _, err := canonicalPath(nil, []byte(r.Path)); err != nil || r.Path != "/" && strings.HasSuffix(r.Path, "/") {
			fail("route %s: not a canonical path without a trailing slash", r.Path)
		}
		if s.endpoints.overlaps(r.Path) {
			fail("route %s: overlaps the gateway's own endpoints", r.Path)
		}
		t := timeouts[r.Upstream]
		if r.HeaderTimeout > 0 {
			t.header = r.HeaderTimeout
		}
		s.routes = append(s.routes, &route{RouteConfig: r, name: r.Upstream, upstream: up, timeout: t})
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

// close lets go of connections to upstreams. Requests under way keep theirs.
func (s *State) close() {
	for _, u := range s.upstreams {
		u.close()
	}
}
