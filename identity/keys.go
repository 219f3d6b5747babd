package identity

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithm is a JWS algorithm (RFC 7518, RFC 8037) for the tokens of clients.
type Algorithm string

// The algorithms that client tokens can be signed with.
const (
	EdDSA Algorithm = "EdDSA"
	ES256 Algorithm = "ES256"
	RS256 Algorithm = "RS256"
	HS256 Algorithm = "HS256"
)

// rsaBits is the size of generated RSA keys; smaller ones are not loaded.
const rsaBits = 2048

// keyOverlap is how much longer than the last token it signed a key is kept:
// the clocks of replicas, and of verifiers, may differ by as much.
const keyOverlap = time.Minute

// signingKey is one key with the only algorithm it may be used with.
type signingKey struct {
	id      string // RFC 7638 thumbprint; for HS256 a digest that tells nothing of the key
	alg     Algorithm
	private any    // what golang-jwt signs with
	public  any    // what golang-jwt verifies with
	jwk     []byte // the public half (RFC 7517); nil for HS256
	term
}

// masterSecret is what everything symmetric is derived from.
type masterSecret struct {
	refresh refreshCodec
	csrf    csrfCodec
	client  *signingKey // HS256
	term
}

// term is from when a key signs. Nothing else is recorded of a key's life: until
// when it is needed follows from the term of its successor.
type term struct {
	file string
	from time.Time // zero: since ever
	// succeeded is when the next key begins to sign; zero: there is none.
	succeeded time.Time
}

// retired reports whether the last that was signed in the term, and was valid
// for lifetime, has expired.
func (t term) retired(now time.Time, lifetime time.Duration) bool {
	return !t.succeeded.IsZero() && !now.Before(t.until(lifetime))
}

func (t term) until(lifetime time.Duration) time.Time { return t.succeeded.Add(lifetime + keyOverlap) }

// Keyring holds the keys of one gateway: the private keys in its directory, one
// PEM file (PKCS #8) each, and the secrets from which everything symmetric is
// derived. It does not change once opened, but which of its keys signs does: of
// those of one algorithm it is the one whose term began last. All of them verify,
// those whose term is still to come included, until what the key itself has
// signed has expired.
type Keyring struct {
	alg     Algorithm
	keys    []*signingKey   // asymmetric, by term
	secrets []*masterSecret // by term
	byID    map[string]*signingKey
}

// OpenKeyring reads the keys in dir, and generates what alg needs and is not
// there. Files are readable by their owner only; keys that others can read are
// refused.
func OpenKeyring(dir string, alg Algorithm) (*Keyring, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the key directory: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("locking the key directory: %w", err)
	}
	defer unlock()
	return openKeyring(dir, alg)
}

// openKeyring is OpenKeyring for who holds the lock.
func openKeyring(dir string, alg Algorithm) (*Keyring, error) {
	k, err := readKeyring(dir, alg)
	if err != nil {
		return nil, err
	}
	if len(k.secrets) == 0 {
		if err := generateSecret(dir, time.Time{}); err != nil {
			return nil, err
		}
	}
	if k.last(k.asymmetric()) == nil {
		if _, err := generateKey(dir, k.asymmetric(), time.Now()); err != nil {
			return nil, err
		}
	}
	return ReadKeyring(dir, alg)
}

// ReadKeyring reads the keys in dir as OpenKeyring does, but makes none: it fails
// if there is nothing to sign with.
func ReadKeyring(dir string, alg Algorithm) (*Keyring, error) {
	k, err := readKeyring(dir, alg)
	if err != nil {
		return nil, err
	}
	if len(k.secrets) == 0 {
		return nil, fmt.Errorf("%s: there is no secret", dir)
	}
	if k.last(k.asymmetric()) == nil {
		return nil, fmt.Errorf("%s: there is no %s key", dir, k.asymmetric())
	}
	return k, nil
}

// readKeyring reads what there is.
func readKeyring(dir string, alg Algorithm) (*Keyring, error) {
	k := &Keyring{alg: alg, byID: map[string]*signingKey{}}
	var err error
	if k.secrets, err = loadSecrets(dir); err != nil {
		return nil, err
	}
	if k.keys, err = loadKeys(dir); err != nil {
		return nil, err
	}
	for i, s := range k.secrets[:max(0, len(k.secrets)-1)] {
		s.succeeded = k.secrets[i+1].from
	}
	for _, s := range k.secrets {
		s.client.term = s.term
		if alg == HS256 {
			k.byID[s.client.id] = s.client
		}
	}
	for i, key := range k.keys {
		if j := slices.IndexFunc(k.keys[i+1:], func(next *signingKey) bool { return next.alg == key.alg }); j >= 0 {
			key.succeeded = k.keys[i+1+j].from
		}
		k.byID[key.id] = key
	}
	return k, nil
}

