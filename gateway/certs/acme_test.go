package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"portcullis/gateway/certs/certstest"
)

// acmeServer is an authority that speaks as much of RFC 8555 as a client needs: it
// believes what is signed, asks the question at the address of the gateway, and signs
// only for whoever has answered it.
type acmeServer struct {
	*certstest.Authority
	*httptest.Server
	kind string // of challenge
	at   string // where the question is asked

	mu      sync.Mutex
	account crypto.PublicKey
	valid   bool
	reason  error
	order   map[string]any
	cert    []byte
	issued  int64
}

func newACMEServer(t *testing.T, kind string) *acmeServer {
	t.Helper()
	s := &acmeServer{Authority: certstest.NewAuthority(t), kind: kind}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Server.Close)
	return s
}

const domain, token = "a.test", "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"

func (s *acmeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Replay-Nonce", fmt.Sprint(time.Now().UnixNano()))
	at := s.URL + "/"
	payload := s.payload(r)
	status := map[bool]string{false: "pending", true: "valid"}[s.valid]
	challenge := map[string]any{"type": s.kind, "url": at + "challenge", "token": token, "status": status}
	var answer any
	switch r.URL.Path {
	case "/directory":
		answer = map[string]string{"newNonce": at + "nonce", "newAccount": at + "account", "newOrder": at + "order", "revokeCert": at + "revoke", "keyChange": at + "key"}
	case "/nonce":
		return
	case "/account":
		w.Header().Set("Location", at+"account/1")
		answer = map[string]string{"status": "valid"}
	case "/order", "/order/1":
		if s.order == nil || r.URL.Path == "/order" {
			s.order = map[string]any{"status": "pending", "finalize": at + "finalize", "authorizations": []string{at + "authz"}, "identifiers": []any{map[string]string{"type": "dns", "value": domain}}}
		}
		if s.valid && s.order["status"] == "pending" {
			s.order["status"] = "ready"
		}
		w.Header().Set("Location", at+"order/1")
		answer = s.order
	case "/authz":
		answer = map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": domain}, "challenges": []any{challenge}}
	case "/challenge":
		s.reason = s.ask()
		if s.valid = s.reason == nil; s.valid {
			challenge["status"] = "valid"
		}
		answer = challenge
	case "/finalize":
		if !s.valid {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		s.cert = s.signRequest(payload)
		s.order["status"], s.order["certificate"] = "valid", at+"cert"
		w.Header().Set("Location", at+"order/1")
		answer = s.order
	case "/cert":
		_, _ = w.Write(s.cert)
		return
	}
	if r.URL.Path == "/account" || r.URL.Path == "/order" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// payload returns what a JWS holds, and remembers the key of the account.
func (s *acmeServer) payload(r *http.Request) []byte {
	var jws struct{ Protected, Payload string }
	body, _ := io.ReadAll(r.Body)
	if json.Unmarshal(body, &jws) != nil {
		return nil
	}
	head, _ := base64.RawURLEncoding.DecodeString(jws.Protected)
	var protected struct{ JWK *struct{ X, Y string } }
	if json.Unmarshal(head, &protected) == nil && protected.JWK != nil {
		x, _ := base64.RawURLEncoding.DecodeString(protected.JWK.X)
		y, _ := base64.RawURLEncoding.DecodeString(protected.JWK.Y)
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil
		}
		s.account = key
	}
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	return payload
}

// ask puts the question to the gateway.
func (s *acmeServer) ask() error {
	thumbprint, err := acme.JWKThumbprint(s.account)
	if err != nil {
		return err
	}
	want := token + "." + thumbprint
	if s.kind == "http-01" {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+s.at+"/.well-known/acme-challenge/"+token, nil)
		if err != nil {
			return err
		}
		r.Host = domain
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != want {
			return fmt.Errorf("answered %q, %w", body, err)
		}
		return nil
	}
	conn, err := tls.Dial("tcp", s.at, &tls.Config{ServerName: domain, NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	cert, sum := conn.ConnectionState().PeerCertificates[0], sha256.Sum256([]byte(want))
	for _, e := range cert.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) && e.Critical && bytes.HasSuffix(e.Value, sum[:]) && slices.Equal(cert.DNSNames, []string{domain}) {
			return nil
		}
	}
	return errors.New("the certificate holds no answer")
}

// signRequest signs a certificate request for the domain.
func (s *acmeServer) signRequest(payload []byte) []byte {
	var finalize struct{ CSR string }
	_ = json.Unmarshal(payload, &finalize)
	der, _ := base64.RawURLEncoding.DecodeString(finalize.CSR)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || !slices.Equal(csr.DNSNames, []string{domain}) {
		return nil
	}
	s.issued++
	cert, err := x509.CreateCertificate(nil, &x509.Certificate{SerialNumber: big.NewInt(s.issued), DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour)}, s.Authority.Certificate, csr.PublicKey, s.Key)
	if err != nil {
		return nil
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), s.PEM()...)
}

