package gateway

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func traefik() frontProxy {
	return frontProxy{name: "traefik", start: startTraefik, refused: 400, cases: func(user string, claims []string) map[string]frontCase {
		return withOpaqueTargets(user, claims, map[string]frontCase{
			// What it decodes and tidies up is asked about so, and sent on so.
			"dots":                       {get("/public/../admin/x", user), 403, ""},
			"encoded dots":               {get("/tasks/%2e%2e/admin/x", user), 403, ""},
			"encoded dots into the open": {get("/admin/%2e%2e/public/x"), 200, "GET /public/x HTTP/1."},
			"an encoded dot":             {get("/public/%2E/x"), 200, "GET /public/x HTTP/1."},
			"two slashes":                {get("//admin/x", user), 403, ""},
			"two slashes in the open":    {get("/public//x"), 200, "GET /public/x HTTP/1."},
			"a parameter":                {get("/public;/../admin/x", user), 403, ""},
			"a needless encoding":        {get("/%61dmin/x", user), 403, ""},
			"a query of anything":        {get("/public/x?/../%2e%2F;\\{a}"), 200, "GET /public/x?/../%2e%2F%3B\\{a} HTTP/1."},
			"out of the gateway's own":   {get("/auth/../tasks/1", user), 200, "GET /tasks/1 HTTP/1."},
			"into the gateway's own":     {get("/tasks/../auth/forward", append(claims, user)...), 404, ""},
			// What Connection lists is taken away before the gateway is asked.
			"identity kept back through Connection": {get("/tasks/1", user, "Connection: X-User-Id, Authorization"), 401, ""},
			"what Traefik encodes":                  {get("/public/a\"{b}"), 200, "GET /public/a%22%7Bb%7D HTTP/1."},
			"bytes that Traefik encodes":            {get("/public/\xc3\xa9"), 200, "GET /public/%C3%A9 HTTP/1."},
			"a question in capitals":                {get("/AUTH/forward", append(claims, user)...), 403, ""},
			"a question, and a parameter":           {get("/auth/forward;x", append(claims, user)...), 404, ""},
			"a question after a parameter":          {get("/auth;x/forward", append(claims, user)...), 400, ""},
			"a question after a backslash":          {get("/auth\\forward", append(claims, user)...), 400, ""},
			"a question by an encoded slash":        {get("/auth%2Fforward", append(claims, user)...), 400, ""},
			"a WebSocket": {get("/tasks/1", user, "Connection: Upgrade, X-User-Id", "Upgrade: websocket"), 200,
				"GET /tasks/1 HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"},
			"a WebSocket after another protocol": {get("/tasks/1", user, "Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"), 200, "GET /tasks/1 HTTP/1."},
			"a WebSocket of a stranger":          {get("/tasks/1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"), 401, ""},
		})
	}}
}

// startTraefik runs the Traefik of the README in front of e and of its upstream, and
// returns its address.
func startTraefik(t *testing.T, e *testGateway) string {
	t.Helper()
	traefik, addr, dir := findProxy(t, "traefik"), freeAddr(t), t.TempDir()
	dynamic := filepath.Join(dir, "dynamic.yaml")
	static := filepath.Join(dir, "traefik.yaml")
	for file, text := range map[string]string{
		static: documented(t, "## Traefik\n", "yaml", "/etc/traefik/dynamic.yaml", dynamic, `":80"`, addr) +
			"global: {checkNewVersion: false, sendAnonymousUsage: false}\n",
		dynamic: documented(t, "and `dynamic.yaml`:\n", "yaml", "gateway:8080", e.addr, "app:9000", e.config.Upstreams[0].Targets[0].Host),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runProxy(t, exec.Command(traefik, "--configFile="+static), addr)
	// It listens before it has read where anything leads.
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if res, _ := (&testGateway{t: t, addr: addr}).ask(get("/ready")); res.StatusCode != 404 {
			return addr
		}
		if time.Now().After(end) {
			t.Fatal("traefik has no routes")
		}
	}
}

func TestForwardAuthOfTraefik(t *testing.T)                { traefik().test(t) }
func TestForwardAuthOfTraefikWithoutAGateway(t *testing.T) { traefik().testAlone(t) }
func TestForwardAuthOfTraefikAndBodies(t *testing.T)       { traefik().testBodies(t) }
func TestForwardAuthOfTraefikAndAddresses(t *testing.T)    { traefik().testAddresses(t) }
