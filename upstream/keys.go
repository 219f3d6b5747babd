package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

const (
	keysFetchTimeout = 2 * time.Second
	keysMaxBytes     = 256 << 10
	// keysRetry is the least time between two fetches that requests wait for:
	// a stranger who makes up key IDs costs the gateway no more than that.
	keysRetry = 2 * time.Second
	// Keys older than keysRefresh are fetched again, so that one which the
	// gateway has withdrawn is forgotten. When that fails they stay in use until
	// keysExpire, and it is tried again every keysRefreshRetry.
	keysRefresh      = 5 * time.Minute
	keysRefreshRetry = 30 * time.Second
	keysExpire       = time.Hour

	minRSABits = 2048
)

// ErrKeysUnavailable means that an assertion could not be checked because the
// issuer's keys could not be had: nothing is known about the assertion.
var ErrKeysUnavailable = errors.New("the issuer's keys cannot be had")

// keySource holds the issuer's public keys (a JWK set, RFC 7517). It fetches
// them when they are first needed, when they have become old, and when an
// assertion names a key that is not among them. Parsing and finding keys is
// keyfunc's; when to fetch is decided here, because keyfunc's own client cannot
// tell "no such key" from "not reached", fetches when it is made, and reads an
// answer of any size.
type keySource struct {
	url    string
	client *http.Client
	log    *slog.Logger
	now    func() time.Time

	mu        sync.Mutex
	keys      keyfunc.Keyfunc // nil until a fetch has succeeded
	fetched   time.Time       // when keys came
	attempted time.Time       // when the latest fetch ended
	failed    error           // why the latest fetch brought none; nil if it did
	running   chan struct{}   // closed at the end of the fetch under way; nil when there is none
}

func newKeySource(url string, log *slog.Logger) *keySource {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		// A connection kept for the next fetch would be a stale one by then.
		DisableKeepAlives: true,
	}
	return &keySource{
		url: url,
		client: &http.Client{
			Transport: boundedTransport{transport},
			Timeout:   keysFetchTimeout,
			// Keys come from the address that was configured and from no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		log:    log,
		now:    time.Now,
		failed: errors.New("they have not been fetched yet"),
	}
}

// key returns the public key that t says it is signed with. The error is
// ErrKeysUnavailable if that cannot be known, and ErrInvalidAssertion if there is none.
func (s *keySource) key(ctx context.Context, t *jwt.Token) (any, error) {
	keys, refresh := s.current()
	if keys == nil || refresh {
		fetched, err := s.fetchUnlessRecent(ctx)
		switch {
		case err == nil:
			keys = fetched
		case keys == nil:
			return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
		default:
			s.log.Warn("the issuer's keys could not be refreshed; those at hand stay in use", "error", err)
		}
	}
	key, err := keys.KeyfuncCtx(ctx)(t)
	if errors.Is(err, jwkset.ErrKeyNotFound) {
		if keys, err = s.fetchUnlessRecent(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
		}
		key, err = keys.KeyfuncCtx(ctx)(t)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: no key for its key ID and algorithm", ErrInvalidAssertion)
	}
	if algorithmOf(key) != t.Method.Alg() {
		return nil, fmt.Errorf("%w: its algorithm is not that of the key", ErrInvalidAssertion)
	}
	return key, nil
}

// current returns the keys at hand, nil when they are too old to be believed,
// and whether this caller should refresh them first.
func (s *keySource) current() (keys keyfunc.Keyfunc, refresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	age := now.Sub(s.fetched)
	if s.keys == nil || age > keysExpire {
		return nil, false
	}
	return s.keys, age > keysRefresh && now.Sub(s.attempted) > keysRefreshRetry && s.running == nil
}

// fetchUnlessRecent returns the outcome of a fetch that ended no longer than
// keysRetry ago, of the one under way, or of one it makes itself.
func (s *keySource) fetchUnlessRecent(ctx context.Context) (keyfunc.Keyfunc, error) {
	s.mu.Lock()
	if running := s.running; running != nil {
		s.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s.mu.Lock()
	} else if s.now().Sub(s.attempted) > keysRetry {
		s.running = make(chan struct{})
		s.mu.Unlock()
		// Others wait for this too: it does not end when this request does.
		s.fetchAndKeep(context.WithoutCancel(ctx))
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	return s.keys, s.failed
}

func (s *keySource) fetchAndKeep(ctx context.Context) {
	var keys keyfunc.Keyfunc
	err := errors.New("fetching the keys panicked")
	defer func() { // whatever happens, those who wait are let go
		s.mu.Lock()
		defer s.mu.Unlock()
		s.attempted, s.failed = s.now(), err
		if err == nil {
			s.keys, s.fetched = keys, s.attempted
		}
		close(s.running)
		s.running = nil
	}()
	keys, err = s.fetch(ctx)
}

func (s *keySource) fetch(ctx context.Context) (keyfunc.Keyfunc, error) {
	ctx, cancel := context.WithTimeout(ctx, keysFetchTimeout)
	defer cancel()
	// Without a refresh interval this is one GET, and no goroutine is left behind.
	set, err := jwkset.NewStorageFromHTTP(s.url, jwkset.HTTPClientStorageOptions{Client: s.client, Ctx: ctx})
	if err != nil {
		return nil, err
	}
	if all, err := set.KeyReadAll(ctx); err != nil || len(all) == 0 {
		return nil, errors.Join(errors.New("the key set holds no key that can be used"), err)
	}
	return keyfunc.New(keyfunc.Options{
		Storage: set,
		// A key may leave out what it is for, but not be for something else.
		UseWhitelist: []jwkset.USE{jwkset.UseSig, ""},
	})
}

// algorithmOf returns the one algorithm that signatures by this key may be made
// with, "" for keys that none of ours fits. The choice is the key's, never the
// token's: else an RSA key's public half would serve as an HMAC secret.
func algorithmOf(key any) string {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return jwt.SigningMethodEdDSA.Alg()
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return jwt.SigningMethodES256.Alg()
		}
	case *rsa.PublicKey:
		if k.N.BitLen() >= minRSABits {
			return jwt.SigningMethodRS256.Alg()
		}
	}
	return ""
}

// boundedTransport cuts bodies off at keysMaxBytes.
type boundedTransport struct{ http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, keysMaxBytes), res.Body}
	}
	return res, err
}
