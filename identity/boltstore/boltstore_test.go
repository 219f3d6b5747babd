package boltstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"portcullis/identity"
	"portcullis/identity/boltstore"
	"portcullis/identity/storetest"
)

// holdEnv names the file that the test binary, run by a test, is to hold open
// and write to until it is killed.
const holdEnv = "BOLTSTORE_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		hold(path)
	}
	os.Exit(m.Run())
}

// hold writes users until the process is killed, and prints the ID of each
// once the store has said that it is stored.
func hold(path string) {
	s, err := boltstore.Open(path)
	for err == nil {
		u := newUser()
		if err = s.CreateUser(context.Background(), u); err == nil {
			fmt.Println(u.ID)
		}
	}
	fmt.Println("error:", err)
	os.Exit(1)
}

func newUser() identity.User {
	id := uuid.Must(uuid.NewV7()).String()
	return identity.User{ID: id, UsernameKey: "name" + id, UsernameSkeleton: "skeleton" + id, EmailKey: "mail" + id}
}

func open(t testing.TB, path string) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) identity.Store {
		return open(t, filepath.Join(t.TempDir(), "identity.db"))
	})
}

func TestAFileOpenedAgainHasKeptEverything(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "identity.db")
	now := time.Now().UTC().Truncate(time.Millisecond)
	u := newUser()
	u.Roles, u.CreatedAt, u.UpdatedAt = []string{"admin"}, now, now
	session := identity.Session{ID: "s", UserID: u.ID, CreatedAt: now, RotatedAt: now, ExpiresAt: now.Add(time.Hour), EndsAt: now.Add(time.Hour)}
	token := identity.OneTimeToken{Purpose: identity.PurposeReset, UserID: u.ID, Hash: "h", ExpiresAt: now.Add(time.Hour)}
	revocation := identity.Revocation{Kind: identity.RevokeUser, ID: u.ID, MinEpoch: 2, ExpiresAt: now.Add(time.Hour)}
	job := identity.Job{ID: "j", Kind: "reset", Data: map[string]string{"k": "v"}, CreatedAt: now, NextAt: now}
	record := identity.AuditRecord{ID: "a", At: now, Event: "login", ExpiresAt: now.Add(time.Hour)}

	s := open(t, path)
	_, hitErr := s.Hit(ctx, "key", 3, time.Hour, now)
	_, cursor, pollErr := s.Revocations(ctx, time.Time{}, now)
	if err := errors.Join(s.CreateUser(ctx, u), s.HoldAdministrator(ctx, u.ID), s.CreateSession(ctx, session), s.PutToken(ctx, token),
		s.Revoke(ctx, revocation), s.Enqueue(ctx, job), s.AppendAudit(ctx, record), hitErr, pollErr, s.Close()); err != nil {
		t.Fatal(err)
	}

	s = open(t, path)
	check := func(what string, got any, err error, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%s: %v, mismatch (-want +got):\n%s", what, err, diff)
		}
	}
	user, err := s.UserByEmail(ctx, u.EmailKey)
	check("user", user, err, u)
	administrators, err := s.Administrators(ctx)
	check("administrators", administrators, err, []string{u.ID})
	sessions, err := s.Sessions(ctx, u.ID, now)
	check("sessions", sessions, err, []identity.Session{session})
	revocations, _, err := s.Revocations(ctx, cursor, now)
	check("revocations", revocations, err, []identity.Revocation{revocation})
	count, err := s.Hit(ctx, "key", 0, time.Hour, now)
	check("counter", count, err, 3)
	records, err := s.ListAudit(ctx, identity.AuditQuery{Now: now, Limit: 1})
	check("audit", records, err, []identity.AuditRecord{record})
	taken, err := s.TakeToken(ctx, token.Purpose, token.Hash, now)
	check("token", taken, err, token)
	claimed, err := s.ClaimJob(ctx, now, time.Minute)
	job.Attempts, job.NextAt = 1, now.Add(time.Minute)
	check("job", claimed, err, job)
}

func TestAFileInUseByAnotherProcessIsRefusedInTimeAndWhatThatProcessStoredSurvivesItsDeath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.db")
	holder := exec.CommandContext(t.Context(), os.Args[0])
	holder.Env = append(os.Environ(), holdEnv+"="+path)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the holder said nothing")
	}
	stored := []string{lines.Text()}

	began := time.Now()
	s, err := boltstore.Open(path)
	if !errors.Is(err, boltstore.ErrInUse) || !strings.Contains(err.Error(), "in use by another process") || !strings.Contains(err.Error(), path) {
		t.Errorf("Open: %v, %v, want ErrInUse, with the path", s, err)
	}
	if waited := time.Since(began); waited > time.Minute {
		t.Errorf("Open waited %v, want about a second", waited)
	}

	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		stored = append(stored, lines.Text())
	}
	_ = holder.Wait() // killed
	s = open(t, path)
	for _, id := range stored {
		if _, err := s.User(t.Context(), id); err != nil {
			t.Fatalf("user %s of %d: %v", id, len(stored), err)
		}
	}
}

