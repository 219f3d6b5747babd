package upstream

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a clock that stands until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// keysUnderTest returns an issuer, the keys fetched from it, and their clock.
func keysUnderTest(t *testing.T) (*issuer, *keySource, *clock) {
	i := newIssuer(t)
	v, c := i.verifier(t), &clock{t: time.Now()}
	v.keys.now = c.now
	return i, v.keys, c
}

// ask looks for the key of an assertion whose header has these changes.
func (s *keySource) ask(t *testing.T, i *issuer, h jsonMap) error {
	t.Helper()
	v := newTestVerifier(t, i.URL)
	v.keys = s
	_, err := v.Verify(t.Context(), http.Header{assertionHeader: {sign(header(h), claims("ann", nil), i.eddsa)}})
	return err
}

func wantFetches(t *testing.T, i *issuer, want int) {
	t.Helper()
	if got := i.fetched(); got != want {
		t.Errorf("%d fetches, want %d", got, want)
	}
}

func TestServiceMayStartBeforeTheGateway(t *testing.T) {
	t.Parallel()
	s := newService(t)
	wantFetches(t, s.issuer, 0)
	s.issuer.setAnswer(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "starting, secret detail", http.StatusServiceUnavailable)
	})
	r := s.as("ann").do("GET", "/tasks", "")
	r.wantProblem(t, 503, codeJWKSUnavailable)
	if strings.Contains(string(r.body), "secret detail") || strings.Contains(string(r.body), s.issuer.URL) {
		t.Errorf("the answer tells why: %s", r.body)
	}
	// Whoever would be refused with any keys is refused without them.
	h := http.Header{assertionHeader: {sign(header(jsonMap{"typ": "JWT"}), claims("ann", nil), s.issuer.eddsa)}}
	s.send("GET", "/tasks", h, nil).wantProblem(t, 401, codeAssertionInvalid)
	s.send("GET", "/tasks", http.Header{}, nil).wantProblem(t, 401, codeAssertionRequired)

	s.issuer.setAnswer(nil)
	deadline := time.Now().Add(keysRetry + 5*time.Second)
	for {
		r = s.as("ann").do("GET", "/tasks", "")
		if r.status == http.StatusOK {
			return
		}
		r.wantProblem(t, 503, codeJWKSUnavailable)
		if time.Now().After(deadline) {
			t.Fatal("the keys are there and it does not see them")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestKeysAreFetchedOnceAndKept(t *testing.T) {
	t.Parallel()
	i, keys, c := keysUnderTest(t)
	wantFetches(t, i, 0)
	for range 3 {
		if err := keys.ask(t, i, nil); err != nil {
			t.Fatal(err)
		}
		c.advance(keysRetry + time.Second)
	}
	wantFetches(t, i, 1)
}

func TestKeySetThatCannotBeUsedIsUnavailability(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"an error":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"no content": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"a page":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no set":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
		"no keys":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) },
		"no key it can read": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[{"kty":"future","kid":"k1"}]}`)
		},
		"a broken key": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"AA"}]}`)
		},
		"a cut connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		i, keys, _ := keysUnderTest(t)
		i.setAnswer(answer)
		if err := keys.ask(t, i, nil); !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("%s: %v, want ErrKeysUnavailable", name, err)
		}
	}
}

func TestKeysComeFromTheConfiguredAddressOnly(t *testing.T) {
	t.Parallel()
	i, keys, _ := keysUnderTest(t)
	elsewhere := newIssuer(t)
	elsewhere.setKeys(okpKey(testKeyID, i.public))
	i.setAnswer(http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP)
	if err := keys.ask(t, i, nil); !errors.Is(err, ErrKeysUnavailable) {
		t.Errorf("%v, want ErrKeysUnavailable", err)
	}
	wantFetches(t, elsewhere, 0)
}

func TestKeySetOfAnySizeIsNotRead(t *testing.T) {
	t.Parallel()
	i, keys, _ := keysUnderTest(t)
	sent := make(chan int, 1)
	i.setAnswer(func(w http.ResponseWriter, _ *http.Request) {
		n := 0
		defer func() { sent <- n }()
		fmt.Fprint(w, `{"padding":"`)
		chunk := []byte(strings.Repeat("x", 64<<10))
		for n < 1<<30 {
			m, err := w.Write(chunk)
			if n += m; err != nil {
				return
			}
		}
	})
	if err := keys.ask(t, i, nil); !errors.Is(err, ErrKeysUnavailable) {
		t.Errorf("%v, want ErrKeysUnavailable", err)
	}
	if n := <-sent; n > 64<<20 {
		t.Errorf("%d bytes were read", n)
	}
}

