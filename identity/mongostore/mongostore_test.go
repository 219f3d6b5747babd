package mongostore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
	"portcullis/identity/storetest"
)

// slack is what a bound may be exceeded by on a busy machine.
const slack = 2 * time.Second

// server returns the options that connect to the server to test against.
func server(t testing.TB) *options.ClientOptions {
	t.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		if os.Getenv("REQUIRE_MONGODB") == "1" {
			t.Fatal("MONGODB_URI is not set, and REQUIRE_MONGODB=1")
		}
		t.Skip("MONGODB_URI is not set: skipped")
	}
	opts, err := parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return opts.SetTimeout(20 * time.Second) // the machine may be busy; what bounds calls is tested apart
}

// newDatabase returns a name that no test used before, and drops the database
// of that name when the test ends.
func newDatabase(t testing.TB) string {
	t.Helper()
	opts := server(t)
	name := fmt.Sprintf("portcullis_test_%d_%s", time.Now().UnixNano(), bson.NewObjectID().Hex()[18:])
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		client, err := mongo.Connect(opts)
		if err == nil {
			err = errors.Join(client.Database(name).Drop(ctx), client.Disconnect(ctx))
		}
		if err != nil {
			t.Errorf("dropping the database: %v", err)
		}
	})
	return name
}

func openFor(t testing.TB, opts *options.ClientOptions, database string) *Store {
	t.Helper()
	s, err := open(t.Context(), opts, database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestStore holds the store to the specification, and on the way looks at every
// query that it makes: one without an index would become slow with the number
// of documents, which no test would notice.
func TestStore(t *testing.T) {
	server(t) // skip once
	var seen queries
	storetest.Run(t, func(t *testing.T) identity.Store {
		return openFor(t, server(t).SetMonitor(&event.CommandMonitor{Started: seen.record}), newDatabase(t))
	})
	if t.Failed() {
		return
	}
	seen.check(t, openFor(t, server(t), newDatabase(t)))
}

func TestEveryExpiringCollectionIsCleanedByTheServer(t *testing.T) {
	s := openFor(t, server(t), newDatabase(t))
	for _, c := range []*mongo.Collection{s.sessions, s.tokens, s.revocations, s.counters, s.audits} {
		specs, err := c.Indexes().ListSpecifications(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, spec := range specs {
			_, err := spec.KeysDocument.LookupErr("expires_at")
			found = found || err == nil && spec.ExpireAfterSeconds != nil && *spec.ExpireAfterSeconds == int32(expiryGrace/time.Second)
		}
		if !found {
			t.Errorf("%s has no TTL index", c.Name())
		}
	}
}

func TestReplicasCanOpenANewDatabaseAtOnce(t *testing.T) {
	name := newDatabase(t)
	errs := make(chan error)
	for range 5 {
		opts := server(t) // the driver writes to it
		go func() {
			s, err := open(t.Context(), opts, name)
			if err == nil {
				err = s.Close()
			}
			errs <- err
		}()
	}
	for range 5 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestOpenFailsWhereAUniqueIndexCannotBe(t *testing.T) {
	name, opts := newDatabase(t), server(t)
	client, err := mongo.Connect(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(context.Background()) }()
	if _, err := client.Database(name).Collection("users").InsertMany(t.Context(), []any{
		bson.D{elem("_id", "1"), elem("username_key", "twin"), elem("username_skeleton", "a")},
		bson.D{elem("_id", "2"), elem("username_key", "twin"), elem("username_skeleton", "b")},
	}); err != nil {
		t.Fatal(err)
	}
	s, err := open(t.Context(), opts, name)
	if err == nil {
		_ = s.Close()
		t.Fatal("opened, want an error")
	}
	if errors.Is(err, identity.ErrUnavailable) || !strings.Contains(err.Error(), "users") {
		t.Errorf("error is %v, want one that names the collection and is not ErrUnavailable", err)
	}
}

func TestADocumentThatCannotBeReadIsNotTakenForAnAbsentStore(t *testing.T) {
	s := openFor(t, server(t), newDatabase(t))
	if _, err := s.users.InsertOne(t.Context(), bson.D{elem("_id", "x"), elem("username_key", "x"), elem("username_skeleton", "x"), elem("roles", 1)}); err != nil {
		t.Fatal(err)
	}
	_, err := s.User(t.Context(), "x")
	if err == nil || errors.Is(err, identity.ErrUnavailable) || errors.Is(err, identity.ErrNotFound) {
		t.Errorf("User: %v, want an error about the document", err)
	}
}

func TestRevocationsOfAClockThatWasAheadHideNoneRecordedLater(t *testing.T) {
	s := openFor(t, server(t), newDatabase(t))
	now := time.Now()
	revoke := func(id string) {
		t.Helper()
		if err := s.Revoke(t.Context(), identity.Revocation{Kind: identity.RevokeSession, ID: id, ExpiresAt: now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	poll := func(since time.Time) (ids []string, next time.Time) {
		t.Helper()
		rs, next, err := s.Revocations(t.Context(), since, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			ids = append(ids, r.ID)
		}
		return ids, next
	}
	set := func(id string, at time.Time) {
		t.Helper()
		r, err := s.revocations.UpdateOne(t.Context(), bson.D{eq("_id", compound("session", id))}, bson.D{elem("$set", bson.D{elem("raised_at", at)})})
		if err != nil || r.MatchedCount != 1 {
			t.Fatal(err)
		}
	}

	revoke("early")
	set("early", now.Add(-time.Hour))
	revoke("ahead")
	set("ahead", now.Add(time.Hour))
	_, next := poll(time.Time{})
	if next.After(time.Now().Add(time.Minute)) {
		t.Errorf("next is %v, ahead of the server's clock", next)
	}
	revoke("later")
	if ids, _ := poll(next); !contains(ids, "later") || contains(ids, "early") {
		t.Errorf("after the clock was put right, a poll returned %v, want later and not early", ids)
	}
	if ids, next := poll(now.Add(time.Hour)); !contains(ids, "later") || !contains(ids, "early") || next.After(time.Now().Add(time.Minute)) {
		t.Errorf("a reader ahead of the clock got %v and %v, want all, and the clock", ids, next)
	}

	_, next = poll(time.Time{})
	revoke("slow")
	set("slow", next.Add(-s.timeout-overlap+time.Second)) // written before next, visible only now
	if ids, _ := poll(next); !contains(ids, "slow") {
		t.Errorf("a poll returned %v, want the slow write too", ids)
	}
}

func contains(ids []string, id string) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}

func TestAServerThatIsNotThereIsUnavailableInBoundedTime(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for name, addr := range map[string]net.Addr{"refused": closed.Addr(), "silent": silent.Addr()} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, err := Open(t.Context(), fmt.Sprintf("mongodb://user:s3cret@%s/db?directConnection=true", addr))
			if !errors.Is(err, identity.ErrUnavailable) {
				t.Errorf("Open: %v, want ErrUnavailable", err)
			}
			if took := time.Since(began); took > callTimeout+slack {
				t.Errorf("Open took %v, want about %v", took, callTimeout)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Error("the error holds the password")
			}
		})
	}
}

func TestAStoreThatIsAwayAnswersInTimeAndRecoversByItself(t *testing.T) {
	opts := server(t)
	r := newRelay(t, opts.Hosts[0])
	s := openFor(t, opts.SetHosts([]string{r.addr}).SetDirect(true).SetTimeout(callTimeout), newDatabase(t))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a patient caller is answered in time too
	defer cancel()
	for name, away := range map[string]func(){"cut": r.cut, "frozen": r.freeze} {
		t.Run(name, func(t *testing.T) {
			if err := s.Ping(ctx); err != nil {
				t.Fatal(err)
			}
			away()
			calls := map[string]func() error{
				"Ping": func() error { return s.Ping(ctx) },
				"User": func() error { _, err := s.User(ctx, "x"); return err },
				"CreateUser": func() error {
					return s.CreateUser(ctx, identity.User{ID: "x", UsernameKey: "x", UsernameSkeleton: "x"})
				},
				"Hit":         func() error { _, err := s.Hit(ctx, "x", 1, time.Minute, time.Now()); return err },
				"Revocations": func() error { _, _, err := s.Revocations(ctx, time.Now(), time.Now()); return err },
			}
			var wg sync.WaitGroup
			for doing, call := range calls {
				wg.Go(func() {
					began := time.Now()
					if err := call(); !errors.Is(err, identity.ErrUnavailable) {
						t.Errorf("%s: %v, want ErrUnavailable", doing, err)
					}
					if took := time.Since(began); took > callTimeout+slack {
						t.Errorf("%s took %v, want about %v", doing, took, callTimeout)
					}
				})
			}
			wg.Wait()
			r.restore()
			deadline := time.Now().Add(10 * time.Second)
			for s.Ping(ctx) != nil {
				if time.Now().After(deadline) {
					t.Fatal("the store has not recovered")
				}
			}
		})
	}
}
