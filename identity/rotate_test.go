package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// gatewayOn is one of several gateways that share a key directory and a clock.
type gatewayOn struct {
	*Tokens
	t   *testing.T
	dir string
	alg Algorithm
}

func newGatewayOn(t *testing.T, dir string, alg Algorithm, now func() time.Time) *gatewayOn {
	t.Helper()
	keys, err := OpenKeyring(dir, alg)
	if err != nil {
		t.Fatal(err)
	}
	cfg := TokensConfig{Issuer: "https://id.example", Audience: "api", AccessTTL: testTTL.Access, Now: now}
	return &gatewayOn{NewTokens(cfg, keys, NewRevocations(RevocationConfig{}, nil, slog.New(slog.DiscardHandler))), t, dir, alg}
}

// reload is what a running gateway does when the directory has changed.
func (g *gatewayOn) reload() {
	g.t.Helper()
	keys, err := ReadKeyring(g.dir, g.alg)
	if err != nil {
		g.t.Fatal(err)
	}
	g.SetKeys(keys)
}

func (g *gatewayOn) issue() string {
	g.t.Helper()
	token, err := g.Issue(testUser(), newID(), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return token
}

func (g *gatewayOn) published() (ids []string) {
	g.t.Helper()
	var set struct{ Keys []struct{ Kid string } }
	if err := json.Unmarshal(g.JWKS(), &set); err != nil {
		g.t.Fatal(err)
	}
	for _, k := range set.Keys {
		ids = append(ids, k.Kid)
	}
	return ids
}

var testTTL = Lifetimes{Access: 15 * time.Minute, Refresh: 7 * 24 * time.Hour}

func states(infos []KeyInfo) (all []KeyState) {
	for _, info := range infos {
		all = append(all, info.State)
	}
	return all
}

// keysOf are those of the algorithm.
func keysOf(t *testing.T, dir string, alg Algorithm, now time.Time, of Algorithm) []KeyInfo {
	t.Helper()
	k, err := ReadKeyring(dir, alg)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(k.Keys(now, testTTL), func(i KeyInfo) bool { return i.Algorithm != of })
}

// A whole life: two gateways, a rotation announced an hour ahead, and what either
// issues at any time is believed by both until it expires.
func TestRotationIsNoticedByNobody(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256, RS256, HS256} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			clock := func() time.Time { return now }
			dir := t.TempDir()
			a, b := newGatewayOn(t, dir, alg, clock), newGatewayOn(t, dir, alg, clock)
			old := a.trust.Load().keys.client(now).id
			type issued struct {
				token string
				until time.Time
			}
			var tokens []issued
			step := func(d time.Duration) {
				now = now.Add(d)
				for _, g := range []*gatewayOn{a, b} {
					tokens = append(tokens, issued{g.issue(), now.Add(testTTL.Access)})
				}
				for i, it := range tokens {
					for _, g := range []*gatewayOn{a, b} {
						_, err := g.Verify([]byte(it.token))
						if _, cold := g.parse([]byte(it.token), g.trust.Load().keys); (cold == nil) != (err == nil) && now.Before(it.until) {
							t.Fatalf("token %d: %v from memory, %v from nothing", i, err, cold)
						}
						if (err == nil) != now.Before(it.until) {
							t.Fatalf("token %d, good until %v, at %v: %v", i, it.until, now, err)
						}
					}
				}
			}
			step(0)
			made, err := Rotate(dir, alg, false, now.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: 2, false: 1}[alg == HS256]; len(made) != want || made[0].State != KeyPublished {
				t.Fatalf("%+v", made)
			}
			a.reload() // b learns it later
			step(30 * time.Minute)
			if alg != HS256 && len(a.published()) != 2 {
				t.Errorf("a publishes %v", a.published())
			}
			if a.trust.Load().keys.client(now).id != old {
				t.Error("a signs with what verifiers do not know yet")
			}
			b.reload()
			for range 8 {
				step(10 * time.Minute)
			}
			if a.trust.Load().keys.client(now).id == old {
				t.Error("the new key does not sign")
			}
			// 50 minutes after the new key's first signature the old one is gone, without a reload.
			if alg != HS256 && (len(b.published()) != 1 || b.published()[0] == old) {
				t.Errorf("b publishes %v", b.published())
			}
		})
	}
}