// A certificate is got from the authority at the first handshake for a domain, for
// which it asks over TLS or over plain HTTP; and not for another name.
func TestCertificatesComeByACME(t *testing.T) {
	for _, kind := range []string{"tls-alpn-01", "http-01"} {
		t.Run(kind, func(t *testing.T) {
			authority := newACMEServer(t, kind)
			cfg := Config{ACME: ACME{Domains: []string{domain}, Cache: t.TempDir(), Directory: authority.URL + "/directory", Email: "ops@a.test"}}
			s := open(t, cfg)
			secure, err := tls.Listen("tcp", "127.0.0.1:0", s.TLS())
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				for {
					conn, err := secure.Accept()
					if err != nil {
						return
					}
					go func() { _ = conn.(*tls.Conn).Handshake(); _ = conn.Close() }()
				}
			}()
			t.Cleanup(func() { _ = secure.Close(); <-served })
			plain := httptest.NewServer(s.HTTPHandler(http.NotFoundHandler()))
			t.Cleanup(plain.Close)
			if authority.at = secure.Addr().String(); kind == "http-01" {
				authority.at = plain.Listener.Addr().String()
			}

			client := &tls.Config{RootCAs: authority.Pool(), ServerName: domain, NextProtos: []string{"http/1.1"}}
			dialer := &net.Dialer{Timeout: 30 * time.Second}
			conn, err := tls.DialWithDialer(dialer, "tcp", secure.Addr().String(), client)
			if err != nil {
				t.Fatalf("%v; the authority: %v", err, authority.reason)
			}
			_ = conn.Close()
			if !s.Covers(domain) || s.Covers("b.test") {
				t.Error("covers other names than the domain")
			}
			other := client.Clone()
			other.ServerName = "b.test"
			if conn, err := tls.Dial("tcp", secure.Addr().String(), other); err == nil {
				_ = conn.Close()
				t.Error("there is a certificate for another name")
			}

			// Another gateway, or this one after a restart, has it from the cache.
			authority.Server.Close()
			again := open(t, cfg)
			if _, err := shake(t, again, client); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is no question of the authority's is left to others: nobody else is told why it has
// no answer.
func TestWhatHasNoAnswerIsLeftToOthers(t *testing.T) {
	cache := t.TempDir()
	s := open(t, Config{ACME: ACME{Domains: []string{domain}, Cache: cache, Directory: "http://127.0.0.1:1/directory"}})
	plain := httptest.NewServer(s.HTTPHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "left: "+r.Host) })))
	t.Cleanup(plain.Close)
	const question = "/.well-known/acme-challenge/"
	if err := os.WriteFile(filepath.Join(cache, "known+http-01"), []byte("answer"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ host, target, want string }{
		{domain, question + "known", "answer"},
		{domain + ":5002", question + "known", "answer"},
		{"b.test", question + "known", "left: b.test"},
		{domain, question + "unknown", "left: " + domain},
		{domain, question + strings.Repeat("x", 300), "left: " + domain}, // too long for the name of a file
		{domain, question + "a%00b", "left: " + domain},
		{domain, question, "left: " + domain},
		{domain, "/x", "left: " + domain},
		{domain + ":5002", "/x", "left: " + domain + ":5002"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, plain.URL+c.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = c.host
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != 200 || string(body) != c.want {
			t.Errorf("%.60s at %s: %d %q, %v", c.target, c.host, res.StatusCode, body, err)
		}
	}
}

// An authority that is not there is loud, and the certificates of files go on.
func TestAnAuthorityThatIsNotThere(t *testing.T) {
	a, dir := certstest.NewAuthority(t), t.TempDir()
	p := Pair{dir + "/cert.pem", dir + "/key.pem"}
	a.Issue("b.test").Write(t, p.Cert, p.Key)
	var log strings.Builder
	s := openTo(t, &log, Config{Pairs: []Pair{p}, ACME: ACME{Domains: []string{domain}, Cache: dir, Directory: "http://127.0.0.1:1/directory"}})
	if _, err := shake(t, s, &tls.Config{RootCAs: a.Pool(), ServerName: domain}); err == nil {
		t.Error("there is a certificate")
	}
	if !strings.Contains(log.String(), "domain=a.test") {
		t.Errorf("the log says %q", log.String())
	}
	if _, err := shake(t, s, &tls.Config{RootCAs: a.Pool(), ServerName: "b.test"}); err != nil {
		t.Error(err)
	}
}
