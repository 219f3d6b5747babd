package certs

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/gateway/certs/certstest"
)

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	return openTo(t, io.Discard, cfg)
}

// openTo is open with a log.
func openTo(t *testing.T, log io.Writer, cfg Config) *Store {
	t.Helper()
	cfg.MinVersion, cfg.Log, cfg.Metrics = tls.VersionTLS12, slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shake does a handshake, and returns what the client sees of it and what the server
// makes of it.
func shake(t *testing.T, s *Store, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	served := make(chan error, 1)
	go func() {
		conn := tls.Server(far, s.TLS())
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte("x")) // with TLS 1.3 the client is done before the server has seen its certificate
		}
		served <- errors.Join(err, far.Close())
	}()
	conn := tls.Client(near, client)
	err := conn.Handshake()
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	_ = near.Close()
	if serverErr := <-served; err == nil && serverErr != nil {
		err = serverErr
	}
	return conn.ConnectionState(), err
}

func TestTheCertificateIsThatOfTheName(t *testing.T) {
	a, dir := certstest.NewAuthority(t), t.TempDir()
	var pairs []Pair
	for _, name := range []string{"a.test", "*.b.test"} {
		p := Pair{filepath.Join(dir, name[2:]+".pem"), filepath.Join(dir, name[2:]+".key")}
		a.Issue(name).Write(t, p.Cert, p.Key)
		pairs = append(pairs, p)
	}
	s := open(t, Config{Pairs: pairs})
	for name, want := range map[string]string{"a.test": "a.test", "x.b.test": "*.b.test", "b.test": "a.test", "": "a.test", "A.TEST": "a.test"} {
		state, err := shake(t, s, &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := state.PeerCertificates[0].DNSNames[0]; got != want || state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("%q: %s over %q", name, got, state.NegotiatedProtocol)
		}
	}
	for host, want := range map[string]bool{"a.test": true, "x.b.test": true, "b.test": false, "": false, "evil.test": false, "127.0.0.1": false} {
		if s.Covers(host) != want {
			t.Errorf("covers %q: %v", host, !want)
		}
	}
	if _, err := shake(t, s, &tls.Config{RootCAs: a.Pool(), ServerName: "a.test", MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

// serial tells which certificate is in use.
func serial(t *testing.T, s *Store) int64 {
	t.Helper()
	state, err := shake(t, s, &tls.Config{InsecureSkipVerify: true, ServerName: "a.test"})
	if err != nil {
		t.Fatal(err)
	}
	return state.PeerCertificates[0].SerialNumber.Int64()
}

func TestCertificatesFollowTheirFiles(t *testing.T) {
	a, dir := certstest.NewAuthority(t), t.TempDir()
	p := Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	a.Issue("a.test").Write(t, p.Cert, p.Key)
	s := open(t, Config{Pairs: []Pair{p}})
	first := serial(t, s)
	want := func(when string, serialWanted int64, problem string) {
		t.Helper()
		if got := serial(t, s); got != serialWanted {
			t.Errorf("%s: certificate %d, want %d", when, got, serialWanted)
		}
		if err := s.Problem(); (err != nil) != (problem != "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: problem %v, want %q", when, err, problem)
		}
	}
	s.Look()
	s.Look()
	want("unchanged", first, "")

	// A key that comes a moment after its certificate is no reason for alarm.
	next := a.Issue("a.test")
	write(t, p.Cert, next.CertPEM)
	s.Look()
	want("the certificate without its key", first, "")
	write(t, p.Key, next.KeyPEM)
	s.Look()
	want("not yet known to stand still", first, "")
	s.Look()
	want("both", first+1, "")

	// One that does not come is.
	write(t, p.Cert, a.Issue("a.test").CertPEM)
	s.Look()
	s.Look()
	want("a certificate without its key", first+1, "private key does not match")
	write(t, p.Cert, []byte("garbage"))
	s.Look()
	s.Look()
	want("garbage", first+1, p.Cert)
	if err := os.Remove(p.Cert); err != nil {
		t.Fatal(err)
	}
	s.Look()
	s.Look()
	want("nothing", first+1, p.Cert)
	a.IssueUntil(time.Now().Add(-time.Minute), "a.test").Write(t, p.Cert, p.Key)
	s.Look()
	s.Look()
	want("ended", first+1, "has ended")

	// Kubernetes swaps a link to a directory.
	at := filepath.Join(dir, "new")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	a.Issue("a.test").Write(t, filepath.Join(at, "c"), filepath.Join(at, "k"))
	for file, to := range map[string]string{p.Cert: "c", p.Key: "k"} {
		if err := errors.Join(os.Remove(file), os.Symlink(filepath.Join(at, to), file)); err != nil {
			t.Fatal(err)
		}
	}
	s.Look()
	s.Look()
	want("a link", first+4, "")
}

func TestWhatCannotBeReadStopsTheStart(t *testing.T) {
	a, dir := certstest.NewAuthority(t), t.TempDir()
	p := Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	write(t, p.Cert, a.Issue("a.test").CertPEM)
	write(t, p.Key, a.Issue("a.test").KeyPEM)
	cfg := Config{Pairs: []Pair{p, {"none.pem", "none.key"}}, ClientCA: p.Key, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	_, err := Open(cfg)
	if err == nil || !strings.Contains(err.Error(), p.Cert) || !strings.Contains(err.Error(), "none.pem") || !strings.Contains(err.Error(), "holds none") {
		t.Errorf("got %v; want all three problems", err)
	}
	a.IssueUntil(time.Now().Add(-time.Minute), "a.test").Write(t, p.Cert, p.Key)
	serial(t, open(t, Config{Pairs: []Pair{p}})) // one that has ended is served
}

func TestClientsAreVouchedFor(t *testing.T) {
	a, other, dir := certstest.NewAuthority(t), certstest.NewAuthority(t), t.TempDir()
	p, ca := Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}, filepath.Join(dir, "ca.pem")
	a.Issue("a.test").Write(t, p.Cert, p.Key)
	write(t, ca, a.PEM())
	client := func(of *certstest.Authority) *tls.Config {
		c := of.Issue("client").Certificate
		return &tls.Config{RootCAs: a.Pool(), ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(8),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }}
	}
	nobody := &tls.Config{RootCAs: a.Pool(), ServerName: "a.test"}
	known := client(a)
	for auth, want := range map[tls.ClientAuthType][3]bool{ // of nobody, a's and the other's
		tls.VerifyClientCertIfGiven:    {true, true, false},
		tls.RequireAndVerifyClientCert: {false, true, false},
	} {
		s := open(t, Config{Pairs: []Pair{p}, ClientCA: ca, ClientAuth: auth})
		for i, c := range []*tls.Config{nobody, known, client(other)} {
			if _, err := shake(t, s, c); (err == nil) != want[i] {
				t.Errorf("%v, client %d: %v", auth, i, err)
			}
		}
		// Who is not vouched for any more does not come back with an old session.
		write(t, ca, other.PEM())
		s.Look()
		s.Look()
		if _, err := shake(t, s, known); err == nil {
			t.Errorf("%v: a client of before is let in", auth)
		}
		write(t, ca, a.PEM())
	}
}
