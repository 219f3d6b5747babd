package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/MicahParks/jwkset"
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

// signingKey is one key with the only algorithm it may be used with.
type signingKey struct {
	id      string // RFC 7638 thumbprint; for HS256 a digest that tells nothing of the key
	alg     Algorithm
	file    string
	private any // what golang-jwt signs with
	public  any // what golang-jwt verifies with
}

// Keyring holds the keys of one gateway: the private keys in its directory, one
// PEM file (PKCS #8) each, and one secret from which everything symmetric is
// derived. It does not change once opened. Of the keys of one algorithm the one
// whose file name sorts last signs; all of them verify.
type Keyring struct {
	byID      map[string]*signingKey
	client    *signingKey // signs access tokens
	assertion *signingKey // signs what upstreams verify: never symmetric
	refresh   []byte      // authenticates refresh tokens
	jwks      []byte
}

// OpenKeyring loads the keys in dir, and generates what alg needs and is not
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

	secret, err := loadSecret(filepath.Join(dir, "secret"))
	if err != nil {
		return nil, err
	}
	k := &Keyring{byID: map[string]*signingKey{}}
	if k.refresh, err = hkdf.Key(sha256.New, secret, nil, "portcullis refresh token v1", 32); err != nil {
		return nil, fmt.Errorf("deriving the refresh key: %w", err)
	}
	keys, err := loadKeys(dir)
	if err != nil {
		return nil, err
	}
	asymmetric := alg
	if alg == HS256 {
		asymmetric = EdDSA // upstreams must be able to verify without being able to sign
	}
	if k.assertion = lastOf(keys, asymmetric); k.assertion == nil {
		if k.assertion, err = generateKey(dir, asymmetric); err != nil {
			return nil, err
		}
		keys = append(keys, k.assertion)
	}
	k.client = k.assertion
	if alg == HS256 {
		if k.client, err = symmetricKey(secret); err != nil {
			return nil, err
		}
		keys = append(keys, k.client)
	}
	for _, key := range keys {
		k.byID[key.id] = key
	}
	if k.jwks, err = marshalJWKS(keys); err != nil {
		return nil, err
	}
	return k, nil
}

// KeyInfo describes a key without giving it away.
type KeyInfo struct {
	ID        string    `json:"id"`
	Algorithm Algorithm `json:"algorithm"`
	File      string    `json:"file"`
	Signs     bool      `json:"signs"` // false: verifies only
}

// Keys lists the keys, those that sign first.
func (k *Keyring) Keys() []KeyInfo {
	var infos []KeyInfo
	for _, key := range k.byID {
		infos = append(infos, KeyInfo{ID: key.id, Algorithm: key.alg, File: key.file, Signs: key == k.client || key == k.assertion})
	}
	slices.SortFunc(infos, func(a, b KeyInfo) int {
		if a.Signs != b.Signs {
			if a.Signs {
				return -1
			}
			return 1
		}
		return strings.Compare(b.File, a.File)
	})
	return infos
}

// JWKS is the set of public keys as a JSON document (RFC 7517).
func (k *Keyring) JWKS() []byte { return k.jwks }

// lockDir keeps two processes that start at once from generating a key each. It
// locks the directory itself, which works on a read-only mount too.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing releases the lock
}

func loadSecret(file string) ([]byte, error) {
	text, err := readPrivate(file)
	if errors.Is(err, fs.ErrNotExist) {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails (crypto/rand)
		return secret, writePrivate(file, []byte(hex.EncodeToString(secret)+"\n"))
	}
	if err != nil {
		return nil, err
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) < 32 {
		return nil, fmt.Errorf("%s: want at least 32 bytes in hexadecimal", file)
	}
	return secret, nil
}

func loadKeys(dir string) ([]*signingKey, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return nil, fmt.Errorf("listing keys: %w", err)
	}
	slices.Sort(files)
	var keys []*signingKey
	for _, file := range files {
		text, err := readPrivate(file)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(text)
		if block == nil || block.Type != "PRIVATE KEY" {
			return nil, fmt.Errorf(`%s: want a PEM block "PRIVATE KEY" (PKCS #8)`, file)
		}
		private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: not a PKCS #8 key", file) // the cause could quote the key
		}
		key, err := newSigningKey(private)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		key.file = file
		keys = append(keys, key)
	}
	return keys, nil
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
	key.id, err = thumbprint(key.public)
	return key, err
}

