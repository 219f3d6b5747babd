//go:build linux

package main

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"portcullis/identity"
)

// The same claims for everyone: the gateway's own, because they are longer than
// those that HAProxy asks for.

const issuer = "http://localhost:8080"

// newGatewaySigner returns a function that makes n access tokens of as many
// callers, signed with the gateway's keys, as logging in would.
func newGatewaySigner(keys, algorithm string) (func(n int) ([]string, error), error) {
	ring, err := identity.OpenKeyring(keys, identity.Algorithm(algorithm))
	if err != nil {
		return nil, err
	}
	tokens := identity.NewTokens(identity.TokensConfig{Issuer: issuer, Audience: "api", AccessTTL: 24 * time.Hour}, ring, nil)
	return func(n int) ([]string, error) {
		all := make([]string, n)
		for i := range all {
			caller := identity.User{
				ID: fmt.Sprintf("0190b0a0-0000-7000-8000-%012d", i), Username: fmt.Sprintf("caller%d", i),
				Email: fmt.Sprintf("caller%d@example.com", i), EmailVerified: true, Roles: []string{"user"}, Active: true,
			}
			if all[i], err = tokens.Issue(caller, fmt.Sprintf("0190b0a1-0000-7000-8000-%012d", i), []string{"tasks.use"}); err != nil {
				return nil, err
			}
		}
		return all, nil
	}, nil
}

// peerSigner makes tokens for HAProxy, which needs a key it can be told.
type peerSigner struct {
	algorithm string
	verifier  string // the secret, or the file of the public key
	secret    []byte
	private   *rsa.PrivateKey
	claims    func(n int) ([]string, error)
}

func newPeerSigner(dir, algorithm string) (*peerSigner, error) {
	s := &peerSigner{algorithm: algorithm}
	var err error
	if s.claims, err = newGatewaySigner(filepath.Join(dir, "keys"), "EdDSA"); err != nil {
		return nil, err
	}
	switch algorithm {
	case "HS256":
		s.verifier = rand.Text() + rand.Text()
		s.secret = []byte(s.verifier)
		return s, nil
	case "RS256":
		if s.private, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKIXPublicKey(s.private.Public())
		if err != nil {
			return nil, err
		}
		s.verifier = filepath.Join(dir, "public.pem")
		return s, os.WriteFile(s.verifier, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
	}
	return nil, fmt.Errorf("HAProxy does not verify %s", algorithm)
}

func (s *peerSigner) tokens(n int) ([]string, error) {
	all, err := s.claims(n)
	if err != nil {
		return nil, err
	}
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + s.algorithm + `","typ":"JWT"}`))
	for i, token := range all {
		said := head + "." + strings.Split(token, ".")[1]
		var signature []byte
		if s.private == nil {
			mac := hmac.New(sha256.New, s.secret)
			mac.Write([]byte(said))
			signature = mac.Sum(nil)
		} else {
			sum := sha256.Sum256([]byte(said))
			if signature, err = rsa.SignPKCS1v15(nil, s.private, crypto.SHA256, sum[:]); err != nil {
				return nil, err
			}
		}
		all[i] = said + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	return all, nil
}
