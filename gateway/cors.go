package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CORS is which pages of other origins may read the answers of a route (Fetch
// standard, §3.3). It lets nobody do anything: requests go the same road.
type CORS struct {
	Origins     []string // as browsers send them, compared byte by byte; "*" alone is all of them; none: no CORS
	Methods     []string
	Headers     []string // of requests
	Expose      []string // of answers
	Credentials bool     // whether pages may have the browser's cookies and certificates sent along
	MaxAge      time.Duration
}

// cors is a CORS that was found good.
type cors struct {
	origins     []string // nil: any
	credentials bool
	preflight   []byte // field lines of the answer to a preflight
	actual      []byte // field lines of any other answer
}

// corsPrefix is what the names of the fields of answers begin with.
const corsPrefix = "access-control-"

// newCORS returns nil if no origin is named.
func newCORS(c CORS) (*cors, error) {
	if len(c.Origins) == 0 {
		return nil, nil
	}
	built := &cors{credentials: c.Credentials}
	if slices.Contains(c.Origins, "*") {
		if c.Credentials {
			return nil, errors.New("cors: credentials for any origin would hand every page its visitors' answers")
		}
		if len(c.Origins) > 1 {
			return nil, errors.New("cors: * is every origin; others beside it mean nothing")
		}
	} else {
		built.origins = c.Origins
	}
	if slices.Contains(c.Origins, "null") {
		return nil, errors.New("cors: null is the origin of sandboxed pages of anybody")
	}
	list := func(dst []byte, name string, values []string) []byte {
		if len(values) == 0 {
			return dst
		}
		return appendField(dst, name, strings.Join(values, ", "))
	}
	for _, token := range slices.Concat(c.Methods, c.Headers, c.Expose) {
		if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r > 0x7f || !tokenByte(byte(r)) }) {
			return nil, fmt.Errorf("cors: %q is no method or name of a header field", token)
		}
	}
	built.preflight = list(built.preflight, "Access-Control-Allow-Methods", c.Methods)
	built.preflight = list(built.preflight, "Access-Control-Allow-Headers", c.Headers)
	built.preflight = appendField(built.preflight, "Access-Control-Max-Age", strconv.Itoa(int(c.MaxAge/time.Second)))
	built.actual = list(built.actual, "Access-Control-Expose-Headers", c.Expose)
	return built, nil
}

// allows compares whole origins: nothing that begins or ends with one is one.
func (c *cors) allows(origin []byte) bool {
	if c.origins == nil {
		return len(origin) > 0 && string(origin) != "null"
	}
	for _, o := range c.origins {
		if string(origin) == o {
			return true
		}
	}
	return false
}

// crossOrigin says in the answer which pages may read it, whatever it will be: a
// refusal, too, so that a page can tell why. It answers a preflight, which browsers
// send without credentials: true means that it was one. One of another origin goes
// down the road as any request does, and tells nothing.
func (r *request) crossOrigin(t terms) (answered bool) {
	c := t.cors
	if c == nil {
		return false
	}
	if c.origins != nil {
		r.fields = appendField(r.fields, "Vary", "Origin")
	}
	origin, wants := corsFields(r.head.fields)
	if !c.allows(origin) {
		return false
	}
	if c.origins == nil {
		origin = []byte("*")
	}
	r.fields = appendField(r.fields, "Access-Control-Allow-Origin", string(origin))
	if c.credentials {
		r.fields = appendField(r.fields, "Access-Control-Allow-Credentials", "true")
	}
	if r.method != "OPTIONS" || !wants {
		r.fields = append(r.fields, c.actual...)
		return false
	}
	r.event.route = t.path
	r.fields = append(r.fields, c.preflight...)
	r.answer.SetStatusCode(204)
	r.answer.Header.Set(fieldRequestID, r.event.requestID)
	r.answer.Header.SetNoDefaultContentType(true)
	return true
}

// corsFields returns the one Origin of a header block, and whether it has
// Access-Control-Request-Method. Several origins are none.
func corsFields(raw []byte) (origin []byte, wantsMethod bool) {
	origins := 0
	eachField(raw, func(name, value []byte) {
		switch {
		case equalFold(name, "origin"):
			origin = value
			origins++
		case equalFold(name, "access-control-request-method"):
			wantsMethod = len(bytes.TrimSpace(value)) > 0
		}
	})
	if origins != 1 {
		return nil, wantsMethod
	}
	return origin, wantsMethod
}