// symmetricKey derives the HS256 key of the secret.
func symmetricKey(secret []byte) (*signingKey, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "portcullis client token HS256 v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the HS256 key: %w", err)
	}
	id, err := hkdf.Key(sha256.New, secret, nil, "portcullis client token HS256 key id v1", 16)
	if err != nil {
		return nil, fmt.Errorf("deriving the HS256 key id: %w", err)
	}
	return &signingKey{id: "hs256-" + hex.EncodeToString(id), alg: HS256, private: key, public: key, file: "secret"}, nil
}

// lastOf returns the key of alg whose file name sorts last, or nil.
func lastOf(keys []*signingKey, alg Algorithm) *signingKey {
	for _, key := range slices.Backward(keys) {
		if key.alg == alg {
			return key
		}
	}
	return nil
}

// generateKey makes a key and its file, whose name begins with the time so that
// it sorts behind all earlier ones.
func generateKey(dir string, alg Algorithm) (*signingKey, error) {
	var private crypto.Signer
	var err error
	switch alg {
	case EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RS256:
		private, err = rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		return nil, fmt.Errorf("no keys can be generated for algorithm %q", alg)
	}
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	key, err := newSigningKey(private)
	if err != nil {
		return nil, err
	}
	key.file = filepath.Join(dir, fmt.Sprintf("%s-%s-%s.pem", time.Now().UTC().Format("20060102T150405.000Z"), strings.ToLower(string(alg)), key.id[:8]))
	return key, writePrivate(key.file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// readPrivate reads a file that nobody but its owner (and group, for mounted
// secrets) may read.
func readPrivate(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	if info.Mode().Perm()&0o037 != 0 {
		return nil, fmt.Errorf("%s can be read or changed by others (%v): chmod 600 it", file, info.Mode().Perm())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	return text, nil
}

// writePrivate creates file whole or not at all.
func writePrivate(file string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".new-*") // created 0600
	if err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), file) // unlike a rename, never replaces a key
	}
	if err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	return nil
}

// marshalJWKS writes the public keys, symmetric ones excepted.
func marshalJWKS(keys []*signingKey) ([]byte, error) {
	set := jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{}}
	for _, key := range keys {
		if key.alg == HS256 {
			continue
		}
		jwk, err := publicJWK(key.public, jwkset.JWKMetadataOptions{ALG: jwkset.ALG(key.alg), KID: key.id, USE: jwkset.UseSig})
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jwk)
	}
	doc, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encoding the JWKS: %w", err)
	}
	return doc, nil
}

func publicJWK(public any, meta jwkset.JWKMetadataOptions) (jwkset.JWKMarshal, error) {
	jwk, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{Metadata: meta})
	if err != nil {
		return jwkset.JWKMarshal{}, fmt.Errorf("encoding a public key: %w", err)
	}
	return jwk.Marshal(), nil
}

// thumbprint is the JWK thumbprint of RFC 7638 with SHA-256.
func thumbprint(public any) (string, error) {
	jwk, err := publicJWK(public, jwkset.JWKMetadataOptions{})
	if err != nil {
		return "", err
	}
	// The required members only, in lexicographic order, without white space.
	members := map[string]string{"kty": jwk.KTY.String()}
	switch jwk.KTY {
	case jwkset.KtyRSA:
		members["e"], members["n"] = jwk.E, jwk.N
	case jwkset.KtyEC:
		members["crv"], members["x"], members["y"] = jwk.CRV.String(), jwk.X, jwk.Y
	default:
		members["crv"], members["x"] = jwk.CRV.String(), jwk.X
	}
	canonical, err := json.Marshal(members) // maps are written in the order of their keys
	if err != nil {
		return "", fmt.Errorf("encoding a thumbprint: %w", err)
	}
	sum := sha256.Sum256(canonical)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// method is golang-jwt's name for the key's algorithm.
func (k *signingKey) method() jwt.SigningMethod { return jwt.GetSigningMethod(string(k.alg)) }
