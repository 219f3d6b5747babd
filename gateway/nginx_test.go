package gateway

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func nginx() frontProxy {
	return frontProxy{name: "nginx", start: startNginx, refused: 403, cases: func(user string, claims []string) map[string]frontCase {
		return map[string]frontCase{
			"out of the gateway's own": {get("/auth/../tasks/1", user), 403, ""},
			"what is internal":         {get("/_authorize", append(claims, user)...), 404, ""},
		}
	}}
}

// startNginx runs the nginx of the README in front of e and of its upstream, and
// returns its address.
func startNginx(t *testing.T, e *testGateway) string {
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
`, dir, e.config.Upstreams[0].Targets[0].Host, e.addr, documented(t, "nginx", "listen 80;", "listen "+addr+";"))
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	runProxy(t, exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", file), addr)
	return addr
}

func TestForwardAuthOfNginx(t *testing.T)             { nginx().test(t) }
func TestForwardAuthOfNginxAndBodies(t *testing.T)    { nginx().testBodies(t) }
func TestForwardAuthOfNginxAndAddresses(t *testing.T) { nginx().testAddresses(t) }
