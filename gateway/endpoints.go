package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"portcullis/identity"
)

// jwksPath is where verifiers look for the keys, whatever the prefix.
const jwksPath = "/.well-known/jwks.json"

const (
	maxOwnBody = 64 << 10 // bytes of a body for the gateway itself
	// callTimeout bounds everything that one call of ours may wait for: the
	// store, and a place among the passwords to be hashed.
	callTimeout = 10 * time.Second
)

// endpoint is one of the gateway's own.
type endpoint struct {
	method, template string // template is below the prefix; ":name" is one segment
	// readsToken is whether the caller matters. Where it does not, as for a
	// login, an Authorization field is not looked at: clients tend to send an
	// expired token along when they come to exchange it.
	readsToken bool
	handle     func(ctx context.Context, c *call) error
}

// call is one use of an endpoint.
type call struct {
	*request
	st     *State
	params []string // what the template's ":name"s matched, in order
}

// endpoints finds the gateway's own endpoints.
type endpoints struct {
	prefix  string
	list    []endpoint
	forward string // where proxies ask; "": nowhere
}

// found is an endpoint with what its path says.
type found struct {
	endpoint
	params []string
}

func newEndpoints(cfg StateConfig) (*endpoints, error) {
	if p := cfg.Prefix; p != "" {
		if c, err := canonicalPath(nil, []byte(p)); err != nil || string(c) != p || strings.HasSuffix(p, "/") {
			return nil, fmt.Errorf("identity prefix %q: must be empty or a canonical path without a trailing slash", p)
		}
	}
	docs, err := newDocs(cfg)
	if err != nil {
		return nil, err
	}
	e := &endpoints{prefix: cfg.Prefix}
	if cfg.ForwardAuth.Proxy != "" {
		e.forward = cfg.Prefix + forwardAuthPath
	}
	for _, ep := range slices.Concat(accountEndpoints(), adminEndpoints(), docs.endpoints()) {
		if ep.template != jwksPath {
			ep.template = cfg.Prefix + ep.template
		}
		e.list = append(e.list, ep)
	}
	return e, nil
}

// find returns what answers a request on path, if path is the gateway's own.
func (e *endpoints) find(method, path string) (f found, ours bool) {
	ours = within(path, e.prefix)
	if !ours && e.prefix != "" && path != jwksPath {
		return found{}, false
	}
	if method == "HEAD" {
		method = "GET" // the server leaves the body out
	}
	var allow []string
	for _, ep := range e.list {
		params, ok := matchTemplate(ep.template, path)
		if !ok {
			continue
		}
		if ep.method == method {
			return found{ep, params}, true
		}
		allow = append(allow, ep.method)
	}
	missing := &refusal{code: codeNotFound}
	if len(allow) > 0 {
		missing = &refusal{code: codeMethodNotAllowed, allow: strings.Join(allow, ", ")}
	}
	return found{endpoint: endpoint{readsToken: true, handle: func(context.Context, *call) error { return missing }}}, ours || len(allow) > 0
}

// aboutOneself reports whether an endpoint is about the caller's own account,
// which a caller of another issuer does not have.
func (e *endpoints) aboutOneself(template string) bool {
	return template == e.prefix+"/logout" || within(template, e.prefix+"/me")
}

// apart returns an error if a route on path overlaps.
func (e *endpoints) apart(path string) error {
	if e.overlaps(path) {
		return fmt.Errorf("route %s: overlaps the gateway's own endpoints", path)
	}
	return nil
}

// overlaps reports whether a route on path would share paths with an endpoint. A
// route on "/" is for everything else and may.
func (e *endpoints) overlaps(path string) bool {
	if within(path, e.prefix) || within(path, e.forward) || path != "/" && within(e.prefix, path) {
		return true
	}
	return slices.ContainsFunc(e.list, func(ep endpoint) bool {
		_, same := matchTemplate(ep.template, path)
		return same || path != "/" && within(ep.template, path)
	})
}

// matchTemplate compares segment by segment.
func matchTemplate(template, path string) (params []string, ok bool) {
	for {
		t, trest, tmore := strings.Cut(template, "/")
		p, prest, pmore := strings.Cut(path, "/")
		switch {
		case strings.HasPrefix(t, ":") && p != "":
			params = append(params, p)
		case t != p:
			return nil, false
		}
		if tmore != pmore {
			return nil, false
		}
		if !tmore {
			return params, true
		}
		template, path = trest, prest
	}
}

// answer runs the endpoint.
func (f found) answer(st *State, r *request) error {
	r.event.route = f.template
	// Not the server's context: it does not end with the request, and must not be
	// handed to a driver.
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	h := &r.answer.Header
	guard(h)
	h.Set(fieldRequestID, r.event.requestID)
	if r.principal != nil && r.principal.Issuer != "" && st.endpoints.aboutOneself(f.template) {
		return refuse(codeForeignAccount, nil)
	}
	return f.handle(ctx, &call{request: r, st: st, params: f.params})
}

