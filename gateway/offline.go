package gateway

// What can be asked of the gateway without running one.

// Endpoint is one of the gateway's own endpoints.
type Endpoint struct {
	Method string // a GET also answers HEAD
	Path   string // with the prefix; ":name" is any one segment
}

// Endpoints lists the gateway's own endpoints below the prefix of the identity
// endpoints.
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

// CanonicalPath decodes the path of a request target, without its query, as a
// request's would be for the policy. It fails for a path that a request is
// refused for.
func CanonicalPath(path string) (string, error) {
	decoded, err := canonicalPath(nil, []byte(path))
	return string(decoded), err
}
