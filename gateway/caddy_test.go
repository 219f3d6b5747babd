package gateway

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func caddy() frontProxy {
	return frontProxy{name: "caddy", start: startCaddy, refused: 400, cases: func(user string, claims []string) map[string]frontCase {
		return withOpaqueTargets(user, claims, map[string]frontCase{
			"out of the gateway's own":             {get("/auth/../tasks/1", user), 400, ""},
			"spoofed identity of a new kind":       {get("/tasks/1", user, "X-User-Anything: forged", "X-User_Anything: forged"), 200, "GET /tasks/1 HTTP/1."},
			"into the gateway's own":               {get("/tasks/../auth/me", user), 400, ""},
			"what Caddy encodes is asked about":    {get("/public/a\"{b}"), 200, "GET /public/a%22%7Bb%7D HTTP/1."},
			"bytes that Caddy encodes, too":        {get("/public/\xc3\xa9"), 200, "GET /public/%C3%A9 HTTP/1."},
			"a placeholder":                        {get("/public/x?{env.HOME}"), 200, "GET /public/x?{env.HOME} HTTP/1."},
			"a question in capitals":               {get("/auth/FORWARD", append(claims, user)...), 404, ""},
			"a question in capitals from the root": {get("/AUTH/forward", append(claims, user)...), 404, ""},
			"a question with a parameter":          {get("/auth/forward;x", append(claims, user)...), 404, ""},
			"a question after a parameter":         {get("/auth;x/forward", append(claims, user)...), 400, ""},
			"a question after a backslash":         {get("/auth\\forward", append(claims, user)...), 400, ""},
			"a WebSocket": {get("/tasks/1", user, "Connection: Upgrade, X-User-Id", "Upgrade: websocket"), 200,
				"GET /tasks/1 HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"},
			"a WebSocket after another protocol": {get("/tasks/1", user, "Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"), 200,
				"GET /tasks/1 HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"},
			"a WebSocket of a stranger": {get("/tasks/1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"), 401, ""},
		})
	}}
}

// startCaddy runs the Caddy of the README in front of e and of its upstream, and
// returns its address.
func startCaddy(t *testing.T, e *testGateway) string {
	t.Helper()
	caddy, addr, dir := findProxy(t, "caddy"), freeAddr(t), t.TempDir()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n" + documented(t, "## Caddy\n", "caddyfile",
		"app.example.com", "http://gateway.test:"+port, "gateway:8080", e.addr, "app:9000", e.config.Upstreams[0].Targets[0].Host)
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(caddy, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	runProxy(t, cmd, addr)
	return addr
}

func TestForwardAuthOfCaddy(t *testing.T)                { caddy().test(t) }
func TestForwardAuthOfCaddyWithoutAGateway(t *testing.T) { caddy().testAlone(t) }
func TestForwardAuthOfCaddyAndBodies(t *testing.T)       { caddy().testBodies(t) }
func TestForwardAuthOfCaddyAndAddresses(t *testing.T)    { caddy().testAddresses(t) }
