package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"portcullis/gateway/certs/certstest"
)

// A gateway with TLS, its redirect, and certificates that change while it runs.
func TestServeOverTLS(t *testing.T) {
	t.Parallel()
	dir, edge, plain, operators := t.TempDir(), freeAddr(t), freeAddr(t), freeAddr(t)
	authority := certstest.NewAuthority(t)
	renew := func() *big.Int {
		c := authority.Issue("localhost")
		c.Write(t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		return c.Leaf.SerialNumber
	}
	first := renew()
	rules, err := filepath.Abs("../../policy/policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `
listen: %q
admin: {listen: %q}
tls: {certs: [{cert: cert.pem, key: key.pem}], redirect: %q}
identity:
  store: "file:./identity.db"
  tokens: {issuer: "https://localhost"}
  reset: {link: "https://localhost/{token}"}
policy: {file: %q}
`, edge, operators, plain, rules), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &lockedBuffer{}
	cmd := exec.Command("gateway", "serve", "-c", file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // if the test has not come to its end
	waitFor(t, log, "serving")

	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: authority.Pool(), ServerName: "localhost"}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := func(url, host string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := client.Do(req)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res, string(body)
	}
	serial := func() *big.Int {
		t.Helper()
		res, _ := get("https://"+edge+jwksPath, "localhost")
		if res.StatusCode != 200 {
			t.Errorf("%s", res.Status)
		}
		return res.TLS.PeerCertificates[0].SerialNumber
	}
	if got := serial(); got.Cmp(first) != 0 {
		t.Errorf("certificate %d, want %d", got, first)
	}
	_, port, _ := strings.Cut(edge, ":")
	if res, _ := get("http://"+plain+"/a?b", "localhost"); res.StatusCode != 308 || res.Header.Get("Location") != "https://localhost:"+port+"/a?b" {
		t.Errorf("the redirect: %s, %v", res.Status, res.Header)
	}
	if res, _ := get("http://"+plain+"/a?b", "evil.test"); res.StatusCode != 400 || res.Header.Get("Location") != "" {
		t.Errorf("the redirect for another's host: %s, %v", res.Status, res.Header)
	}

	second := renew()
	waitFor(t, log, "certificates reloaded")
	if got := serial(); got.Cmp(second) != 0 {
		t.Errorf("after a change: certificate %d, want %d", got, second)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, log, "certificates refused")
	if got := serial(); got.Cmp(second) != 0 {
		t.Errorf("after a bad change: certificate %d, want %d", got, second)
	}
	if _, ready := get("http://"+operators+"/readyz", ""); !strings.Contains(ready, `"certificate_error":"certificate `) {
		t.Errorf("readyz says %s", ready)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v\n%s", err, log)
	}
}
