package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The name of a key's file begins with the time from which it signs; one that
// does not begin with a time has always signed.
const fileTime = "20060102T150405.000Z"

// secretName is that of the first secret; the later ones are TIME-secret.
const secretName = "secret"

// termOf reads the term from a file's name.
func termOf(file string) (term, error) {
	text, _, _ := strings.Cut(filepath.Base(file), "-")
	if !regexp.MustCompile(`^[0-9]{8}T`).MatchString(text) {
		return term{file: file}, nil
	}
	for _, layout := range []string{fileTime, "20060102T150405Z"} {
		if from, err := time.Parse(layout, text); err == nil {
			return term{file: file, from: from}, nil
		}
	}
	return term{}, fmt.Errorf("%s: its name does not begin with a time such as 20060102T150405Z-", file)
}

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

// loadSecrets reads the secrets of dir, by term.
func loadSecrets(dir string) ([]*masterSecret, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"+secretName))
	if err != nil {
		return nil, fmt.Errorf("listing secrets: %w", err)
	}
	var secrets []*masterSecret
	for _, file := range files {
		t, err := termOf(file)
		if err != nil {
			return nil, err
		}
		if t.from.IsZero() != (filepath.Base(file) == secretName) {
			return nil, fmt.Errorf("%s: want the name %s or TIME-%s", file, secretName, secretName)
		}
		text, err := readPrivate(file)
		if err != nil {
			return nil, err
		}
		secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(secret) < 32 {
			return nil, fmt.Errorf("%s: want at least 32 bytes in hexadecimal", file)
		}
		s, err := newMasterSecret(secret, t)
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, s)
	}
	slices.SortFunc(secrets, func(a, b *masterSecret) int { return byTerm(a.term, b.term) })
	return secrets, nil
}

// loadKeys reads the private keys of dir, by term.
func loadKeys(dir string) ([]*signingKey, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return nil, fmt.Errorf("listing keys: %w", err)
	}
	var keys []*signingKey
	for _, file := range files {
		text, err := readPrivate(file)
		if err != nil {
			return nil, err
		}
		key, err := parseKey(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if key.term, err = termOf(file); err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(keys, func(k *signingKey) bool { return k.id == key.id }); i >= 0 {
			return nil, fmt.Errorf("%s: the same key as %s", file, keys[i].file)
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b *signingKey) int { return byTerm(a.term, b.term) })
	return keys, nil
}

// parseKey reads a PEM file. Its errors don't quote it.
func parseKey(text []byte) (*signingKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New(`want a PEM block "PRIVATE KEY" (PKCS #8)`)
	}
	switch block.Type {
	case "PRIVATE KEY":
	case "RSA PRIVATE KEY", "EC PRIVATE KEY", "EC PARAMETERS":
		return nil, fmt.Errorf("%q is PKCS #1 or SEC 1; want PKCS #8: openssl pkcs8 -topk8 -nocrypt converts it", block.Type)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("is encrypted; want it as it is, protected by the rights of its file")
	default:
		return nil, fmt.Errorf(`has a PEM block %q; want "PRIVATE KEY" (PKCS #8)`, block.Type)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a PKCS #8 key") // the cause could quote the key
	}
	return newSigningKey(private)
}

// generateSecret makes a secret that derives from then on.
func generateSecret(dir string, from time.Time) error {
	name := secretName
	if !from.IsZero() {
		name = from.UTC().Format(fileTime) + "-" + secretName
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	return writePrivate(filepath.Join(dir, name), []byte(hex.EncodeToString(secret)+"\n"))
}

// generateKey makes a key that signs from then on.
func generateKey(dir string, alg Algorithm, from time.Time) (*signingKey, error) {
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
	key.file = filepath.Join(dir, fmt.Sprintf("%s-%s-%s.pem", from.UTC().Format(fileTime), strings.ToLower(string(alg)), key.id[:8]))
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
