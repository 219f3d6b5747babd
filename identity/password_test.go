package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func newTestHasher(t *testing.T, cfg PasswordConfig) *Hasher {
	t.Helper()
	if cfg.Hash == "" {
		cfg.Hash = "bcrypt"
	}
	if cfg.Cost == 0 {
		cfg.Cost = bcrypt.MinCost
	}
	cfg.Workers = max(cfg.Workers, 1)
	h, err := NewHasher(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The hashes of other systems, made with them: libxcrypt's crypt(3) for bcrypt
// and what passlib builds on it, Python's hashlib for PBKDF2, and the published
// examples of the argon2 reference implementation.
func TestHashesOfOtherSystemsAreVerified(t *testing.T) {
	const horse = "correct horse battery staple"
	for name, c := range map[string]struct{ password, hash string }{
		"bcrypt 2b":                   {horse, "$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"},
		"bcrypt 2a":                   {horse, "$2a$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"},
		"bcrypt 2y":                   {horse, "$2y$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"},
		"bcrypt of an empty password": {"", "$2b$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq"},
		"bcrypt of UTF-8":             {"pässwörd €", "$2b$04$abcdefghijklmnopqrstuuKnHl.x1yQ06jW2xtQY6ynPSc7M2jr9G"},
		"bcrypt_sha256 v1":            {horse, "$bcrypt-sha256$2b,4$abcdefghijklmnopqrstuu$QFUZDSoSe.wmA0ORk2X1IjnANOtYIqu"},
		"bcrypt_sha256 v1, long":      {strings.Repeat("x", 100), "$bcrypt-sha256$2b,4$abcdefghijklmnopqrstuu$MStnCU0ISmwB6DYVG67BQ54kYyEazIO"},
		"bcrypt_sha256 v2":            {horse, "$bcrypt-sha256$v=2,t=2b,r=4$abcdefghijklmnopqrstuu$h8GCYhBqatMGV8VIjRD4nhRxM87r3yu"},
		"bcrypt_sha256 v2, long":      {strings.Repeat("x", 100), "$bcrypt-sha256$v=2,t=2b,r=4$abcdefghijklmnopqrstuu$VN/UtE6EwSZ/CIGnzfQAPtA5sMkMG4u"},
		"PBKDF2 with SHA-1":           {horse, "$pbkdf2$1000$....c29tZXNhbHT//w$rtD.I9mwcaZwXhly58Kyu/9ZIn0"},
		"PBKDF2 with SHA-256":         {horse, "$pbkdf2-sha256$1000$....c29tZXNhbHT//w$6KExh.Q06XsBkn73Xfd0d8H4jRmW4LcNQijiPo7s..Y"},
		"PBKDF2 with SHA-512":         {horse, "$pbkdf2-sha512$1000$....c29tZXNhbHT//w$dkhnn4bO7I1gCcNzFqKtxqYpeLBybPM/oM9H9wlbhlpyqpxw/bwvA6Oso47fiyibyOT4/VENssUUAvTQHYXIiw"},
		"argon2id":                    {"password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"},
		"argon2id on two lanes":       {"password", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if ok, err := verifyHash(c.hash, c.password); !ok || err != nil {
				t.Errorf("the password does not open it: %v, %v", ok, err)
			}
			if ok, err := verifyHash(c.hash, c.password+"x"); ok || err != nil {
				t.Errorf("another password: %v, %v", ok, err)
			}
		})
	}
}

// A stored hash is an instruction to work: what it may ask for is bounded.
func TestHashesThatAreMalformedOrTooExpensiveAreRefused(t *testing.T) {
	const salt, sum = "abcdefghijklmnopqrstuu", "7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"
	for name, hash := range map[string]string{
		"empty":                           "",
		"plain text":                      "correct horse battery staple",
		"unknown kind":                    "$1$abcdefgh$abcdefghijklmnopqrstuv",
		"scrypt":                          "$scrypt$ln=16,r=8,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
		"argon2i":                         "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"bcrypt cost of hours":            "$2b$31$" + salt + sum,
		"bcrypt cost of 17":               "$2b$17$" + salt + sum,
		"bcrypt cost of 3":                "$2b$03$" + salt + sum,
		"bcrypt cut short":                "$2b$04$" + salt + sum[:30],
		"bcrypt with more":                "$2b$04$" + salt + sum + "x",
		"bcrypt of other characters":      "$2b$04$" + salt[:21] + "+" + sum,
		"bcrypt-sha256 cost of hours":     "$bcrypt-sha256$v=2,t=2b,r=31$" + salt + "$" + sum,
		"bcrypt-sha256 of version 3":      "$bcrypt-sha256$v=3,t=2b,r=4$" + salt + "$" + sum,
		"bcrypt-sha256 with more":         "$bcrypt-sha256$v=2,t=2b,r=12,r=4$" + salt + "$" + sum,
		"bcrypt-sha256 of negative cost":  "$bcrypt-sha256$2b,-4$" + salt + "$" + sum,
		"bcrypt-sha256 without cost":      "$bcrypt-sha256$2b,$" + salt + "$" + sum,
		"bcrypt-sha256 with a short salt": "$bcrypt-sha256$2b,4$" + salt[:21] + "$x" + sum,
		"argon2id of 1 TiB":               "$argon2id$v=19$m=1073741824,t=1,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"argon2id of a year":              "$argon2id$v=19$m=65536,t=4294967295,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"argon2id on 255 lanes":           "$argon2id$v=19$m=65536,t=1,p=255$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"argon2id on no lane":             "$argon2id$v=19$m=65536,t=1,p=0$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"argon2id without passes":         "$argon2id$v=19$m=65536,t=0,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"argon2id without a key":          "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$",
		"argon2id with a short key":       "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65",
		"argon2id of version 16":          "$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"argon2id with more parameters":   "$argon2id$v=19$m=256,t=2,p=1,keyid=x$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"PBKDF2 of an hour":               "$pbkdf2-sha256$4000000000$....c29tZXNhbHT//w$6KExh.Q06XsBkn73Xfd0d8H4jRmW4LcNQijiPo7s..Y",
		"PBKDF2 of negative rounds":       "$pbkdf2-sha256$-1$....c29tZXNhbHT//w$6KExh.Q06XsBkn73Xfd0d8H4jRmW4LcNQijiPo7s..Y",
		"PBKDF2 of no rounds":             "$pbkdf2-sha256$0$....c29tZXNhbHT//w$6KExh.Q06XsBkn73Xfd0d8H4jRmW4LcNQijiPo7s..Y",
		"PBKDF2 without a key":            "$pbkdf2-sha256$1000$....c29tZXNhbHT//w$",
		"PBKDF2 with MD5":                 "$pbkdf2-md5$1000$....c29tZXNhbHT//w$6KExh.Q06XsBkn73Xfd0d8H4jRmW4LcNQijiPo7s..Y",
		"a megabyte":                      "$pbkdf2-sha256$1000$" + strings.Repeat("A", 1<<20) + "$6KExh.Q06XsBkn73Xfd0d8H4jRmW4LcNQijiPo7s..Y",
	} {
		t.Run(name, func(t *testing.T) {
			ok, err := verifyHash(hash, "correct horse battery staple")
			if ok || !errors.Is(err, errHashFormat) {
				t.Errorf("%v, %v", ok, err)
			}
			if err != nil && len(hash) > 0 && strings.Contains(err.Error(), hash) {
				t.Errorf("the error quotes the hash")
			}
		})
	}
}

func TestHasherMakesWhatItIsConfiguredFor(t *testing.T) {
	ctx := context.Background()
	short, long := "hunter-hunter", strings.Repeat("x", 73)
	for name, c := range map[string]struct {
		cfg      PasswordConfig
		password string
		prefix   string
	}{
		"bcrypt":                         {PasswordConfig{Hash: "bcrypt"}, short, "$2a$04$"},
		"bcrypt of 72 bytes":             {PasswordConfig{Hash: "bcrypt"}, long[:72], "$2a$04$"},
		"more than bcrypt would read":    {PasswordConfig{Hash: "bcrypt"}, long, "$argon2id$v=19$m=19456,t=2,p=1$"},
		"argon2id":                       {PasswordConfig{Hash: "argon2id"}, short, "$argon2id$v=19$m=19456,t=2,p=1$"},
		"measured after normalisation":   {PasswordConfig{Hash: "bcrypt"}, strings.Repeat("ﷺ", 8), "$argon2id$"},
		"measured after normalisation 2": {PasswordConfig{Hash: "bcrypt"}, strings.Repeat("e\u0301", 30), "$2a$04$"}, // 90 bytes become 60
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHasher(t, c.cfg)
			hash, err := h.Hash(ctx, c.password)
			if err != nil || !strings.HasPrefix(hash, c.prefix) {
				t.Fatalf("%q, %v", hash, err)
			}
			if ok, stale, err := h.Verify(ctx, hash, c.password); !ok || stale || err != nil {
				t.Errorf("verifying it: %v, stale %v, %v", ok, stale, err)
			}
			other, err := h.Hash(ctx, c.password)
			if err != nil || other == hash {
				t.Errorf("two hashes of one password are equal")
			}
		})
	}
}

