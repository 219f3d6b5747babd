package gateway

import (
	"bytes"
	"errors"

	"portcullis/policy"
)

// errDestination means that nobody can tell what a Destination is about.
var errDestination = errors.New("destination: is there twice, or leads to another service, or to one with other paths")

// decideDestination asks the policy about the other path of a request, too: COPY and
// MOVE write to their Destination (RFC 4918 §10.3), which would otherwise be a way to
// where the caller may not.
func (g *Gateway) decideDestination(st *State, r *request, caller policy.Caller) error {
	if r.method != "COPY" && r.method != "MOVE" {
		return nil
	}
	path, err := r.destination()
	if err != nil || path == "" {
		return err
	}
	d := st.policy.Decide(caller, r.method, path)
	st.hits.Count(d)
	r.event.rule = d.Rule
	if !d.Allowed {
		return refuseCaller(r)
	}
	// A proxy that asks knows the service, and what it makes of the path.
	if r.asked == nil && !st.sameService(r, path) {
		return refuse(codeMalformedRequest, errDestination)
	}
	return nil
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

// sameService reports whether a Destination leads where the request does. Nobody
// rewrites it: a service that has other paths would take it for one of those.
func (s *State) sameService(r *request, destination string) bool {
	from, to := s.route(r.path), s.route(destination)
	_, ours := s.endpoints.find(r.method, destination)
	return !ours && from != nil && to != nil && from.upstream == to.upstream && from.rewriting == nil && to.rewriting == nil
}
