package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"portcullis/gateway/certs/certstest"
)

const pebble = "github.com/letsencrypt/pebble/v2/cmd/pebble" // by those who run Let's Encrypt, for tests

// pebbleAuthority is an authority that asks whether a.test is ours at two ports.
type pebbleAuthority struct {
	*certstest.Authority // of its own web server
	directory            string
	log                  *lockedBuffer
	cmd                  *exec.Cmd
	management           string
}

// installPebble returns the directory with pebble and its name server in it.
func installPebble(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	install := exec.Command("go", "install", pebble+"@v2.10.3", pebble+"-challtestsrv@v2.10.3")
	install.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := install.CombinedOutput(); err != nil {
		if os.Getenv("REQUIRE_PEBBLE") == "" {
			t.Skip("go cannot install pebble: skipped")
		}
		t.Fatalf("go install: %v\n%s", err, out)
	}
	return dir
}

// start runs the authority, whose certificates last for that time.
func (a *pebbleAuthority) start(t *testing.T, programs string, lasts time.Duration, tlsPort, httpPort int) {
	t.Helper()
	dir, names := t.TempDir(), freeAddr(t)
	config := filepath.Join(dir, "pebble.json")
	a.Issue("localhost").Write(t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": strings.TrimSuffix(strings.TrimPrefix(a.directory, "https://"), "/dir"), "managementListenAddress": a.management,
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"tlsPort": tlsPort, "httpPort": httpPort, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"validityPeriod": int(lasts.Seconds())}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, config, string(text))
	runProgram(t, &lockedBuffer{}, filepath.Join(programs, "pebble-challtestsrv"), "-dnsserver", names, "-defaultIPv6", "",
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", freeAddr(t))
	a.log = &lockedBuffer{}
	a.cmd = runProgram(t, a.log, filepath.Join(programs, "pebble"), "-strict", "-config", config, "-dnsserver", names)
	waitFor(t, a.log, "ACME directory available")
}

// runProgram runs a program until the test ends.
func runProgram(t *testing.T, log *lockedBuffer, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s", program, log)
		}
	})
	return cmd
}

// roots asks the authority for the certificate that its own come from.
func (a *pebbleAuthority) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: a.Pool(), ServerName: "localhost"}}}
	var text []byte
	for end := time.Now().Add(patience); len(text) == 0; time.Sleep(10 * time.Millisecond) {
		if res, err := client.Get("https://" + a.management + "/roots/0"); err == nil {
			text, _ = io.ReadAll(res.Body)
			_ = res.Body.Close()
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatalf("the authority's certificate: %s", text)
	}
	return pool
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// startByACME starts a gateway for a.test, and an authority that can ask over TLS or over
// plain HTTP alone.
func startByACME(t *testing.T, programs string, overTLS bool, lasts time.Duration) (i *instance, a *pebbleAuthority, plain string) {
	t.Helper()
	a = &pebbleAuthority{Authority: certstest.NewAuthority(t), management: freeAddr(t)}
	a.directory = fmt.Sprintf("https://localhost:%d/dir", portOf(t, freeAddr(t)))
	dir := t.TempDir()
	plain = freeAddr(t)
	i = &instance{t: t, dir: filepath.Join(dir, "a"), config: filepath.Join(dir, "gateway.yaml")}
	rules, err := filepath.Abs("../../policy/policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "roots.pem"), string(a.PEM()))
	write(t, i.config, fmt.Sprintf(`
tls:
  acme: {domains: [a.test], email: ops@a.test, cache: acme, directory: %q}
  redirect: %q
identity:
  tokens: {issuer: "https://a.test"}
  reset: {link: "https://a.test/{token}"}
policy: {file: %q}
`, a.directory, plain, rules))
	i.start("SSL_CERT_FILE=" + filepath.Join(dir, "roots.pem")) // as whom the gateway knows the authority
	tlsPort, httpPort := portOf(t, i.edge), portOf(t, plain)
	if nowhere := portOf(t, freeAddr(t)); overTLS {
		httpPort = nowhere
	} else {
		tlsPort = nowhere
	}
	a.start(t, programs, lasts, tlsPort, httpPort)
	return i, a, plain
}

// certificateFor is what a client sees that trusts only the authority's roots.
func (i *instance) certificateFor(name string, roots *x509.CertPool) (*x509.Certificate, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", i.edge, &tls.Config{ServerName: name, RootCAs: roots})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func TestServeByACME(t *testing.T) {
	t.Parallel()
	programs := installPebble(t)

	// Over TLS, and what the gateway has it keeps over a restart, though there is no
	// authority any more.
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		i, a, plain := startByACME(t, programs, true, 90*24*time.Hour)
		roots := a.roots(t)
		if _, err := i.certificateFor("b.test", roots); err == nil {
			t.Error("there is a certificate for another name")
		}
		if strings.Contains(a.log.String(), "order-plz") {
			t.Error("the authority was asked for another name")
		}
		first, err := i.certificateFor("a.test", roots)
		if err != nil {
			t.Fatal(err)
		}
		i.redirects(plain)
		i.stop()
		_ = a.cmd.Process.Kill()
		i.start()
		if again, err := i.certificateFor("a.test", roots); err != nil || again.SerialNumber.Cmp(first.SerialNumber) != 0 {
			t.Errorf("after a restart: %v, %v", again, err)
		}
		i.stop()
	})

	// Over plain HTTP, where the rest is redirected, and again before it ends.
	t.Run("renewed", func(t *testing.T) {
		t.Parallel()
		i, a, plain := startByACME(t, programs, false, 9*time.Second)
		roots := a.roots(t)
		first := i.other(nil, roots)
		i.redirects(plain)
		i.other(first.SerialNumber, roots)
		i.stop()
	})
}

// other waits for a certificate that is not the one of that number. It may have ended
// before a machine that is busy has looked at it.
func (i *instance) other(than *big.Int, roots *x509.CertPool) *x509.Certificate {
	i.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var c *x509.Certificate
		if c, err = i.certificateFor("a.test", roots); err == nil && (than == nil || c.SerialNumber.Cmp(than) != 0) {
			return c
		}
	}
	i.t.Fatalf("there is no other certificate than %v: %v", than, err)
	return nil
}

// redirects looks at what is answered over plain HTTP.
func (i *instance) redirects(plain string) {
	i.t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, c := range []struct {
		host, target string
		status       int
		location     string
	}{
		{"a.test", "/a?b", 308, fmt.Sprintf("https://a.test:%d/a?b", portOf(i.t, i.edge))},
		{"b.test", "/a?b", 400, ""},
		{"a.test", "/.well-known/acme-challenge/none", 308, fmt.Sprintf("https://a.test:%d/.well-known/acme-challenge/none", portOf(i.t, i.edge))},
		{"b.test", "/.well-known/acme-challenge/none", 400, ""},
	} {
		req, err := http.NewRequest(http.MethodGet, "http://"+plain+c.target, nil)
		if err != nil {
			i.t.Fatal(err)
		}
		req.Host = c.host
		res, err := client.Do(req)
		if err != nil {
			i.t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.status || res.Header.Get("Location") != c.location {
			i.t.Errorf("%s at %s: %s, %q", c.target, c.host, res.Status, res.Header.Get("Location"))
		}
	}
}