// bcrypt reads 72 bytes. Whatever a longer password begins with must not open
// the account, and neither must a longer password that begins with the right one.
func TestNothingBeyond72BytesIsCutSilently(t *testing.T) {
	ctx := context.Background()
	h := newTestHasher(t, PasswordConfig{})
	p72 := strings.Repeat("a", 72)
	hash72, err := h.Hash(ctx, p72)
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, _ := h.Verify(ctx, hash72, p72+"anything"); ok {
		t.Error("a longer password that begins with the right one opens the account")
	}
	hash100, err := h.Hash(ctx, strings.Repeat("a", 100))
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{p72, strings.Repeat("a", 99), strings.Repeat("a", 101)} {
		if ok, _, _ := h.Verify(ctx, hash100, wrong); ok {
			t.Errorf("%d bytes open an account with a password of 100", len(wrong))
		}
	}
}

func TestPasswordsAreNormalised(t *testing.T) {
	ctx := context.Background()
	h := newTestHasher(t, PasswordConfig{})
	hash, err := h.Hash(ctx, "Zoe\u0308s ﬁsh ½")
	if err != nil {
		t.Fatal(err)
	}
	for _, same := range []string{"Zoës fish 1⁄2", "Zoe\u0308s ﬁsh ½", "Ｚoës fish ½"} {
		if ok, _, err := h.Verify(ctx, hash, same); !ok || err != nil {
			t.Errorf("%q does not open it: %v", same, err)
		}
	}
}