// equal reports whether two keyrings hold the same keys with the same terms.
func (k *Keyring) equal(other *Keyring) bool {
	return k.alg == other.alg &&
		slices.EqualFunc(k.keys, other.keys, func(a, b *signingKey) bool { return a.id == b.id && a.term == b.term }) &&
		slices.EqualFunc(k.secrets, other.secrets, func(a, b *masterSecret) bool { return a.client.id == b.client.id && a.term == b.term })
}

// asymmetric is the algorithm of assertions: upstreams must be able to verify
// without being able to sign.
func (k *Keyring) asymmetric() Algorithm {
	if k.alg == HS256 {
		return EdDSA
	}
	return k.alg
}

// last returns the key of alg whose term begins last, or nil.
func (k *Keyring) last(alg Algorithm) *signingKey {
	for _, key := range slices.Backward(k.keys) {
		if key.alg == alg {
			return key
		}
	}
	return nil
}

// assertion returns the key that signs assertions now. If all terms are to come,
// which only a wrong clock can bring about, it is the earliest.
func (k *Keyring) assertion(now time.Time) *signingKey {
	var chosen *signingKey
	for _, key := range k.keys {
		if key.alg == k.asymmetric() && (chosen == nil || !now.Before(key.from)) {
			chosen = key
		}
	}
	return chosen
}

// client returns the key that signs access tokens now.
func (k *Keyring) client(now time.Time) *signingKey {
	if k.alg == HS256 {
		return k.secret(now).client
	}
	return k.assertion(now)
}

// secret returns the secret whose term it is.
func (k *Keyring) secret(now time.Time) *masterSecret {
	chosen := k.secrets[0]
	for _, s := range k.secrets {
		if !now.Before(s.from) {
			chosen = s
		}
	}
	return chosen
}

// verifier returns the key of that id, unless whatever it has signed, to be valid
// for lifetime, has expired.
func (k *Keyring) verifier(id string, now time.Time, lifetime time.Duration) (*signingKey, error) {
	key, ok := k.byID[id]
	switch {
	case !ok:
		return nil, errors.New("unknown key")
	case key.retired(now, lifetime):
		return nil, errors.New("key is retired")
	}
	return key, nil
}

// jwks is the set of public keys as a JSON document (RFC 7517): those that sign,
// will sign, or have signed what can still be valid.
func (k *Keyring) jwks(now time.Time, lifetime time.Duration) []byte {
	var all [][]byte
	for _, key := range k.keys {
		if !key.retired(now, lifetime) {
			all = append(all, key.jwk)
		}
	}
	return slices.Concat([]byte(`{"keys":[`), bytes.Join(all, []byte(",")), []byte("]}"))
}

// newSigningKey pins a private key to its one algorithm.
func newSigningKey(private any) (*signingKey, error) {
	key := &signingKey{private: private}
	switch p := private.(type) {
	case ed25519.PrivateKey:
		key.alg, key.public = EdDSA, p.Public()
	case *ecdsa.PrivateKey:
		if p.Curve != elliptic.P256() {
			return nil, errors.New("want an ECDSA key on P-256")
		}
		key.alg, key.public = ES256, p.Public()
	case *rsa.PrivateKey:
		if p.N.BitLen() < rsaBits {
			return nil, fmt.Errorf("want an RSA key of at least %d bits", rsaBits)
		}
		key.alg, key.public = RS256, p.Public()
	default:
		return nil, fmt.Errorf("keys of type %T are not supported", private)
	}
	var err error
	if key.id, err = thumbprint(key.public); err != nil {
		return nil, err
	}
	key.jwk, err = marshalJWK(key)
	return key, err
}

// newMasterSecret derives what is derived from a secret.
func newMasterSecret(secret []byte, t term) (*masterSecret, error) {
	refresh, err := hkdf.Key(sha256.New, secret, nil, "portcullis refresh token v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the refresh key: %w", err)
	}
	csrf, err := hkdf.Key(sha256.New, secret, nil, "portcullis CSRF token v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the CSRF key: %w", err)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "portcullis client token HS256 v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the HS256 key: %w", err)
	}
	id, err := hkdf.Key(sha256.New, secret, nil, "portcullis client token HS256 key id v1", 16)
	if err != nil {
		return nil, fmt.Errorf("deriving the HS256 key id: %w", err)
	}
	client := &signingKey{id: "hs256-" + hex.EncodeToString(id), alg: HS256, private: key, public: key, term: t}
	return &masterSecret{refresh: refreshCodec{refresh}, csrf: csrfCodec{csrf}, client: client, term: t}, nil
}

// method is golang-jwt's name for the key's algorithm.
func (k *signingKey) method() jwt.SigningMethod { return jwt.GetSigningMethod(string(k.alg)) }

// byTerm orders by the beginning of terms, and by file name where that is equal.
func byTerm(a, b term) int {
	return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.file, b.file))
}
