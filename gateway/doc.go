// Package gateway is the edge: one request, from the door to the upstream and back.
//
// serve in gateway.go is the whole life of a request, read top to bottom, and
// its order is the security property: one canonical path, strip what only the
// gateway may say, authenticate, decide, route, forward. What a request needs to
// agree on (routes, policy, identity) is one State behind one atomic pointer.
package gateway
