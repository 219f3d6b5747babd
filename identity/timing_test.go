package identity_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/identity"
)

// BenchmarkWhatTimeTells prints what strangers can measure: how long an answer
// takes for an account that is there and one that is not. 100 of each take turns.
// That the store is asked the same is what TestLoginTellsStrangersNothing and
// TestForgotTellsStrangersNothing decide; times decide nothing.
func BenchmarkWhatTimeTells(b *testing.B) {
	const samples, cost = 100, 10
	w := newWorld(b, func(cfg *identity.Config) { cfg.LoginLimit.Attempts = 1 << 20 })
	old := w.user("old") // with a hash of cost 4
	var err error
	w.hasher, err = identity.NewHasher(identity.PasswordConfig{Hash: "bcrypt", Cost: cost, Workers: 1, Queue: 1})
	w.must(err)
	w.start()
	w.user("ana")
	_, err = w.CreateUser(w.ctx, identity.NewUser{Username: "wordy", Email: "wordy@example.com", Password: strings.Repeat("correct horse ", 6)}, here)
	w.must(err)
	wrong := func(name string) func(int) error {
		return func(i int) error {
			_, err := w.Login(w.ctx, name, "wrong", from(i))
			return err
		}
	}
	forgot := func(address string) func(int) error {
		return func(i int) error {
			w.clock.advance(time.Hour / (identity.MailsPerAddressee - 1))
			return w.Forgot(w.ctx, address, from(i))
		}
	}
	for _, pair := range []struct {
		what           string
		there, missing func(int) error
	}{
		{"a wrong password for a user, and for nobody", wrong("ana"), wrong("nobody")},
		{"the same by address", wrong("ana@example.com"), wrong("nobody@example.com")},
		{"for a user whose hash is of a lower cost", wrong(old.Username), wrong("nobody")},
		{"for a user with a password too long for bcrypt", wrong("wordy"), wrong("nobody")},
		{"forgot-password", forgot("ana@example.com"), forgot("nobody@example.com")},
	} {
		var there, missing []time.Duration
		for i := range samples {
			if i%2 == 0 { // nobody is always first
				there = append(there, timed(b, i, pair.there))
			}
			missing = append(missing, timed(b, i, pair.missing))
			if i%2 == 1 {
				there = append(there, timed(b, i, pair.there))
			}
		}
		_, _ = fmt.Fprintf(os.Stdout, "\n%s\n  there    %s\n  missing  %s\n", pair.what, spread(there), spread(missing))
	}
}

func timed(b *testing.B, i int, do func(int) error) time.Duration {
	b.Helper()
	start := time.Now()
	err := do(i)
	took := time.Since(start)
	if err != nil && !strings.Contains(err.Error(), identity.ErrBadCredentials.Error()) {
		b.Fatal(err)
	}
	return took
}

// spread says where the quarters of the samples lie.
func spread(d []time.Duration) string {
	s := slices.SortedFunc(slices.Values(d), cmp.Compare[time.Duration])
	at := func(part int) time.Duration { return s[len(s)*part/100].Round(time.Microsecond) }
	return fmt.Sprintf("median %v, half of them %v to %v", at(50), at(25), at(75))
}