func TestKeyLivesThroughItsStates(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenKeyring(dir, ES256); err != nil {
		t.Fatal(err)
	}
	start := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	if _, err := Rotate(dir, ES256, false, start); err != nil {
		t.Fatal(err)
	}
	gone := start.Add(testTTL.Access + keyOverlap)
	for _, c := range []struct {
		at   time.Time
		want []KeyState
	}{
		{time.Unix(0, 0), []KeyState{KeySigns, KeyPublished}}, // a clock that is wrong
		{start.Add(-time.Millisecond), []KeyState{KeySigns, KeyPublished}},
		{start, []KeyState{KeySigns, KeyVerifies}},
		{gone.Add(-time.Millisecond), []KeyState{KeySigns, KeyVerifies}},
		{gone, []KeyState{KeySigns, KeyRetired}},
		{gone.AddDate(10, 0, 0), []KeyState{KeySigns, KeyRetired}},
	} {
		infos := keysOf(t, dir, ES256, c.at, ES256)
		if !slices.Equal(states(infos), c.want) {
			t.Errorf("at %v: %v, want %v", c.at, states(infos), c.want)
		}
	}
	if pruned, err := Prune(dir, ES256, gone.Add(-time.Millisecond), testTTL); err != nil || len(pruned) != 0 {
		t.Errorf("too early: %v, %v", pruned, err)
	}
	pruned, err := Prune(dir, ES256, gone, testTTL)
	if err != nil || len(pruned) != 1 || !pruned[0].VerifiesUntil.Equal(gone) {
		t.Errorf("%+v, %v", pruned, err)
	}
	left := keysOf(t, dir, ES256, gone, ES256)
	if len(left) != 1 || !left[0].SignsFrom.Equal(start) {
		t.Errorf("left: %+v", left)
	}
	if again, err := Prune(dir, ES256, gone.AddDate(100, 0, 0), testTTL); err != nil || len(again) != 0 {
		t.Errorf("the only key: %v, %v", again, err)
	}
}

