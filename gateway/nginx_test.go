package gateway

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func nginx() frontProxy {
	start := func(t *testing.T, e *testGateway) string { return startNginx(t, e) }
	return frontProxy{name: "nginx", start: start, refused: 403, cases: func(user string, claims []string) map[string]frontCase {
		return map[string]frontCase{
			"out of the gateway's own": {get("/auth/../tasks/1", user), 403, ""},
			"what is internal":         {get("/_authorize", append(claims, user)...), 404, ""},
		}
	}}
}

// startNginx runs the nginx of the README in front of e and of its upstream, with each old
// text in it replaced by its new one, and returns its address.
func startNginx(t *testing.T, e *testGateway, oldnew ...string) string {
	t.Helper()
	nginx, addr, dir := findProxy(t, "nginx"), freeAddr(t), t.TempDir()
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {}
http {
    access_log off;
    client_max_body_size 0;
    client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
    upstream app { server %[2]s; }
    upstream gateway { server %[3]s; }
%[4]s
}
`, dir, e.config.Upstreams[0].Targets[0].Host, e.addr, documented(t, "## nginx\n", "nginx", append(oldnew, "listen 80;", "listen "+addr+";")...))
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	runProxy(t, exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", file), addr)
	return addr
}

func TestForwardAuthOfNginx(t *testing.T)                { nginx().test(t) }
func TestForwardAuthOfNginxWithoutAGateway(t *testing.T) { nginx().testAlone(t) }
func TestForwardAuthOfNginxAndBodies(t *testing.T)       { nginx().testBodies(t) }
func TestForwardAuthOfNginxAndAddresses(t *testing.T)    { nginx().testAddresses(t) }

// Where the service is an upstream of the gateway, too, it is told of what leads to it, and
// gets no request that does not.
func TestForwardAuthOfNginxForAnUpstream(t *testing.T) {
	e := startGateway(t, askedBy("nginx"), besides)
	through := &testGateway{t: t, addr: startNginx(t, e, "upstream=app", "upstream=up")}
	user := "Authorization: Bearer " + e.token("uma", "user")
	for path, leads := range map[string]bool{"/tasks/1": true, "/tasks/deep/1": false, "/nowhere": false, "/public/rewritten/1": false} {
		res, body := through.ask(get(path, user))
		seen := e.requests()
		if status := map[bool]int{true: 200, false: 403}[leads]; res.StatusCode != status || len(seen) != map[bool]int{true: 1}[leads] {
			t.Errorf("%s: %d %s, and the service saw %q", path, res.StatusCode, body, seen)
		}
		for _, head := range seen {
			_, rest, _ := strings.Cut(head, fieldAssertion+": ")
			if assertion, _, _ := strings.Cut(rest, "\r\n"); audienceOf(t, assertion) != "up" {
				t.Errorf("%s: the assertion is %q in\n%s", path, assertion, head)
			}
		}
	}
}
