// Package certs keeps the certificates of the edge: those of files, which it reads
// again when they change, and those that it gets by ACME (RFC 8555).
package certs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/acme/autocert"
)

// Pair names two PEM files: a certificate with its chain, and its key.
type Pair struct{ Cert, Key string }

// Config says where certificates come from. There must be a pair or a domain.
type Config struct {
	Pairs      []Pair // the first is for clients that ask for no name, or one that nobody has
	MinVersion uint16 // tls.VersionTLS12 or tls.VersionTLS13
	ClientCA   string // PEM file of those who vouch for clients; "" asks no client
	ClientAuth tls.ClientAuthType
	ACME       ACME
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Store holds the certificates that are in use.
type Store struct {
	cfg     Config
	acme    *autocert.Manager // nil: none
	current atomic.Pointer[tls.Config]
	problem atomic.Pointer[string] // why current is not what the files say

	mu   sync.Mutex
	seen [sha256.Size]byte // of the files as they were last looked at
	done [sha256.Size]byte // of the files as they were last tried

	reloads *prometheus.CounterVec
	expiry  *prometheus.GaugeVec
	acmeLog sometimes
}

// Open reads the certificates. Every problem is reported at once.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg, acme: cfg.ACME.manager(),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "portcullis_certificate_reloads_total", Help: "Times that changed certificate files were read, by result.",
		}, []string{"result"}),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "portcullis_certificate_expiry_timestamp_seconds", Help: "When a certificate that is in use ends, by the name of its file.",
		}, []string{"file"}),
	}
	s.seen = s.digest()
	s.done = s.seen
	next, err := s.read()
	switch {
	case errors.Is(err, errEnded) && next != nil: // better than nothing, and than no start
		cfg.Log.Error("a certificate is of no use any more", "error", err)
	case err != nil:
		return nil, err
	}
	s.current.Store(next)
	cfg.Metrics.MustRegister(s.reloads, s.expiry)
	return s, nil
}

// TLS is the configuration of a server. It follows the files.
func (s *Store) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: s.cfg.MinVersion,
		NextProtos: s.protocols(),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.current.Load(), nil
		},
	}
}

// Problem says why the certificates in use are not those of the files; nil if they are.
func (s *Store) Problem() error {
	if p := s.problem.Load(); p != nil {
		return errors.New(*p)
	}
	return nil
}

// Covers reports whether there is, or can be, a certificate for a host name or an
// address.
func (s *Store) Covers(host string) bool {
	if s.acme != nil && s.acme.HostPolicy(context.Background(), host) == nil {
		return true
	}
	return slices.ContainsFunc(s.current.Load().Certificates, func(c tls.Certificate) bool { return c.Leaf.VerifyHostname(host) == nil })
}

// Run looks at the files every so often, until ctx ends.
func (s *Store) Run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.Look()
		}
	}
}

// Look reads the files again if their content has changed and stands still: of a
// certificate and its key, one is always written before the other.
func (s *Store) Look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.seen
	s.seen = s.digest()
	if s.seen == s.done || s.seen != before {
		return
	}
	s.done = s.seen
	next, err := s.read()
	if err != nil {
		text := err.Error()
		s.problem.Store(&text)
		s.reloads.WithLabelValues("refused").Inc()
		s.cfg.Log.Error("certificates refused: the old ones stay", "error", err)
		return
	}
	s.current.Store(next)
	s.problem.Store(nil)
	s.reloads.WithLabelValues("ok").Inc()
	s.cfg.Log.Info("certificates reloaded")
}

// errEnded means that all is well but for the time.
var errEnded = errors.New("has ended")

// read makes a configuration of what the files hold now. Beside errEnded it returns
// one, too.
func (s *Store) read() (*tls.Config, error) {
	var errs, ended []error
	next := &tls.Config{
		MinVersion: s.cfg.MinVersion, NextProtos: s.protocols(), ClientAuth: s.cfg.ClientAuth,
		// A session that is resumed is not asked for its certificate again: who is not
		// vouched for any more must not come back with one.
		SessionTicketsDisabled: s.cfg.ClientAuth != tls.NoClientCert,
	}
	for _, p := range s.cfg.Pairs {
		c, err := readPair(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if time.Now().After(c.Leaf.NotAfter) {
			ended = append(ended, fmt.Errorf("certificate %s %w on %s", p.Cert, errEnded, c.Leaf.NotAfter.UTC().Format(time.RFC3339)))
		}
		next.Certificates = append(next.Certificates, c)
	}
	if s.cfg.ClientCA != "" {
		var err error
		if next.ClientCAs, err = readPool(s.cfg.ClientCA); err != nil {
			errs = append(errs, err)
		}
	}
	if s.acme != nil {
		next.GetCertificate = s.byACME
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i, p := range s.cfg.Pairs {
		s.expiry.WithLabelValues(p.Cert).Set(float64(next.Certificates[i].Leaf.NotAfter.Unix()))
	}
	return next, errors.Join(ended...)
}

// readPair names the files, as the error of tls.LoadX509KeyPair does not.
func readPair(p Pair) (tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return c, fmt.Errorf("certificate %s with key %s: %w", p.Cert, p.Key, err)
	}
	return c, nil
}

func readPool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("certificates of those who vouch for clients: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("certificates of those who vouch for clients: %s holds none", file)
	}
	return pool, nil
}

// digest is of the content of all files: editors rename files, and Kubernetes swaps
// symbolic links.
func (s *Store) digest() [sha256.Size]byte {
	h := sha256.New()
	files := []string{s.cfg.ClientCA}
	for _, p := range s.cfg.Pairs {
		files = append(files, p.Cert, p.Key)
	}
	for _, f := range files {
		content, err := os.ReadFile(f)
		fmt.Fprintf(h, "%d %v\n", len(content), err != nil)
		h.Write(content)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
