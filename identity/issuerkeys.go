package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
)

const (
	issuerTimeout  = 5 * time.Second
	issuerMaxBytes = 512 << 10
	issuerMaxKeys  = 100
	issuerRSABits  = 8192 // larger ones cost more to verify with than a request may
	// issuerPause is the least time between two looks at an issuer's keys: tokens
	// that name keys which do not exist cost it no more than that.
	issuerPause = 10 * time.Second
)

// issuerKeys are the keys of an issuer with what they have verified. The two are
// replaced together, as in trust.
type issuerKeys struct {
	byID        map[string]*publicKey
	fingerprint string // equal for the same keys
	verified    *generations[*Principal]
}

// unused are the same keys, which have verified nothing yet.
func (k *issuerKeys) unused() *issuerKeys {
	return &issuerKeys{byID: k.byID, fingerprint: k.fingerprint, verified: newGenerations[*Principal](verifiedTokens)}
}

// publicKey is a key of somebody else.
type publicKey struct {
	public any
	alg    string // the only algorithm it is for; "": any of its kind
	kind   string // the algorithms of the kind, of which the length is left open for RSA
}

// fits reports whether a signature by the key may be of that algorithm. The
// choice is the key's: else the text of an RSA key would serve as an HMAC secret.
func (k *publicKey) fits(alg string) bool {
	return (k.alg == "" || k.alg == alg) && (alg == k.kind || k.kind == "RSA" && (strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")))
}

// keySource keeps an issuer's keys current, in the background: no request waits for
// it. A look that fails changes nothing: the keys at hand stay in use.
type keySource struct {
	url     string
	every   time.Duration
	pause   time.Duration
	client  *http.Client
	log     *slog.Logger
	current atomic.Pointer[issuerKeys] // nil until a look has succeeded
	looked  atomic.Int64               // Unix nanoseconds of the last that succeeded
	asked   chan struct{}              // a token has named a key that is not there
	first   chan struct{}              // closed after the first look
	stop    context.CancelFunc
	done    chan struct{}
}

// startKeySource looks at once, and then every so often until close. known are
// the keys to begin with, or nil.
func startKeySource(name string, cfg IssuerConfig, pause time.Duration, known *issuerKeys, log *slog.Logger) *keySource {
	ctx, stop := context.WithCancel(context.Background())
	roots, _ := cfg.roots()
	s := &keySource{
		url: cfg.JWKSURL, every: cfg.Refresh, pause: min(pause, cfg.Refresh), log: log.With("issuer", name),
		client: &http.Client{
			Timeout: issuerTimeout,
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
				DisableKeepAlives: true, // a connection kept until the next look would be a stale one
				TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
				ForceAttemptHTTP2: true, // which a TLS configuration of our own would rule out
			},
			// Keys come from the address that was configured and from no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		asked: make(chan struct{}, 1), first: make(chan struct{}), stop: stop, done: make(chan struct{}),
	}
	if known != nil {
		s.current.Store(known.unused())
	}
	go s.run(ctx)
	return s
}

// roots are the certificates to believe; nil is the system's. Those of a CA in which
// there are none believe nobody.
func (c *IssuerConfig) roots() (pool *x509.CertPool, ok bool) {
	if c.CA == nil {
		return nil, true
	}
	pool = x509.NewCertPool()
	return pool, pool.AppendCertsFromPEM(c.CA)
}

// ask wants a look soon; it does not wait for it.
func (s *keySource) ask() {
	select {
	case s.asked <- struct{}{}:
	default: // somebody has asked already
	}
}

func (s *keySource) close() {
	s.stop()
	<-s.done
}

func (s *keySource) run(ctx context.Context) {
	defer close(s.done)
	var last, next time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	for begun := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-s.asked:
			if soonest := last.Add(s.pause); begun && soonest.Before(next) {
				next = soonest
				timer.Reset(time.Until(next))
			}
			continue
		case <-timer.C:
		}
		err := s.look(ctx)
		if ctx.Err() != nil {
			return
		}
		last = time.Now()
		next = last.Add(s.every)
		switch {
		case err != nil:
			next = last.Add(s.pause)
			if !failing {
				s.log.Error("the issuer's keys cannot be fetched; those at hand stay in use", "error", err)
			}
		case failing:
			s.log.Info("the issuer's keys are fetched again")
		}
		failing = err != nil
		timer.Reset(time.Until(next))
		if !begun {
			begun = true
			close(s.first)
		}
	}
}

