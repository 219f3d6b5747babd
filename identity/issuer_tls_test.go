package identity

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"portcullis/gateway/certs/certstest"
)

// overTLS has the issuer answer with a certificate of that authority from now on.
func (is *testIssuer) overTLS(authority *certstest.Authority) {
	is.t.Helper()
	is.server.Close()
	is.server = httptest.NewUnstartedServer(http.HandlerFunc(is.serve))
	is.server.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Issue("localhost").Certificate}}
	is.server.StartTLS()
	is.t.Cleanup(is.server.Close)
	_, port, err := net.SplitHostPort(is.server.Listener.Addr().String())
	if err != nil {
		is.t.Fatal(err)
	}
	is.config.JWKSURL = "https://localhost:" + port + "/jwks"
}

// Whoever can pretend to be an issuer's address can forge its tokens.
func TestTheCertificateOfAnIssuerIsChecked(t *testing.T) {
	theirs, other := certstest.NewAuthority(t), certstest.NewAuthority(t)
	for name, tc := range map[string]struct {
		ca       []byte
		believed bool
	}{
		"theirs":           {theirs.PEM(), true},
		"theirs among two": {append(other.PEM(), theirs.PEM()...), true},
		"another":          {other.PEM(), false},
		"the system's":     {nil, false},
	} {
		is := startIssuer(t, "inside")
		is.overTLS(theirs)
		is.config.CA = tc.ca
		tr := trusting(t, is.config)
		_, err := tr.Verify(is.sign("k1"), time.Now())
		if tc.believed && err != nil || !tc.believed && !errors.Is(err, ErrIssuerUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if asked := is.looks.Load() > 0; asked != tc.believed {
			t.Errorf("%s: asked for its keys %v", name, asked)
		}
	}
}

// Keys that were fetched from whom nobody believes any more are not kept.
func TestKeysAreOnlyAsGoodAsTheCertificateTheyCameWith(t *testing.T) {
	theirs := certstest.NewAuthority(t)
	is := startIssuer(t, "inside")
	is.overTLS(theirs)
	is.config.CA = theirs.PEM()
	tr := trusting(t, is.config)
	token := is.sign("k1")
	tr.who(token)
	is.config.CA = certstest.NewAuthority(t).PEM()
	changed := tr.Trusting(tr.hold(is.config))
	if _, err := changed.Verify(token, time.Now()); !errors.Is(err, ErrIssuerUnavailable) {
		t.Errorf("%v", err)
	}
	is.config.CA = []byte("-----BEGIN CERTIFICATE-----\n")
	if _, err := tr.federation.Trust([]IssuerConfig{is.config}); err == nil {
		t.Error("a CA without a certificate is accepted")
	}
	if roots, ok := is.config.roots(); ok || roots == nil {
		t.Errorf("it would believe whom the system believes: %v", roots)
	}
}