func TestRefreshTokensOutliveARotationOfTheSecret(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	g := newGatewayOn(t, dir, EdDSA, func() time.Time { return now })
	session := newID()
	before, err := g.encodeRefresh(session, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Rotate(dir, EdDSA, true, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	g.reload()
	if same, _ := g.encodeRefresh(session, 1); same != before {
		t.Error("the new secret is used before its term")
	}
	now = now.Add(2 * time.Hour)
	after, _ := g.encodeRefresh(session, 1)
	if after == before {
		t.Error("the old secret is still used")
	}
	for _, c := range []struct {
		passed time.Duration
		old    bool
	}{{0, true}, {testTTL.Refresh - 2*time.Hour, true}, {testTTL.Refresh, false}} {
		at := now
		now = now.Add(c.passed)
		for token, want := range map[string]bool{before: c.old, after: true} {
			if id, _, err := g.decodeRefresh(token, testTTL.Refresh); (err == nil && id == session) != want {
				t.Errorf("after %v: %s, %v; want %v", c.passed, id, err, want)
			}
		}
		now = at
	}
	now = now.Add(testTTL.Refresh)
	if pruned, err := Prune(dir, EdDSA, now, testTTL); err != nil || len(pruned) != 2 { // the first secret and the first key
		t.Errorf("%v, %v", pruned, err)
	}
	g.reload()
	if _, _, err := g.decodeRefresh(after, testTTL.Refresh); err != nil {
		t.Error(err)
	}
}

func TestWithdrawnKeyIsGoneAtOnce(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	g := newGatewayOn(t, dir, EdDSA, func() time.Time { return now })
	stolen := g.trust.Load().keys.assertion(now).id
	withdraw := func() error {
		_, err := Withdraw(dir, EdDSA, stolen, now, testTTL)
		return err
	}
	token := g.issue()
	if _, err := g.Verify([]byte(token)); err != nil { // and remember it
		t.Fatal(err)
	}
	if err := withdraw(); !errors.Is(err, ErrOnlyKey) {
		t.Errorf("the only key: %v", err)
	}
	if _, err := Rotate(dir, EdDSA, false, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := withdraw(); !errors.Is(err, ErrOnlyKey) {
		t.Errorf("the only key that verifiers know: %v", err)
	}
	if _, err := Rotate(dir, EdDSA, false, now); err != nil {
		t.Fatal(err)
	}
	if err := withdraw(); err != nil {
		t.Fatal(err)
	}
	g.reload()
	if _, err := g.Verify([]byte(token)); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("%v", err)
	}
	if slices.Contains(g.published(), stolen) {
		t.Error("it is still published")
	}
	if _, err := g.Verify([]byte(g.issue())); err != nil {
		t.Error(err)
	}
	if err := withdraw(); !errors.Is(err, ErrNotFound) {
		t.Errorf("a second time: %v", err)
	}
}

// The term of a key ends with its successor's beginning. With the successor gone
// a retired key would be believed again, had it been left there.
func TestWithdrawingDoesNotRaiseTheDead(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenKeyring(dir, EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(time.Second) // the next key is a later one, however fast the first was made
	dead := first.assertion(now).id
	second, err := Rotate(dir, EdDSA, false, now)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if _, err := Rotate(dir, EdDSA, false, now); err != nil {
		t.Fatal(err)
	}
	if _, err := Withdraw(dir, EdDSA, second[0].ID, now, testTTL); err != nil {
		t.Fatal(err)
	}
	for _, info := range keysOf(t, dir, EdDSA, now, EdDSA) {
		if info.ID == dead {
			t.Errorf("%+v", info)
		}
	}
}

// Keys that an operator brings count by their names.
func TestKeysFromElsewhere(t *testing.T) {
	pem8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rs, _ := rsa.GenerateKey(rand.Reader, rsaBits)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for alg, key := range map[Algorithm]any{ES256: ec, RS256: rs, EdDSA: ed} {
		dir := t.TempDir()
		write := func(name string, content []byte) {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("mine.pem", pem8(key))
		k, err := OpenKeyring(dir, alg)
		if err != nil {
			t.Fatal(err)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "*.pem")); len(files) != 1 || k.assertion(time.Now()).file != files[0] {
			t.Errorf("%s: the only key does not sign: %v", alg, files)
		}
		now := time.Now()
		if _, err := Rotate(dir, alg, false, now); err != nil {
			t.Fatal(err)
		}
		later := now.AddDate(1, 0, 0)
		if got := states(keysOf(t, dir, alg, later, alg)); !slices.Equal(got, []KeyState{KeySigns, KeyRetired}) {
			t.Errorf("%s: %v", alg, got)
		}
		if pruned, err := Prune(dir, alg, later, testTTL); err != nil || len(pruned) != 0 {
			t.Errorf("%s: somebody else's key was deleted: %v, %v", alg, pruned, err)
		}
		// The same key under two names would sign under a term it does not have.
		write("20400101T000000Z-mine.pem", pem8(key))
		if _, err := ReadKeyring(dir, alg); err == nil || !strings.Contains(err.Error(), "mine.pem") {
			t.Errorf("%s: one key twice: %v", alg, err)
		}
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for kind, der := range map[string][]byte{"RSA PRIVATE KEY": x509.MarshalPKCS1PrivateKey(rs), "EC PRIVATE KEY": sec1} {
		_, err := parseKey(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
		if err == nil || !strings.Contains(err.Error(), "openssl pkcs8") {
			t.Errorf("%s: %v; want the way out", kind, err)
		}
	}
}

func TestReadingMakesNoKeys(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadKeyring(dir, EdDSA); err == nil {
		t.Error("an empty directory is a keyring")
	}
	if _, err := OpenKeyring(dir, EdDSA); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyring(dir, RS256); err == nil || !strings.Contains(err.Error(), "no RS256 key") {
		t.Errorf("%v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("%v", files)
	}
}

func TestTheSameKeysAgainForgetNothing(t *testing.T) {
	g := newGatewayOn(t, t.TempDir(), EdDSA, time.Now)
	before := g.trust.Load()
	g.reload()
	if g.trust.Load() != before {
		t.Error("verified tokens were forgotten")
	}
	if _, err := Rotate(g.dir, g.alg, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	if g.reload(); g.trust.Load() == before {
		t.Error("new keys were ignored")
	}
}

// Rotations while two gateways issue and verify: everything issued
// by a key that stays is believed by both, whenever each of them looks.
func TestRotationUnderLoad(t *testing.T) {
	dir := t.TempDir()
	a, b := newGatewayOn(t, dir, EdDSA, time.Now), newGatewayOn(t, dir, EdDSA, time.Now)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, pair := range [][2]*gatewayOn{{a, b}, {b, a}} {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				token, err := pair[0].Issue(testUser(), newID(), nil)
				if err == nil {
					_, err = pair[1].Verify([]byte(token))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 10 {
		// Both know a key before it signs: that is what the delay is for.
		made, err := Rotate(dir, EdDSA, i%2 == 0, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		a.reload()
		b.reload()
		for _, info := range made { // its time has come
			name := time.Now().UTC().Format(fileTime) + info.File[strings.Index(info.File, "Z-")+1:]
			if err := os.Rename(info.File, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		a.reload()
		b.reload()
	}
	close(done)
	wg.Wait()
	if n := len(a.published()); n != 11 {
		t.Errorf("%d keys are published", n)
	}
}