// look fetches the keys. The same keys again keep what they have verified.
func (s *keySource) look(ctx context.Context) error {
	doc, err := s.fetch(ctx)
	if err != nil {
		return err
	}
	keys, err := parseIssuerKeys(doc)
	if err != nil {
		return err
	}
	s.looked.Store(time.Now().UnixNano())
	if before := s.current.Load(); before == nil || before.fingerprint != keys.fingerprint {
		s.current.Store(keys)
		s.log.Info("the issuer has new keys", "keys", len(keys.byID))
	}
	return nil
}

func (s *keySource) fetch(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching keys: %w", err)
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetching keys: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetching keys: %s", res.Status)
	}
	doc, err := io.ReadAll(io.LimitReader(res.Body, issuerMaxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("fetching keys: %w", err)
	case len(doc) > issuerMaxBytes:
		return nil, fmt.Errorf("fetching keys: more than %d bytes", issuerMaxBytes)
	}
	return doc, nil
}

// jwk is what counts of a JWK. What it says of certificates does not, and is not
// given to the library, which would fetch them.
type jwk struct {
	KTY    jwkset.KTY `json:"kty"`
	KID    string     `json:"kid"`
	USE    string     `json:"use"`
	KEYOPS []string   `json:"key_ops"`
	ALG    string     `json:"alg"`
	CRV    jwkset.CRV `json:"crv"`
	X      string     `json:"x"`
	Y      string     `json:"y"`
	N      string     `json:"n"`
	E      string     `json:"e"`
}

// parseIssuerKeys reads a JWK set. Keys that cannot be used are left out: a set
// may hold some for other purposes. A set without any is one: all were withdrawn.
func parseIssuerKeys(doc []byte) (*issuerKeys, error) {
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(doc, &set); err != nil || set.Keys == nil {
		return nil, errors.New("not a JWK set")
	}
	if len(set.Keys) > issuerMaxKeys {
		return nil, fmt.Errorf("%d keys, and %d are accepted", len(set.Keys), issuerMaxKeys)
	}
	keys := &issuerKeys{byID: map[string]*publicKey{}, verified: newGenerations[*Principal](verifiedTokens)}
	var ids []string
	count := map[string]int{}
	for _, raw := range set.Keys {
		var j jwk
		if json.Unmarshal(raw, &j) != nil {
			continue
		}
		key, err := j.publicKey()
		if err != nil {
			continue
		}
		digest, err := thumbprint(key.public)
		if err != nil {
			continue
		}
		keys.byID[j.KID] = key
		count[j.KID]++
		ids = append(ids, fmt.Sprintf("%q %s %s", j.KID, key.alg, digest))
	}
	for id, n := range count {
		if n > 1 {
			delete(keys.byID, id) // nobody can say which of them is meant
		}
	}
	slices.Sort(ids)
	keys.fingerprint = strings.Join(ids, "\n")
	return keys, nil
}

// publicKey accepts asymmetric keys for signatures that have a name.
func (j jwk) publicKey() (*publicKey, error) {
	if j.KID == "" || j.USE != "" && j.USE != "sig" || j.KEYOPS != nil && !slices.Contains(j.KEYOPS, "verify") {
		return nil, errors.New("not for tokens")
	}
	decoded, err := jwkset.NewJWKFromMarshal(jwkset.JWKMarshal{KTY: j.KTY, CRV: j.CRV, X: j.X, Y: j.Y, N: j.N, E: j.E},
		jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return nil, fmt.Errorf("decoding a key: %w", err)
	}
	key := &publicKey{public: decoded.Key(), alg: j.ALG}
	switch k := key.public.(type) {
	case ed25519.PublicKey:
		key.kind = "EdDSA"
	case *ecdsa.PublicKey:
		if _, err := k.ECDH(); err != nil { // also when the point is not on the curve
			return nil, errors.New("not a usable curve")
		}
		key.kind = map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[k.Curve.Params().BitSize]
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < rsaBits || bits > issuerRSABits || k.E < 3 || k.E%2 == 0 {
			return nil, errors.New("not a usable RSA key")
		}
		key.kind = "RSA"
	}
	if key.kind == "" {
		return nil, errors.New("not a key for signatures")
	}
	return key, nil
}