// caller returns the signed-in caller. The policy may let strangers through to
// an endpoint that is about oneself; there is nobody to answer about then.
func (c *call) caller() (*identity.Principal, error) {
	if c.principal == nil {
		return nil, refuse(codeUnauthenticated, nil)
	}
	return c.principal, nil
}

// client is where the call came from.
func (c *call) client() identity.Client {
	return identity.Client{
		IP:        c.event.clientIP,
		UserAgent: strings.ToValidUTF8(string(c.ctx.Request.Header.UserAgent()), "?"),
		RequestID: c.event.requestID,
	}
}

// body reads a bounded body that is plainly encoded.
func (c *call) body() ([]byte, error) {
	if len(c.ctx.Request.Header.Peek("Content-Encoding")) > 0 {
		return nil, refuse(codeUnsupportedMedia, errors.New("content encoding")) // or little bodies grow large
	}
	if err := acceptBody(c.ctx); err != nil {
		return nil, &refusal{code: codeMalformedRequest, cause: err, close: true}
	}
	stream := c.ctx.RequestBodyStream()
	if stream == nil {
		return slices.Clone(c.ctx.Request.Body()), nil
	}
	b, err := io.ReadAll(io.LimitReader(stream, maxOwnBody+1))
	if err != nil {
		return nil, &refusal{code: codeMalformedRequest, cause: errors.New("reading the body"), close: true}
	}
	if len(b) > maxOwnBody {
		return nil, &refusal{code: codeBodyTooLarge, close: true}
	}
	return b, nil
}

// mediaType is the type of the body, without parameters.
func (c *call) mediaType() string {
	t, _, err := mime.ParseMediaType(string(c.ctx.Request.Header.ContentType()))
	if err != nil {
		return ""
	}
	return t
}

// decode reads a JSON object into v, which must be a pointer to a struct. It
// refuses what encoding/json lets pass: unknown, repeated and differently cased
// names, invalid UTF-8, trailing data.
func (c *call) decode(v any) error {
	if c.mediaType() != "application/json" {
		return refuse(codeUnsupportedMedia, errors.New("media type"))
	}
	b, err := c.body()
	if err != nil {
		return err
	}
	err = json.Unmarshal(b, v, json.RejectUnknownMembers(true))
	if err == nil && !isObject(b) {
		return refuse(codeInvalidJSON, errors.New("not an object")) // null is nothing to json
	}
	if err == nil {
		return nil
	}
	names := fieldNames(v)
	var semantic *json.SemanticError
	if errors.As(err, &semantic) && !errors.Is(err, json.ErrUnknownName) {
		if name := semantic.JSONPointer.LastToken(); slices.Contains(names, name) {
			return &refusal{code: codeValidationFailed, fields: []fieldProblem{{name, "has the wrong type"}}, cause: errors.New("wrong type")}
		}
	}
	// The library's error quotes the body: neither the client nor the log gets it.
	return &refusal{code: codeInvalidJSON, cause: errors.New("body does not decode"),
		detail: "The body must be one JSON object with no other fields than " + strings.Join(names, ", ") + ", each at most once."}
}

func isObject(b []byte) bool {
	return strings.HasPrefix(strings.TrimLeft(string(b), " \t\r\n"), "{")
}

// fieldNames are the JSON names of a struct's fields.
func fieldNames(v any) []string {
	t := reflect.TypeOf(v).Elem()
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// form reads an OAuth 2 form (RFC 6749 appendix B); a repeated parameter is refused.
func (c *call) form() (url.Values, error) {
	b, err := c.body()
	if err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(string(b))
	if err != nil {
		return nil, refuse(codeMalformedRequest, errors.New("form does not decode"))
	}
	for _, v := range values {
		if len(v) > 1 {
			return nil, refuse(codeMalformedRequest, errors.New("repeated parameter"))
		}
	}
	return values, nil
}

// required says which of the named values are missing.
func required(pairs ...string) error {
	var missing []fieldProblem
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			missing = append(missing, fieldProblem{pairs[i], "is required"})
		}
	}
	if missing == nil {
		return nil
	}
	return &refusal{code: codeValidationFailed, fields: missing}
}

// limit reads the query's limit of a page.
func (c *call) limit() (int, error) {
	text := string(c.ctx.QueryArgs().Peek("limit"))
	if text == "" {
		return 20, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 100 {
		return 0, &refusal{code: codeValidationFailed, fields: []fieldProblem{{"limit", "must be a number from 1 to 100"}}}
	}
	return n, nil
}

// reply writes v as JSON.
func (c *call) reply(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	c.answer.SetStatusCode(status)
	c.answer.Header.SetContentType("application/json")
	c.answer.SetBody(b)
	return nil
}

// done answers without a body.
func (c *call) done() error {
	c.answer.SetStatusCode(http.StatusNoContent)
	c.answer.Header.SetNoDefaultContentType(true)
	return nil
}
