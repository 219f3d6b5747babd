package gateway

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestWebPagesDoNotGetToTheOperatorsListener(t *testing.T) {
	e := startGateway(t)
	handler := e.gateway.AdminHandler(e.metrics)
	loopback, network := "127.0.0.1:8081", "10.0.0.7:8081"
	for name, test := range map[string]struct {
		local, host string
		fields      map[string]string
		status      int
	}{
		"by address":                         {local: loopback, host: "127.0.0.1:8081", status: 200},
		"by an IPv6 address":                 {local: "[::1]:8081", host: "[::1]:8081", status: 200},
		"by localhost":                       {local: loopback, host: "localhost:8081", status: 200},
		"by localhost without a port":        {local: loopback, host: "LOCALHOST", status: 200},
		"by another address, of a tunnel":    {local: loopback, host: "10.0.0.7", status: 200},
		"by a name that was rebound":         {local: loopback, host: "evil.example:8081", status: 421},
		"by a name like localhost":           {local: loopback, host: "localhost.evil.example", status: 421},
		"by a name like an address":          {local: loopback, host: "127.0.0.1.evil.example:8081", status: 421},
		"by nothing":                         {local: loopback, host: "", status: 421},
		"by a name, over IPv6":               {local: "[::1]:8081", host: "evil.example", status: 421},
		"by name, where it has one":          {local: network, host: "gateway.internal:8081", status: 200},
		"typed into a browser":               {local: loopback, host: "localhost:8081", fields: map[string]string{"Sec-Fetch-Site": "none"}, status: 200},
		"by a page of its own":               {local: loopback, host: "localhost:8081", fields: map[string]string{"Sec-Fetch-Site": "same-origin"}, status: 200},
		"by a page of another site":          {local: loopback, host: "localhost:8081", fields: map[string]string{"Sec-Fetch-Site": "cross-site"}, status: 403},
		"by a page of another port":          {local: loopback, host: "localhost:8081", fields: map[string]string{"Sec-Fetch-Site": "same-site"}, status: 403},
		"by another site, in an old browser": {local: network, host: "gateway.internal", fields: map[string]string{"Origin": "https://evil.example"}, status: 403},
	} {
		for _, path := range []string{"/livez", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline"} {
			t.Run(name+path, func(t *testing.T) {
				addr, err := net.ResolveTCPAddr("tcp", test.local)
				if err != nil {
					t.Fatal(err)
				}
				r := httptest.NewRequestWithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, addr), http.MethodGet, path, nil)
				r.Host = test.host
				for k, v := range test.fields {
					r.Header.Set(k, v)
				}
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if w.Code != test.status {
					t.Errorf("%d, want %d", w.Code, test.status)
				}
			})
		}
	}
}

// What the edge serves has nothing of what operators see.
func TestOperatorsPathsAreNotOnTheEdge(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) {
		c.Routes = append(c.Routes, RouteConfig{Path: "/", Upstream: "up"})
	})
	token := e.token("ada", "admin")
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap"} {
		for _, fields := range [][]string{nil, {"Authorization: Bearer " + token}} {
			if res, _ := e.send(get(path, fields...)); res.StatusCode != 401 && res.StatusCode != 403 {
				t.Errorf("%s: %s", path, res.Status)
			}
		}
	}
}