// Other systems hash what was typed. Such an account opens, and is normalised then.
func TestImportedHashOfAPasswordThatIsNotNormalisedOpens(t *testing.T) {
	ctx := context.Background()
	h := newTestHasher(t, PasswordConfig{})
	typed := "ﬁsh and chips…"
	imported, err := bcrypt.GenerateFromPassword([]byte(typed), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if ok, stale, err := h.Verify(ctx, string(imported), typed); !ok || !stale || err != nil {
		t.Errorf("%v, stale %v, %v; want a stale match", ok, stale, err)
	}
	if ok, _, err := h.Verify(ctx, string(imported), normalPassword(typed)); ok || err != nil {
		t.Errorf("another text: %v, %v", ok, err)
	}
}

func TestHashIsStaleWhenTheConfigurationChanged(t *testing.T) {
	ctx := context.Background()
	const password = "hunter-hunter"
	bcrypt4 := newTestHasher(t, PasswordConfig{Hash: "bcrypt", Cost: 4})
	bcrypt5 := newTestHasher(t, PasswordConfig{Hash: "bcrypt", Cost: 5})
	argon := newTestHasher(t, PasswordConfig{Hash: "argon2id"})
	for name, c := range map[string]struct {
		made, now *Hasher
		stale     bool
	}{
		"same":               {bcrypt4, bcrypt4, false},
		"higher cost":        {bcrypt4, bcrypt5, true},
		"lower cost":         {bcrypt5, bcrypt4, true},
		"bcrypt to argon2id": {bcrypt4, argon, true},
		"argon2id to bcrypt": {argon, bcrypt4, true},
		"argon2id unchanged": {argon, argon, false},
	} {
		t.Run(name, func(t *testing.T) {
			hash, err := c.made.Hash(ctx, password)
			if err != nil {
				t.Fatal(err)
			}
			if ok, stale, err := c.now.Verify(ctx, hash, password); !ok || stale != c.stale || err != nil {
				t.Errorf("%v, stale %v, %v", ok, stale, err)
			}
			if ok, stale, err := c.now.Verify(ctx, hash, "wrong"); ok || stale || err != nil {
				t.Errorf("a wrong password: %v, stale %v, %v", ok, stale, err)
			}
		})
	}
}

func TestNoPasswordOpensAnAccountWithoutAHash(t *testing.T) {
	for _, kind := range []string{"bcrypt", "argon2id"} {
		h := newTestHasher(t, PasswordConfig{Hash: kind})
		if !h.current(h.decoy, "x") {
			t.Errorf("%s: the decoy %q does not cost what a real hash costs", kind, h.decoy)
		}
		for _, p := range []string{"", "x", h.decoy, "ﬁ"} {
			if ok, stale, err := h.Verify(context.Background(), "", p); ok || stale || err != nil {
				t.Errorf("%s, %q: %v, %v, %v", kind, p, ok, stale, err)
			}
		}
	}
}

func TestHasherRefusesConfigurationsThatCannotWork(t *testing.T) {
	for name, cfg := range map[string]PasswordConfig{
		"no worker":      {Hash: "bcrypt", Cost: 4},
		"unknown kind":   {Hash: "md5", Cost: 4, Workers: 1},
		"no kind":        {Cost: 4, Workers: 1},
		"cost of hours":  {Hash: "bcrypt", Cost: 31, Workers: 1},
		"cost too small": {Hash: "bcrypt", Cost: 3, Workers: 1},
	} {
		if _, err := NewHasher(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The pool's places are taken by hand, so that nothing depends on how long a
// hash takes.
func TestPoolIsBounded(t *testing.T) {
	h := newTestHasher(t, PasswordConfig{Workers: 2, Queue: 3})
	ctx := context.Background()
	for range 2 {
		if err := h.acquire(ctx); err != nil {
			t.Fatal(err)
		}
	}
	queued, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := h.Hash(queued, "x"); !errors.Is(err, ErrBusy) || !errors.Is(err, context.Canceled) {
				t.Errorf("a caller that stopped waiting: %v", err)
			}
		})
	}
	for deadline := time.Now().Add(patience); h.waiting.Load() < 5; {
		if time.Now().After(deadline) {
			t.Fatal("the queue does not fill")
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := h.Hash(ctx, "x"); !errors.Is(err, ErrBusy) {
		t.Errorf("beyond the queue: %v", err)
	}
	if _, _, err := h.Verify(ctx, "", "x"); !errors.Is(err, ErrBusy) {
		t.Errorf("beyond the queue: %v", err)
	}
	stop()
	wg.Wait()
	h.release()
	if _, err := h.Hash(ctx, "x"); err != nil {
		t.Errorf("after a place was given back: %v", err)
	}
	h.release()
	if n := h.waiting.Load(); n != 0 {
		t.Errorf("%d places are lost", n)
	}
}

func TestCommonPasswords(t *testing.T) {
	common := newCommonPasswords()
	if list, err := common(); err != nil || len(list) < 5000 {
		t.Fatalf("%d passwords in the list: %v", len(list), err)
	}
	for _, p := range []string{
		"password", "PassWord", "12345678", "qwertyuiop", "iloveyou", "trustno1", "11111111",
		"password1", "Password123!", "admin123", "welcome2024", "p@ssw0rd", "P@$$w0rd1", "!!baseball!!", "1dragon1",
	} {
		if is, err := common.has(p); !is || err != nil {
			t.Errorf("%q is accepted: %v", p, err)
		}
	}
	for _, p := range []string{
		"", "correct horse battery staple", "xkcd-936-charts", "zebra4821mountain", "dragon-83920174",
		"94817263540", "пароль-за-все", "password of mine", strings.Repeat("ab", 40),
	} {
		if is, err := common.has(p); is || err != nil {
			t.Errorf("%q is refused: %v", p, err)
		}
	}
}

func FuzzVerifyHash(f *testing.F) {
	for _, s := range []string{
		"$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG",
		"$bcrypt-sha256$v=2,t=2b,r=4$abcdefghijklmnopqrstuu$h8GCYhBqatMGV8VIjRD4nhRxM87r3yu",
		"$bcrypt-sha256$2b,4$abcdefghijklmnopqrstuu$QFUZDSoSe.wmA0ORk2X1IjnANOtYIqu",
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$pbkdf2-sha256$10$....c29tZXNhbHT//w$6KExh.Q06XsBkn73Xfd0d8H4jRmW4LcNQijiPo7s..Y",
		"$pbkdf2$", "$2b$", "$argon2id$$$$", "$bcrypt-sha256$$$",
	} {
		f.Add(s, "password")
	}
	f.Fuzz(func(t *testing.T, hash, password string) {
		opens, err := parseHash(hash)
		if err != nil || bcryptCost(hash) > 5 || strings.Contains(hash, "argon2id") && !strings.Contains(hash, "m=256,t=2,") ||
			strings.Contains(hash, "r=1") || strings.Contains(hash, ",1") {
			return // only what is cheap is computed; the bounds have a test of their own
		}
		if len(password) > 200 {
			password = password[:200]
		}
		began := time.Now()
		opens(password)
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestAGuessAtAnOldHashIsNoQuicker(t *testing.T) {
	for done := 4; done <= 12; done++ {
		for wanted := 4; wanted <= 12; wanted++ {
			work := 1 << done
			for _, cost := range missingCosts(done, wanted) {
				work += 1 << cost
			}
			if want := 1 << max(done, wanted); work != want {
				t.Errorf("cost %d for %d: work %d, want %d", done, wanted, work, want)
			}
		}
	}
	if got := missingCosts(0, 12); got != nil { // another kind of hash
		t.Errorf("%v", got)
	}
	long := currentArgon2id() + "c29tZXNhbHQ$bm90aGluZw"
	for _, c := range []struct {
		cfg  PasswordConfig
		hash string
		want []int
	}{
		{PasswordConfig{Hash: "bcrypt", Cost: 12}, decoy(PasswordConfig{Hash: "bcrypt", Cost: 11}), []int{11}},
		{PasswordConfig{Hash: "bcrypt", Cost: 12}, long, []int{9, 10, 11}}, // of a password that bcrypt would cut
		{PasswordConfig{Hash: "bcrypt", Cost: 8}, long, nil},
		{PasswordConfig{Hash: "argon2id", Cost: 12}, long, nil},
		{PasswordConfig{Hash: "argon2id", Cost: 12}, decoy(PasswordConfig{Hash: "bcrypt", Cost: 11}), nil},
	} {
		if got := (&Hasher{cfg: c.cfg}).missing(c.hash); !slices.Equal(got, c.want) {
			t.Errorf("%+v, %.12s: %v, want %v", c.cfg, c.hash, got, c.want)
		}
	}
	ctx := context.Background()
	hash, err := newTestHasher(t, PasswordConfig{Hash: "bcrypt", Cost: 4}).Hash(ctx, "hunter-hunter")
	if err != nil {
		t.Fatal(err)
	}
	now := newTestHasher(t, PasswordConfig{Hash: "bcrypt", Cost: 6})
	for password, want := range map[string]bool{"hunter-hunter": true, "wrong": false, "": false, strings.Repeat("x", 100): false, "\ufb01": false} {
		if ok, _, err := now.Verify(ctx, hash, password); ok != want || err != nil {
			t.Errorf("%q: %v, %v", password, ok, err)
		}
	}
}

// Whoever has waited in vain gives the place to somebody with time left.
func TestAPasswordDoesNotWaitAsLongAsItsCaller(t *testing.T) {
	h := newTestHasher(t, PasswordConfig{Hash: "bcrypt", Cost: 4, Workers: 1, Queue: 8})
	h.wait = time.Millisecond
	h.slots <- struct{}{} // the worker is at it
	if _, err := h.Hash(t.Context(), "x"); !errors.Is(err, ErrBusy) {
		t.Errorf("%v, want ErrBusy", err)
	}
	<-h.slots
	h.wait = time.Minute
	if n := h.waiting.Load(); n != 0 {
		t.Errorf("%d still wait", n)
	}
	if _, err := h.Hash(t.Context(), "x"); err != nil {
		t.Error(err)
	}
}
