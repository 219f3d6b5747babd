package gateway

import "fmt"

// What can be asked of the gateway without running one.

// Endpoint is one of the gateway's own endpoints.
type Endpoint struct {
	Method string // a GET also answers HEAD
	Path   string // with the prefix; ":name" is any one segment
}

// Endpoints lists the gateway's own endpoints that the policy is asked about, below
// the prefix of the identity endpoints. Where a proxy asks is none of them: what is
// decided on is the request that it asks about.
func Endpoints(prefix string) ([]Endpoint, error) {
	own, err := newEndpoints(StateConfig{Prefix: prefix})
	if err != nil {
		return nil, err
	}
	all := make([]Endpoint, len(own.list))
	for i, ep := range own.list {
		all[i] = Endpoint{ep.method, ep.template}
	}
	return all, nil
}

// CanonicalPath decodes a path, without query, as a request's would be for the
// policy. What cannot stand in a request as it is (spaces, letters beyond ASCII)
// is encoded first, as browsers do. It fails for a path that a request is refused
// for.
func CanonicalPath(path string) (string, error) {
	var target []byte
	for i := range len(path) {
		if c := path[i]; c == '/' || c == '%' || pathByte(c) {
			target = append(target, c)
		} else {
			target = fmt.Appendf(target, "%%%02X", c)
		}
	}
	decoded, err := canonicalPath(nil, target)
	return string(decoded), err
}
