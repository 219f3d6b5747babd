package gateway

import (
	"strings"
	"testing"
)

// COPY and MOVE have a second path, and are no way to where the policy lets nobody.
func TestThePolicyDecidesOnTheDestination(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) {
		c.Upstreams = append(c.Upstreams, UpstreamConfig{Name: "other", Targets: c.Upstreams[0].Targets})
		c.Routes = append(c.Routes,
			RouteConfig{Path: "/tasks/other", Upstream: "other"}, RouteConfig{Path: "/public/cut", Upstream: "up", Rewrite: "/"})
	})
	user := "Authorization: Bearer " + e.token("uma", "user")
	cases := map[string]struct {
		method, path string
		fields       []string
		status       int
	}{
		"a neighbour":                    {"MOVE", "/tasks/1", []string{user, "Destination: /tasks/2"}, 200},
		"with scheme and host":           {"COPY", "/tasks/1", []string{user, "Destination: https://Gateway.Test/tasks/2"}, 200},
		"another route to the service":   {"MOVE", "/tasks/1", []string{user, "Destination: /public/x"}, 200},
		"none":                           {"MOVE", "/tasks/1", []string{user}, 200},
		"of another method":              {"PUT", "/tasks/1", []string{user, "Destination: /admin/x"}, 200},
		"what is denied":                 {"MOVE", "/tasks/1", []string{user, "Destination: /tasks/secret"}, 403},
		"what nobody allows":             {"COPY", "/tasks/1", []string{user, "Destination: http://gateway.test/admin/x"}, 403},
		"by a field in lower case":       {"COPY", "/tasks/1", []string{user, "destination: /admin/x"}, 403},
		"for a stranger":                 {"MOVE", "/public/x", []string{"Destination: /tasks/1"}, 401},
		"what is allowed, and what not":  {"MOVE", "/tasks/1", []string{user, "Destination: /tasks/2", "Destination: /admin/x"}, 400},
		"the same in one":                {"MOVE", "/tasks/1", []string{user, "Destination: /tasks/2, /admin/x"}, 400},
		"by another spelling":            {"MOVE", "/tasks/1", []string{user, "Destination: /tasks/%73ecret"}, 400},
		"through what is allowed":        {"MOVE", "/tasks/1", []string{user, "Destination: /tasks/../admin/x"}, 400},
		"with a query":                   {"MOVE", "/tasks/1", []string{user, "Destination: /tasks/2?/../../admin/x"}, 400},
		"an empty one":                   {"MOVE", "/tasks/1", []string{user, "Destination:"}, 400},
		"another host":                   {"MOVE", "/tasks/1", []string{user, "Destination: http://other.test/tasks/2"}, 400},
		"another host without a scheme":  {"MOVE", "/tasks/1", []string{user, "Destination: //other.test/tasks/2"}, 400},
		"a name in front of the host":    {"MOVE", "/tasks/1", []string{user, "Destination: http://gateway.test@other.test/tasks/2"}, 400},
		"no path":                        {"MOVE", "/tasks/1", []string{user, "Destination: http://gateway.test"}, 400},
		"another scheme":                 {"MOVE", "/tasks/1", []string{user, "Destination: file://gateway.test/tasks/2"}, 400},
		"another service":                {"MOVE", "/tasks/1", []string{user, "Destination: /tasks/other/2"}, 400},
		"the gateway's own":              {"MOVE", "/tasks/1", []string{user, "Destination: /auth/x"}, 400},
		"of a service with other paths":  {"MOVE", "/public/cut/x", []string{user, "Destination: /public/cut/y"}, 400},
		"into where paths are others":    {"MOVE", "/public/x", []string{user, "Destination: /public/cut/y"}, 400},
		"from the gateway's own":         {"MOVE", "/auth/me", []string{user, "Destination: /tasks/2"}, 405},
		"from where there is nothing":    {"MOVE", "/auth/none", []string{user, "Destination: /auth/other"}, 404},
		"where the request itself leads": {"MOVE", "/tasks/secret", []string{user, "Destination: /tasks/2"}, 403},
	}
	for name, tc := range cases {
		before := len(e.requests())
		res, body := e.send(strings.Replace(get(tc.path, tc.fields...), "GET", tc.method, 1))
		if res.StatusCode != tc.status {
			t.Errorf("%s: %d, want %d\n%s", name, res.StatusCode, tc.status, body)
		}
		if forwarded := len(e.requests()) > before; forwarded != (tc.status == 200) {
			t.Errorf("%s: forwarded %v", name, forwarded)
		}
	}
	// The record has the request's path only: which of the two was refused, the cause says.
	waitUntil(t, func() bool { return strings.Count(e.log.String(), "msg=request") == len(cases) })
	if n := strings.Count(e.log.String(), `cause="`+errDestinationDenied.Error()+`"`); n != 4 {
		t.Errorf("of 4 refused destinations, %d are told of in\n%s", n, e.log)
	}
}

// A proxy that asks passes the field on, and with it a way to where its client may not.
func TestAProxyIsToldAboutTheDestination(t *testing.T) {
	e := startGateway(t, askedBy("nginx"))
	user := "Authorization: Bearer " + e.token("uma", "user")
	for destination, status := range map[string]int{
		"/tasks/2": 200, "http://the.proxys.own/tasks/2": 200, // nginx tells its own Host, unless it is told otherwise
		"/admin/x": 403, "http://gateway.test/tasks/secret": 403, "/tasks/../admin/x": 400,
	} {
		res, body := e.send(get("/auth/forward", user, "X-Original-Method: MOVE", "X-Original-URI: /tasks/1", "Destination: "+destination))
		if res.StatusCode != status {
			t.Errorf("%s: %d, want %d\n%s", destination, res.StatusCode, status, body)
		}
	}
}
