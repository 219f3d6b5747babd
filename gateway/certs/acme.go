package certs

import (
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// ACME is how certificates are got from an authority: at the first handshake for a
// domain, and again before they end. The terms of service are taken to be accepted.
type ACME struct {
	Domains   []string // host names; none: no ACME
	Email     string   // of the account; "" gives none
	Cache     string   // directory for keys and certificates
	Directory string   // URL of the authority; "": Let's Encrypt
}

func (a ACME) manager() *autocert.Manager {
	if len(a.Domains) == 0 {
		return nil
	}
	return &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(a.Cache), Email: a.Email,
		HostPolicy: autocert.HostWhitelist(a.Domains...),
		Client:     &acme.Client{DirectoryURL: a.Directory, UserAgent: "portcullis"},
	}
}

// protocols are those of ALPN (RFC 7301): HTTP/1.1, and the authority's question
// whether a domain is ours (RFC 8737).
func (s *Store) protocols() []string {
	if s.acme == nil {
		return []string{"http/1.1"}
	}
	return []string{"http/1.1", acme.ALPNProto}
}

// byACME is asked before the certificates of files. It returns nil for those.
func (s *Store) byACME(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	files := s.current.Load().Certificates
	question := slices.Contains(hello.SupportedProtos, acme.ALPNProto)
	known := s.acme.HostPolicy(hello.Context(), hello.ServerName) == nil
	if !question && !known && len(files) > 0 {
		return nil, nil
	}
	c, err := s.acme.GetCertificate(hello)
	if err != nil && !question && known && s.acmeLog.now() {
		s.cfg.Log.Error("there is no certificate from the authority", "domain", hello.ServerName, "error", err)
	}
	return c, err
}

// HTTPHandler answers the authority's question over plain HTTP (http-01), and leaves
// everything else to next: also what looks like the question and has no answer, of which
// autocert would tell anybody why, with the host they sent and the name of a file.
func (s *Store) HTTPHandler(next http.Handler) http.Handler {
	if s.acme == nil {
		return next
	}
	answers := s.acme.HTTPHandler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
			next.ServeHTTP(w, r)
			return
		}
		question, held := *r, heldAnswer{header: http.Header{}}
		if host, _, err := net.SplitHostPort(r.Host); err == nil {
			question.Host = host // an authority that asks at another port than 80 says so
		}
		answers.ServeHTTP(&held, &question)
		if held.failed {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream") // RFC 8555 §8.3
		_, _ = w.Write(held.body)                                  // who has left needs no answer
	})
}

// heldAnswer is an answer that nobody has been given yet.
type heldAnswer struct {
	header http.Header
	body   []byte
	failed bool
}

func (h *heldAnswer) Header() http.Header    { return h.header }
func (h *heldAnswer) WriteHeader(status int) { h.failed = h.failed || status != http.StatusOK }
func (h *heldAnswer) Write(p []byte) (int, error) {
	h.body = append(h.body, p...)
	return len(p), nil
}

// sometimes is for what is worth saying once a minute.
type sometimes struct {
	mu   sync.Mutex
	last time.Time
}

func (s *sometimes) now() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.last) < time.Minute {
		return false
	}
	s.last = time.Now()
	return true
}
