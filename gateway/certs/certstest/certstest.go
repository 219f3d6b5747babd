// Package certstest makes certificates for the tests of every room.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey

	t    testing.TB
	last int64 // serial number
}

// Certificate is one with its key, also as PEM.
type Certificate struct {
	tls.Certificate
	CertPEM, KeyPEM []byte
}

// NewAuthority returns an Authority that nobody knows yet.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t}
	c := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.Certificate, a.Key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// Issue returns a certificate for names, on either side of a connection. Serial numbers
// go up by one.
func (a *Authority) Issue(names ...string) Certificate {
	a.t.Helper()
	return a.IssueUntil(time.Now().Add(time.Hour), names...)
}

// IssueUntil is Issue with an end, which may be in the past.
func (a *Authority) IssueUntil(end time.Time, names ...string) Certificate {
	a.t.Helper()
	return a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// Pool returns a pool with a in it alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

// PEM returns the certificate of a.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})
}

// Write writes the certificate and its key to two files.
func (c Certificate) Write(t testing.TB, certFile, keyFile string) {
	t.Helper()
	for file, text := range map[string][]byte{certFile: c.CertPEM, keyFile: c.KeyPEM} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// sign makes a key and signs c for it: with the authority's key, or with its own while
// there is none.
func (a *Authority) sign(c *x509.Certificate) Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.last++
	c.SerialNumber, c.NotBefore = big.NewInt(a.last), c.NotAfter.Add(-2*time.Hour)
	parent, signer := a.Certificate, a.Key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return Certificate{
		tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
}
