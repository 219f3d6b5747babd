package gateway

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Forward-auth: a proxy that people run already asks about each of its requests,
// which takes the place of the one that asks: it goes down the same road, and
// where it would be forwarded the answer is 200 with what the service may believe.
//
// The proxy is believed because of its address, but what its client sent comes
// through it. So there is one way in which the proxy says what the request was,
// chosen by the operator, in fields that it always sets itself; whoever says
// something else beside it is refused.

// ForwardAuthConfig says which proxy asks, and for whom.
type ForwardAuthConfig struct {
	// Proxy is "nginx", "traefik", "caddy" or "envoy"; "" answers nobody.
	Proxy string
	// From are the networks of those who may ask, as far as they are trusted proxies.
	From []netip.Prefix
	// Audiences are services that an assertion may be for whatever path is decided on;
	// otherwise it is for the upstream that the path leads to.
	Audiences []string
}

const (
	forwardAuthPath = "/forward" // below the prefix
	audienceParam   = "upstream="
)

var errForwardAuth = errors.New("forward-auth: what is asked about has no reading, or several")

// asked is a request as a proxy describes it.
type asked struct {
	method, target string
	audience       string // of the query; "": of the route
}

// asks reports whether r is a proxy's question. To everybody else there is
// nothing at the path.
func (s *State) asks(r *request, peer netip.Addr) bool {
	return within(r.path, s.endpoints.forward) && s.trusts(peer) && s.forwardAuth.from(peer) &&
		// Who tells in a PROXY header that it comes from somebody who may ask could name anybody.
		(r.conn.proxied == nil || s.forwardAuth.from(addrOf(r.conn.proxied.Conn.RemoteAddr())))
}

func (c ForwardAuthConfig) from(addr netip.Addr) bool {
	return slices.ContainsFunc(c.From, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// readAsked puts the request that a proxy asks about in the place of its question.
func (r *request) readAsked(st *State) error {
	r.event.route = st.endpoints.forward
	if r.header.contentLength || r.header.chunked {
		// The body is the client's, and nobody reads it. Many proxies announce one and
		// keep it: the next question on the connection would be taken for it.
		r.answer.SetConnectionClose()
		r.conn.linger = true
	}
	a, err := st.forwardAuth.read(r, st.endpoints.forward)
	if err != nil {
		return refuse(codeMalformedRequest, err)
	}
	if a.audience != "" && st.upstreams[a.audience] == nil && !slices.Contains(st.forwardAuth.Audiences, a.audience) {
		return refuse(codeMalformedRequest, fmt.Errorf("forward-auth: there is no upstream %.64q; a service that only the proxy knows is one of forward_auth.audiences", a.audience))
	}
	if r.method = method([]byte(a.method)); r.method == "" {
		return refuse(codeMethodUnknown, nil)
	}
	r.asked, r.event.method = &a, r.method
	return r.readTarget([]byte(a.target))
}

// read finds the method and the target that the proxy tells.
func (c ForwardAuthConfig) read(r *request, base string) (asked, error) {
	var a asked
	path, query, hasQuery := strings.Cut(r.target, "?")
	said, err := r.originals()
	if err != nil {
		return a, err
	}
	var methodName, targetName string
	switch c.Proxy {
	case "nginx":
		methodName, targetName = "x-original-method", "x-original-uri"
	case "traefik", "caddy":
		methodName, targetName = "x-forwarded-method", "x-forwarded-uri"
	case "envoy": // puts our path before the one that was asked for, and keeps the method
		if a.method, a.target = r.method, strings.TrimPrefix(path, base); hasQuery {
			a.target += "?" + query
		}
	}
	if value, ok := said["x-original-url"]; ok { // scheme and host before the target: what ingress-nginx says
		_, rest, _ := strings.Cut(value, "://")
		said["x-original-url"] = rest[max(0, strings.IndexByte(rest, '/')):]
		if _, ok := said[targetName]; !ok && c.Proxy == "nginx" {
			targetName = "x-original-url"
		}
	}
	if c.Proxy != "envoy" {
		if path != base {
			return a, errForwardAuth
		}
		a.method, a.target = said[methodName], said[targetName]
		name, isAudience := strings.CutPrefix(query, audienceParam)
		if hasQuery && (!isAudience || strings.ContainsAny(name, "&%+")) {
			return a, errForwardAuth
		}
		a.audience = name
	}
	if a.method == "" || a.target == "" {
		return a, fmt.Errorf("%w: the proxy does not say what the request was", errForwardAuth)
	}
	// A field that another kind of proxy would set comes from the client, or from a
	// proxy that is not the one we were told of.
	for name, value := range said {
		want := a.target
		if strings.HasSuffix(name, "-method") {
			want = a.method
		}
		if value != want {
			return a, fmt.Errorf("%w: %s says something else", errForwardAuth, name)
		}
	}
	return a, nil
}

// originals are the fields in which proxies say what a request was. None may be
// there twice, in any spelling that some server takes for it.
func (r *request) originals() (map[string]string, error) {
	said, err := map[string]string{}, error(nil)
	eachField(r.head.fields, func(name, value []byte) {
		var buf [longestClassified]byte
		folded := string(fold(&buf, name))
		switch folded {
		case "x-original-method", "x-original-uri", "x-original-url", "x-forwarded-method", "x-forwarded-uri":
			if _, twice := said[folded]; twice || !bytes.EqualFold(name, []byte(folded)) {
				err = fmt.Errorf("%w: %s is there twice, or misspelt", errForwardAuth, folded)
			}
			said[folded] = string(value)
		case "sec-websocket-key", "sec-websocket-version":
			// Proxies keep Upgrade to themselves, and over HTTP/2 there is no key (RFC 8441 §5.1).
			r.header.upgradeListed = true
		}
	})
	return said, err
}

// audience is for whom an answer may be that is asked for by name: whom the operator has
// listed, or the upstream that the decided path leads to. For any other, what is open to
// a user would be a way into what is not.
func (c ForwardAuthConfig) audience(name, leads string) (string, error) {
	if name == "" || name == leads {
		return leads, nil
	}
	if slices.Contains(c.Audiences, name) {
		return name, nil
	}
	return "", fmt.Errorf("forward-auth: asked for %[1]s about a path that leads to %[2]s: give it a route to %[1]s, or list that in forward_auth.audiences",
		name, cmp.Or(leads, "no upstream"))
}

// approve answers that the request may pass, and what its service may believe. ours is a
// path at which the gateway answers itself, so that no route leads anywhere.
func (r *request) approve(st *State, ours bool, route *route) error {
	leads := ""
	if route != nil && !ours {
		leads = route.name
	}
	audience, err := st.forwardAuth.audience(r.asked.audience, leads)
	if err != nil {
		return refuse(codeMalformedRequest, err)
	}
	h := &r.answer.Header
	guard(h)
	h.Set(fieldRequestID, r.event.requestID)
	h.SetNoDefaultContentType(true)
	r.answer.SetStatusCode(http.StatusOK)
	r.event.upstream = audience
	lines := st.presets[audience].stranger()
	if r.principal != nil {
		if lines, err = st.assertions.fields(st, r.principal, audience, r.event.start); err != nil {
			return err
		}
	}
	for line := range strings.Lines(string(lines)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ": ")
		// An assertion for nobody in particular would be one for everybody.
		if name != fieldAssertion || audience != "" {
			h.Set(name, value)
		}
	}
	return nil
}
