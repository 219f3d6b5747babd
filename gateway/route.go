package gateway

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// RouteConfig sends what is under a path to an upstream.
type RouteConfig struct {
	Path              string // canonical; what is beneath it belongs to it
	Upstream          string
	PassAuthorization bool          // forward the client's Authorization field
	MaxBody           int64         // bytes; 0: no limit
	HeaderTimeout     time.Duration // until the answer's header; 0: the upstream's
	IdleTimeout       time.Duration // for bodies to stand still; 0: the upstream's
	BodyTimeout       time.Duration // for all of a request's body; 0: the upstream's
	Rewrite           string        // a canonical path, in place of Path towards the upstream; "": Path stays
	RequestHeaders    HeaderEdit    // of what the client sent; what the gateway says is added after it
	ResponseHeaders   HeaderEdit    // of the upstream's answers
	CORS              CORS
	RateLimits        []string // names
}

// terms are what holds on a path before anybody knows who is calling.
type terms struct {
	path   string // for the record
	cors   *cors
	limits *limits
}

// setTerms makes the rate limits, and what holds for the identity endpoints.
func (s *State) setTerms(cfg StateConfig) error {
	var errs []error
	s.limits = map[string]*limit{}
	for _, r := range cfg.RateLimits {
		l, err := newLimit(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.limits[r.Name] = l
	}
	s.hsts, s.ownTerms.path = cfg.HSTS, cfg.Prefix
	var limits, cors error
	s.ownTerms.limits, limits = newLimits(s.limits, cfg.OwnRateLimits, cfg.Prefix)
	s.ownTerms.cors, cors = newCORS(cfg.CORS)
	if err := errors.Join(limits, cors); err != nil {
		errs = append(errs, fmt.Errorf("identity: %w", err))
	}
	return errors.Join(errs...)
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
	if cfg.BodyTimeout > 0 {
		r.timeout.body = cfg.BodyTimeout
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

// CheckRoutes reports every problem of the routes by themselves, beside the gateway's
// own endpoints, and of the API descriptions that make one of both.
func CheckRoutes(cfg StateConfig) error {
	own, err := newEndpoints(cfg)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range cfg.Routes {
		_, err := newRoute(r, nil, routeTimeouts{})
		errs = append(errs, own.apart(r.Path), err)
	}
	return errors.Join(errs...)
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

// within reports whether path is prefix or beneath it, on a segment border.
func within(path, prefix string) bool {
	if prefix == "" {
		return false
	}
	return prefix == "/" || strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}
