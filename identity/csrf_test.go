package identity

import (
	"path/filepath"
	"testing"
	"time"
)

func TestCSRFTokens(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	service := func(dir string) *Service {
		keys, err := OpenKeyring(dir, EdDSA)
		if err != nil {
			t.Fatal(err)
		}
		tokens := NewTokens(TokensConfig{Now: func() time.Time { return now }}, keys, nil)
		return &Service{cfg: Config{RefreshTTL: time.Hour}, tokens: tokens}
	}
	dir := filepath.Join(t.TempDir(), "keys")
	s, replica, stranger := service(dir), service(dir), service(t.TempDir())
	token := s.CSRFToken("a")
	if !replica.CheckCSRF("a", []byte(token)) {
		t.Error("a replica with the same secret refuses it")
	}
	for what, accepted := range map[string]bool{
		"another session's": s.CheckCSRF("b", []byte(token)),
		"another gateway's": stranger.CheckCSRF("a", []byte(token)),
		"none":              s.CheckCSRF("a", nil),
		"an empty one":      s.CheckCSRF("a", []byte{}),
		"no session's":      s.CheckCSRF("", []byte(s.CSRFToken(""))),
		"a longer one":      s.CheckCSRF("a", []byte(token+"A")),
		"a part":            s.CheckCSRF("a", []byte(token[:len(token)-1])),
	} {
		if accepted {
			t.Errorf("accepted: %s", what)
		}
	}
}

// A token lives as long as refresh tokens of the secret that made it.
func TestCSRFTokensOutliveTheTermOfTheirSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := OpenKeyring(dir, EdDSA); err != nil {
		t.Fatal(err)
	}
	from := time.Now().Add(time.Minute).Truncate(time.Second)
	if err := generateSecret(dir, from); err != nil {
		t.Fatal(err)
	}
	keys, err := OpenKeyring(dir, EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	now := from.Add(-time.Second)
	s := &Service{cfg: Config{RefreshTTL: time.Hour}, tokens: NewTokens(TokensConfig{Now: func() time.Time { return now }}, keys, nil)}
	before := s.CSRFToken("a")
	now = from.Add(time.Second)
	after := s.CSRFToken("a")
	if before == after {
		t.Error("the new secret is not used")
	}
	now = from.Add(time.Hour)
	if !s.CheckCSRF("a", []byte(before)) || !s.CheckCSRF("a", []byte(after)) {
		t.Error("refused while its secret lives")
	}
	now = from.Add(time.Hour + keyOverlap)
	if s.CheckCSRF("a", []byte(before)) || !s.CheckCSRF("a", []byte(after)) {
		t.Error("accepted after its secret was retired")
	}
}
