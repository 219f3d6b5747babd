package gateway

import (
	"bytes"
	"errors"

	"portcullis/policy"
)

// errDestination means that nobody can tell what a Destination is about.
var errDestination = errors.New("destination: is there twice, or leads to another service, or to one with other paths")

// errDestinationDenied tells the log which of two paths it was.
var errDestinationDenied = errors.New("destination: the policy does not allow it")

// hasDestination reports whether the request has a second path: COPY and MOVE write to
// their Destination (RFC 4918 §10.3), which would otherwise be a way to where the caller
// may not.
func (r *request) hasDestination() bool { return r.method == "COPY" || r.method == "MOVE" }

// askDestination asks the policy about that path, too.
func (g *Gateway) askDestination(st *State, r *request, caller policy.Caller) (allowed bool, err error) {
	to, err := r.destination()
	if err != nil || to == "" {
		return err == nil, err
	}
	endpoint, ours := st.endpoints.find(r.method, to)
	route, path := st.route(to), r.path
	r.path = to
	allowed = g.allows(st, r, routeName(endpoint, ours, route), caller)
	r.path = path
	// A proxy that asks knows the service, and what it makes of the path. A request
	// without a route goes nowhere.
	if from := st.route(path); allowed && r.asked == nil && from != nil && (ours || !sameService(from, route)) {
		return false, refuse(codeMalformedRequest, errDestination)
	}
	return allowed, nil
}

// destination is the path of the request's Destination, canonical and decoded; "" if
// there is none. It may have the host that the request has.
func (r *request) destination() (string, error) {
	var to []byte
	fields := 0
	eachField(r.head.fields, func(name, value []byte) {
		if equalFold(name, "destination") {
			to = value
			fields++
		}
	})
	switch fields {
	case 0:
		return "", nil
	case 1:
	default:
		return "", refuse(codeMalformedRequest, errDestination)
	}
	if scheme, rest, ok := bytes.Cut(to, []byte("://")); ok {
		end := bytes.IndexByte(rest, '/')
		if !equalFold(scheme, "http") && !equalFold(scheme, "https") || end < 0 || r.asked == nil && !bytes.EqualFold(rest[:end], r.header.host) {
			return "", refuse(codeMalformedRequest, errDestination)
		}
		to = rest[end:]
	}
	canonical, err := canonicalPath(nil, to)
	if err != nil {
		return "", refuse(codePathNotCanonical, err)
	}
	return string(canonical), nil
}

// sameService reports whether one route leads where another does. Nobody rewrites a
// Destination: a service that has other paths would take it for one of those.
func sameService(from, to *route) bool {
	return to != nil && from.upstream == to.upstream && from.rewriting == nil && to.rewriting == nil
}