func TestTheFileAndItsDirectoriesAreForTheirOwnerOnly(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(parent, "deeper", "identity.db")
	open(t, path)
	for name, want := range map[string]os.FileMode{parent: 0o700, filepath.Dir(path): 0o700, path: 0o600} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
}

func TestWhatIsNotAStoreIsRefusedAndLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.txt")
	notes := []byte(strings.Repeat("not a database\n", 10_000))
	if err := os.WriteFile(path, notes, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := boltstore.Open(path); err == nil || errors.Is(err, boltstore.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open: %v, want an error with the path", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(notes) {
		t.Errorf("the file was changed (%v)", err)
	}
	if _, err := boltstore.Open(filepath.Join(path, "identity.db")); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// Keys beyond what bbolt takes fail in the middle of a transaction, which other
// calls may share.
func TestAWriteThatFailsLeavesNothingAndDoesNotFailOthers(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "identity.db"))
	good, bad := make([]identity.User, 20), make([]identity.User, 20)
	failed := make(chan error, len(bad))
	stored := make(chan error, len(good))
	for i := range good {
		good[i], bad[i] = newUser(), newUser()
		bad[i].EmailKey = strings.Repeat("x", 40_000) + bad[i].EmailKey
		go func() { stored <- s.CreateUser(t.Context(), good[i]) }()
		go func() { failed <- s.CreateUser(t.Context(), bad[i]) }()
	}
	for range good {
		if err := <-stored; err != nil {
			t.Errorf("a good user: %v", err)
		}
		if err := <-failed; err == nil || errors.Is(err, identity.ErrUnavailable) {
			t.Errorf("a bad user: %v, want an error about the input", err)
		}
	}
	for i := range bad {
		if _, err := s.User(t.Context(), good[i].ID); err != nil {
			t.Errorf("a good user: %v", err)
		}
		if _, err := s.User(t.Context(), bad[i].ID); !errors.Is(err, identity.ErrNotFound) {
			t.Errorf("a bad user: %v, want ErrNotFound", err)
		}
		bad[i].EmailKey = ""
		if err := s.CreateUser(t.Context(), bad[i]); err != nil {
			t.Errorf("a bad user made good: %v", err)
		}
	}
}

func TestASweepOfMoreThanOneTransactionTakesAll(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "identity.db"))
	now := time.Now()
	const n = 700
	errs := make(chan error, n)
	for i := range n {
		go func() {
			errs <- s.CreateSession(t.Context(), identity.Session{ID: fmt.Sprint(i), UserID: "u", CreatedAt: now, ExpiresAt: now, EndsAt: now})
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	swept, err := s.Sweep(t.Context(), now)
	if err != nil || swept != n {
		t.Errorf("Sweep: %d, %v, want %d", swept, err, n)
	}
}

// BenchmarkLogin makes the calls of one login. What they cost must not depend
// on how many users there are.
func BenchmarkLogin(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("users=%d", n), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "identity.db"))
			users := make([]identity.User, n)
			const writers = 500 // their writes share fsyncs
			errs := make(chan error, writers)
			for w := range writers {
				go func() {
					var err error
					for i := w; i < n && err == nil; i += writers {
						users[i] = newUser()
						users[i].PasswordHash = strings.Repeat("x", 60)
						err = s.CreateUser(b.Context(), users[i])
					}
					errs <- err
				}()
			}
			for range writers {
				if err := <-errs; err != nil {
					b.Fatal(err)
				}
			}
			now := time.Now()
			b.ResetTimer()
			for i := range b.N {
				u, err := s.UserByUsername(b.Context(), users[i*7919%n].UsernameKey)
				if err != nil {
					b.Fatal(err)
				}
				_, err1 := s.Hit(b.Context(), "account:"+u.ID, 1, time.Hour, now)
				_, err2 := s.Hit(b.Context(), "address:192.0.2.1", 1, time.Hour, now)
				id := uuid.Must(uuid.NewV7()).String()
				err3 := s.CreateSession(b.Context(), identity.Session{ID: id, UserID: u.ID, UserAgent: "curl", CreatedAt: now, RotatedAt: now, ExpiresAt: now.Add(time.Hour), EndsAt: now.Add(time.Hour)})
				if err := errors.Join(err1, err2, err3); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
