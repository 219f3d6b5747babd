package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func refreshKey(k *Keyring) []byte { return k.secret(time.Now()).refresh.key }

func TestKeyringIsMadeOnceAndThenRead(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256, RS256, HS256} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data", "keys")
			first, err := OpenKeyring(dir, alg)
			if err != nil {
				t.Fatal(err)
			}
			second, err := OpenKeyring(dir, alg)
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			if first.client(now).id != second.client(now).id || first.assertion(now).id != second.assertion(now).id || !bytes.Equal(refreshKey(first), refreshKey(second)) {
				t.Error("the second start has other keys")
			}
			if first.client(now).alg != alg {
				t.Errorf("clients get %s", first.client(now).alg)
			}
			if first.assertion(now).alg == HS256 {
				t.Error("assertions are symmetric")
			}
			files, err := os.ReadDir(dir)
			if err != nil || len(files) != 2 {
				t.Errorf("%v, %v; want a secret and a key", files, err)
			}
			for _, f := range files {
				if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
				}
			}
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("the directory has mode %v, %v", info.Mode(), err)
			}
		})
	}
}

func TestStartingAtOnceMakesOneSetOfKeys(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	ids := map[string]bool{}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			k, err := OpenKeyring(dir, EdDSA)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[k.client(time.Now()).id+string(refreshKey(k))] = true
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Errorf("%d sets of keys", len(ids))
	}
}

func TestKeysThatOthersCanReadAreRefused(t *testing.T) {
	for _, c := range []struct {
		file string
		mode os.FileMode
		ok   bool
	}{
		{"secret", 0o600, true}, {"secret", 0o400, true}, {"secret", 0o640, true},
		{"secret", 0o644, false}, {"secret", 0o660, false}, {"secret", 0o602, false},
		{"*.pem", 0o600, true}, {"*.pem", 0o604, false}, {"*.pem", 0o620, false},
	} {
		dir := t.TempDir()
		if _, err := OpenKeyring(dir, EdDSA); err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob(filepath.Join(dir, c.file))
		if len(files) != 1 {
			t.Fatal(files)
		}
		if err := os.Chmod(files[0], c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeyring(dir, EdDSA); (err == nil) != c.ok {
			t.Errorf("%s of mode %v: %v", c.file, c.mode, err)
		}
	}
}

func TestKeyFilesThatAreWrongAreNamedAndNotQuoted(t *testing.T) {
	encode := func(kind string, key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for name, c := range map[string]struct{ file, content string }{
		"short secret":          {"secret", "c0ffee"},
		"secret that is no hex": {"secret", "hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2"},
		"empty secret":          {"secret", ""},
		"no PEM":                {"1.pem", "hello"},
		"a public key":          {"1.pem", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"},
		"PKCS #1's name":        {"1.pem", encode("RSA PRIVATE KEY", ed)},
		"encrypted":             {"1.pem", encode("ENCRYPTED PRIVATE KEY", ed)},
		"a time that is none":   {"20261301T000000Z-mine.pem", encode("PRIVATE KEY", ed)},
		"another's secret":      {"my-secret", strings.Repeat("c0ffee00", 8)},
		"broken DER":            {"1.pem", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0IGtleQ==\n-----END PRIVATE KEY-----\n"},
		"another curve":         {"1.pem", encode("PRIVATE KEY", p384)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := OpenKeyring(dir, EdDSA)
			if err == nil || !strings.Contains(err.Error(), c.file) {
				t.Fatalf("%v; want the file's name", err)
			}
			for line := range strings.Lines(c.content) {
				if line = strings.TrimSpace(line); line != "" && strings.Contains(err.Error(), line) && !strings.Contains(line, "PRIVATE KEY") {
					t.Errorf("the error quotes the file: %v", err)
				}
			}
		})
	}
}

func TestJWKSHoldsPublicKeysOnly(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256, RS256, HS256} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			k, err := OpenKeyring(t.TempDir(), alg)
			if err != nil {
				t.Fatal(err)
			}
			var set struct{ Keys []map[string]any }
			now := time.Now()
			doc := k.jwks(now, time.Hour)
			if err := json.Unmarshal(doc, &set); err != nil || len(set.Keys) != 1 {
				t.Fatalf("%s, %v", doc, err)
			}
			jwk := set.Keys[0]
			if jwk["kid"] != k.assertion(now).id || jwk["alg"] != string(k.assertion(now).alg) || jwk["use"] != "sig" {
				t.Errorf("%v", jwk)
			}
			for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
				if _, ok := jwk[private]; ok {
					t.Errorf("%q is in the JWKS", private)
				}
			}
		})
	}
}

// The examples of RFC 7638 §3.1 and RFC 8037 appendix A.3.
func TestThumbprint(t *testing.T) {
	raw := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	n := "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W" +
		"-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt" +
		"-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	for want, key := range map[string]any{
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": &rsa.PublicKey{N: new(big.Int).SetBytes(raw(n)), E: 65537},
		"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": ed25519.PublicKey(raw("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")),
	} {
		if got, err := thumbprint(key); got != want || err != nil {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

func TestWhatIsDerivedFromTheSecretDiffers(t *testing.T) {
	k, err := OpenKeyring(t.TempDir(), HS256)
	if err != nil {
		t.Fatal(err)
	}
	client := k.client(time.Now())
	if bytes.Equal(refreshKey(k), client.private.([]byte)) {
		t.Error("refresh tokens and access tokens have one key")
	}
	if strings.Contains(client.id, string(refreshKey(k))) {
		t.Error("the key id tells the key")
	}
}