func TestKeysThatDoNotComeAreWaitedForTogetherAndNotLong(t *testing.T) {
	t.Parallel()
	i, keys, _ := keysUnderTest(t)
	i.setAnswer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	start := time.Now()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := keys.ask(t, i, nil); !errors.Is(err, ErrKeysUnavailable) {
				t.Errorf("%v, want ErrKeysUnavailable", err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took > 10*keysFetchTimeout { // one after the other would be 20
		t.Errorf("took %v", took)
	}
	wantFetches(t, i, 1)
}

func TestClientThatLeavesDoesNotEndTheFetchOfOthers(t *testing.T) {
	t.Parallel()
	i, keys, _ := keysUnderTest(t)
	arrived, serve := make(chan struct{}), make(chan struct{})
	i.setAnswer(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-serve
		i.setAnswer(nil)
		i.ServeHTTP(w, r)
	})
	v := newTestVerifier(t, i.URL)
	v.keys = keys
	h := http.Header{assertionHeader: {i.assertion("ann", nil)}}
	ctx, leave := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := v.Verify(ctx, h); first <- err }()
	<-arrived
	go func() { _, err := v.Verify(t.Context(), h); second <- err }()
	leave()
	close(serve)
	if err := <-second; err != nil {
		t.Errorf("the one who stayed: %v", err)
	}
	<-first
}

func TestUnknownKeyIDIsLookedForButNotAllTheTime(t *testing.T) {
	t.Parallel()
	i, keys, c := keysUnderTest(t)
	if err := keys.ask(t, i, nil); err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		if err := keys.ask(t, i, jsonMap{"kid": fmt.Sprint("made-up-", n)}); !errors.Is(err, ErrInvalidAssertion) {
			t.Errorf("%v, want ErrInvalidAssertion", err)
		}
	}
	wantFetches(t, i, 1) // it has just been fetched
	c.advance(keysRetry + time.Millisecond)
	for n := range 10 {
		if err := keys.ask(t, i, jsonMap{"kid": fmt.Sprint("made-up-", n)}); !errors.Is(err, ErrInvalidAssertion) {
			t.Errorf("%v, want ErrInvalidAssertion", err)
		}
	}
	wantFetches(t, i, 2)
	if err := keys.ask(t, i, nil); err != nil {
		t.Errorf("a good assertion meanwhile: %v", err)
	}
}

func TestKeyThatIsNewAtTheGatewayIsFound(t *testing.T) {
	t.Parallel()
	i, keys, c := keysUnderTest(t)
	if err := keys.ask(t, i, nil); err != nil {
		t.Fatal(err)
	}
	c.advance(keysRetry + time.Millisecond)
	i.setKeys(okpKey(testKeyID, i.public), okpKey("k2", i.public))
	if err := keys.ask(t, i, jsonMap{"kid": "k2"}); err != nil {
		t.Error(err)
	}
}

func TestUnknownKeyIDCannotBeJudgedWhenTheKeysCannotBeFetched(t *testing.T) {
	t.Parallel()
	i, keys, c := keysUnderTest(t)
	if err := keys.ask(t, i, nil); err != nil {
		t.Fatal(err)
	}
	c.advance(keysRetry + time.Millisecond)
	i.Close()
	for range 2 { // by trying, and by having tried
		if err := keys.ask(t, i, jsonMap{"kid": "k2"}); !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("%v, want ErrKeysUnavailable", err)
		}
	}
	if err := keys.ask(t, i, nil); err != nil {
		t.Errorf("a key it has: %v", err)
	}
}

func TestKeyThatTheGatewayHasWithdrawnIsForgotten(t *testing.T) {
	t.Parallel()
	i, keys, c := keysUnderTest(t)
	if err := keys.ask(t, i, nil); err != nil {
		t.Fatal(err)
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.setKeys(okpKey("k2", public))
	c.advance(keysRefresh + time.Millisecond)
	if err := keys.ask(t, i, nil); !errors.Is(err, ErrInvalidAssertion) {
		t.Errorf("%v, want ErrInvalidAssertion", err)
	}
}

func TestKeysThatCannotBeRefreshedStayInUseForAWhile(t *testing.T) {
	t.Parallel()
	i, keys, c := keysUnderTest(t)
	if err := keys.ask(t, i, nil); err != nil {
		t.Fatal(err)
	}
	i.setAnswer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	c.advance(keysRefresh + time.Millisecond)
	for range 3 {
		if err := keys.ask(t, i, nil); err != nil {
			t.Errorf("old keys: %v", err)
		}
		c.advance(keysRetry + time.Millisecond)
	}
	wantFetches(t, i, 2) // it is tried again, but not as often as for somebody who needs it
	c.advance(keysRefreshRetry)
	if err := keys.ask(t, i, nil); err != nil {
		t.Errorf("old keys: %v", err)
	}
	wantFetches(t, i, 3)
	c.advance(keysExpire)
	if err := keys.ask(t, i, nil); !errors.Is(err, ErrKeysUnavailable) {
		t.Errorf("keys too old to be believed: %v, want ErrKeysUnavailable", err)
	}
	i.setAnswer(nil)
	c.advance(keysRetry + time.Millisecond)
	if err := keys.ask(t, i, nil); err != nil {
		t.Errorf("when they can be had again: %v", err)
	}
}
