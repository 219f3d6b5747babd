package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
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
	"time"
)

// writeCertificate writes a certificate for localhost with that serial number.
func writeCertificate(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A gateway with TLS, its redirect, and certificates that change while it runs.
func TestServeOverTLS(t *testing.T) {
	t.Parallel()
	dir, edge, plain, operators := t.TempDir(), freeAddr(t), freeAddr(t), freeAddr(t)
	writeCertificate(t, dir, 1)
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

	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
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
	serial := func() int64 {
		t.Helper()
		res, _ := get("https://"+edge+jwksPath, "localhost")
		if res.StatusCode != 200 {
			t.Errorf("%s", res.Status)
		}
		return res.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Errorf("certificate %d", got)
	}
	_, port, _ := strings.Cut(edge, ":")
	if res, _ := get("http://"+plain+"/a?b", "localhost"); res.StatusCode != 308 || res.Header.Get("Location") != "https://localhost:"+port+"/a?b" {
		t.Errorf("the redirect: %s, %v", res.Status, res.Header)
	}
	if res, _ := get("http://"+plain+"/a?b", "evil.test"); res.StatusCode != 400 || res.Header.Get("Location") != "" {
		t.Errorf("the redirect for another's host: %s, %v", res.Status, res.Header)
	}

	writeCertificate(t, dir, 2)
	waitFor(t, log, "certificates reloaded")
	if got := serial(); got != 2 {
		t.Errorf("after a change: certificate %d", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, log, "certificates refused")
	if got := serial(); got != 2 {
		t.Errorf("after a bad change: certificate %d", got)
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
