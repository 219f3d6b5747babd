package upstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
)

func TestBoltStore(t *testing.T) {
	t.Parallel()
	testStore(t, func(t *testing.T) Store { return newBolt(t) })
}

func TestMongoStore(t *testing.T) {
	t.Parallel()
	uri := mongoURI(t)
	testStore(t, func(t *testing.T) Store { return newMongo(t, uri) })
}

// mongoURI returns the server to test against, or ends the test.
func mongoURI(t *testing.T) string {
	uri := os.Getenv("MONGODB_URI")
	if uri == "" && os.Getenv("REQUIRE_MONGODB") == "1" {
		t.Fatal("REQUIRE_MONGODB=1 but MONGODB_URI is not set")
	}
	if uri == "" {
		t.Skip("skipped: MONGODB_URI is not set")
	}
	return uri
}

// newMongo opens a store in a database of its own, which is dropped at the end.
func newMongo(t *testing.T, uri string) *MongoStore {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/tasks_test_" + strings.ToLower(rand.Text()[:12])
	s, err := OpenMongo(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close() // some tests have closed it already
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		again, err := OpenMongo(ctx, u.String())
		if err == nil {
			err = errors.Join(again.tasks.Database().Drop(ctx), again.Close())
		}
		if err != nil {
			t.Error(err)
		}
	})
	return s
}

// testStore is the specification of a Store.
func testStore(t *testing.T, open func(*testing.T) Store) {
	ctx := t.Context()
	ann := Identity{Subject: "ann", Tenant: "acme"}
	task := func(who Identity, title string) Task {
		t.Helper()
		tk, err := newTask(Draft{Title: title, Description: "first\nsecond"}, who, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return tk
	}
	ref := func(tk Task) Ref { return Ref{Tenant: tk.Tenant, Owner: tk.Owner, ID: tk.ID} }
	create := func(s Store, tk Task) Task {
		t.Helper()
		if err := s.Create(ctx, tk); err != nil {
			t.Fatal(err)
		}
		return tk
	}
	ids := func(ts []Task) (ids []string) {
		for _, tk := range ts {
			ids = append(ids, tk.ID)
		}
		return ids
	}

	t.Run("a task comes back as it was stored", func(t *testing.T) {
		s := open(t)
		want := create(s, task(ann, `{"$where": "☃ 𝄞"}`))
		got, err := s.Get(ctx, ref(want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("an ID is taken once", func(t *testing.T) {
		s := open(t)
		first := create(s, task(ann, "first"))
		second := first
		second.Title = "second"
		if err := s.Create(ctx, second); !errors.Is(err, ErrExists) {
			t.Fatalf("got %v, want ErrExists", err)
		}
		if got, err := s.Get(ctx, ref(first)); err != nil || got.Title != "first" {
			t.Errorf("got %v, %v; want the first task", got, err)
		}
	})

	t.Run("a task is found by tenant, owner and ID, and by nothing less", func(t *testing.T) {
		s := open(t)
		tk := create(s, task(ann, "mine"))
		for name, r := range map[string]Ref{
			"another ID":     {tk.Tenant, tk.Owner, task(ann, "other").ID},
			"another owner":  {tk.Tenant, "bob", tk.ID},
			"another tenant": {"umbrella", tk.Owner, tk.ID},
			"no owner":       {tk.Tenant, "", tk.ID},
			"no tenant":      {"", tk.Owner, tk.ID},
			"no ID":          {tk.Tenant, tk.Owner, ""},
			"nothing":        {},
		} {
			if _, err := s.Get(ctx, r); !errors.Is(err, ErrNotFound) {
				t.Errorf("Get with %s: %v, want ErrNotFound", name, err)
			}
			if _, err := s.Update(ctx, r, func(t *Task) { t.Title = "stolen" }); !errors.Is(err, ErrNotFound) {
				t.Errorf("Update with %s: %v, want ErrNotFound", name, err)
			}
			if err := s.Delete(ctx, r); !errors.Is(err, ErrNotFound) {
				t.Errorf("Delete with %s: %v, want ErrNotFound", name, err)
			}
		}
		if got, err := s.Get(ctx, ref(tk)); err != nil || got.Title != "mine" {
			t.Errorf("got %v, %v; want the task untouched", got, err)
		}
	})

	t.Run("an update is stored and returned", func(t *testing.T) {
		s := open(t)
		tk := create(s, task(ann, "before"))
		done, after := true, "after"
		updated, err := s.Update(ctx, ref(tk), func(t *Task) {
			Change{Title: &after, Done: &done}.apply(t, time.Now().Add(time.Hour))
		})
		if err != nil {
			t.Fatal(err)
		}
		if updated.Title != after || !updated.Done || updated.CompletedAt == nil || !updated.UpdatedAt.After(tk.UpdatedAt) {
			t.Errorf("returned %+v", updated)
		}
		got, err := s.Get(ctx, ref(tk))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(updated, got); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("parallel updates all count", func(t *testing.T) {
		s := open(t)
		tk := create(s, task(ann, ""))
		const n = 20
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if _, err := s.Update(ctx, ref(tk), func(t *Task) { t.Title += "x" }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got, err := s.Get(ctx, ref(tk))
		if err != nil || got.Title != strings.Repeat("x", n) {
			t.Errorf("got %q, %v; want %d x", got.Title, err, n)
		}
	})

	t.Run("of parallel deletions one succeeds", func(t *testing.T) {
		s := open(t)
		tk := create(s, task(ann, "short-lived"))
		const n = 8
		errs := make(chan error, n)
		for range n {
			go func() { errs <- s.Delete(ctx, ref(tk)) }()
		}
		succeeded := 0
		for range n {
			if err := <-errs; err == nil {
				succeeded++
			} else if !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		}
		if succeeded != 1 {
			t.Errorf("%d deletions succeeded, want 1", succeeded)
		}
		if ts, err := s.ListByOwner(ctx, ann.Tenant, ann.Subject, nil, Page{Limit: 10}); err != nil || len(ts) != 0 {
			t.Errorf("listed %v, %v after the deletion", ts, err)
		}
	})

	t.Run("listings are newest first, select, and are cut into pages", func(t *testing.T) {
		s := open(t)
		// The names are chosen so that one is the beginning of the other.
		owners := []Identity{
			{Subject: "ann", Tenant: "acme"}, {Subject: "ann2", Tenant: "acme"}, {Subject: "", Tenant: "acmeann"},
			{Subject: "ann", Tenant: ""}, {Subject: "n", Tenant: "acmean"}, {Subject: "ann", Tenant: "acme\x00"},
		}
		byOwner, byTenant := map[space][]string{}, map[string][]string{}
		open, closed := map[space][]string{}, map[space][]string{}
		for i := range 30 {
			who := owners[i%len(owners)]
			tk := create(s, task(who, fmt.Sprint(i)))
			k := space{who.Tenant, who.Subject}
			byOwner[k] = append([]string{tk.ID}, byOwner[k]...)
			byTenant[who.Tenant] = append([]string{tk.ID}, byTenant[who.Tenant]...)
			if i%4 == 0 {
				if _, err := s.Update(ctx, ref(tk), func(t *Task) { t.Done = true }); err != nil {
					t.Fatal(err)
				}
				closed[k] = append([]string{tk.ID}, closed[k]...)
			} else {
				open[k] = append([]string{tk.ID}, open[k]...)
			}
		}
		yes, no := true, false
		check := func(name string, want []string, list func(Page) ([]Task, error)) {
			t.Helper()
			for limit := 1; limit <= len(want)+1; limit++ {
				var got []string
				before := ""
				for {
					ts, err := list(Page{Before: before, Limit: limit})
					if err != nil {
						t.Fatal(err)
					}
					if len(ts) > limit {
						t.Fatalf("%s: a page of %d with limit %d", name, len(ts), limit)
					}
					if len(ts) == 0 {
						break
					}
					got = append(got, ids(ts)...)
					before = got[len(got)-1]
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s with limit %d:\n got %v\nwant %v", name, limit, got, want)
				}
			}
		}
		for _, who := range owners {
			k := space{who.Tenant, who.Subject}
			for _, c := range []struct {
				name string
				done *bool
				want []string
			}{{"all", nil, byOwner[k]}, {"done", &yes, closed[k]}, {"open", &no, open[k]}} {
				check(fmt.Sprintf("%s of %q", c.name, k), c.want, func(p Page) ([]Task, error) {
					return s.ListByOwner(ctx, who.Tenant, who.Subject, c.done, p)
				})
			}
			check(fmt.Sprintf("tenant %q", who.Tenant), byTenant[who.Tenant], func(p Page) ([]Task, error) {
				return s.ListByTenant(ctx, who.Tenant, p)
			})
		}
	})

	t.Run("a page continues after a task that has been deleted", func(t *testing.T) {
		s := open(t)
		first, second := create(s, task(ann, "1")), create(s, task(ann, "2"))
		if err := s.Delete(ctx, ref(second)); err != nil {
			t.Fatal(err)
		}
		ts, err := s.ListByOwner(ctx, ann.Tenant, ann.Subject, nil, Page{Before: second.ID, Limit: 5})
		if err != nil || !slices.Equal(ids(ts), []string{first.ID}) {
			t.Errorf("got %v, %v; want the first task", ids(ts), err)
		}
	})

	t.Run("a context that has ended is unavailability", func(t *testing.T) {
		s := open(t)
		tk := create(s, task(ann, "here"))
		ended, cancel := context.WithCancel(ctx)
		cancel()
		testUnavailable(t, ended, s, tk)
	})

	t.Run("a closed store is unavailability", func(t *testing.T) {
		s := open(t)
		tk := create(s, task(ann, "here"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		testUnavailable(t, ctx, s, tk)
	})
}

// space is a tenant and an owner.
type space struct{ tenant, owner string }

// testUnavailable fails the test unless every method says ErrUnavailable.
func testUnavailable(t *testing.T, ctx context.Context, s Store, tk Task) {
	t.Helper()
	ref := Ref{Tenant: tk.Tenant, Owner: tk.Owner, ID: tk.ID}
	for name, call := range map[string]func() error{
		"Create":       func() error { return s.Create(ctx, tk) },
		"Get":          func() error { _, err := s.Get(ctx, ref); return err },
		"Update":       func() error { _, err := s.Update(ctx, ref, func(t *Task) { t.Title += "!" }); return err },
		"Delete":       func() error { return s.Delete(ctx, ref) },
		"ListByOwner":  func() error { _, err := s.ListByOwner(ctx, tk.Tenant, tk.Owner, nil, Page{Limit: 1}); return err },
		"ListByTenant": func() error { _, err := s.ListByTenant(ctx, tk.Tenant, Page{Limit: 1}); return err },
	} {
		start := time.Now()
		if err := call(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
		if took := time.Since(start); took > 5*storeTimeout {
			t.Errorf("%s took %v", name, took)
		}
	}
}

func TestBoltIndexesStayTrue(t *testing.T) {
	t.Parallel()
	s := newBolt(t)
	ctx := t.Context()
	var live []Task
	for i := range 60 {
		tk, err := newTask(Draft{Title: "t"}, Identity{Subject: fmt.Sprint("u", i%3), Tenant: fmt.Sprint("t", i%2)}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Create(ctx, tk); err != nil {
			t.Fatal(err)
		}
		live = append(live, tk)
		victim := live[(i*7)%len(live)]
		ref := Ref{Tenant: victim.Tenant, Owner: victim.Owner, ID: victim.ID}
		if i%3 == 0 {
			if err := s.Delete(ctx, ref); err != nil {
				t.Fatal(err)
			}
			live = slices.DeleteFunc(live, func(t Task) bool { return t.ID == victim.ID })
		} else if _, err := s.Update(ctx, ref, func(t *Task) { t.Done = !t.Done }); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]bool{}
	for _, tk := range live {
		got, err := s.Get(ctx, Ref{Tenant: tk.Tenant, Owner: tk.Owner, ID: tk.ID})
		if err != nil {
			t.Fatal(err)
		}
		for bucket, selector := range indexKeys(got) {
			want[bucket+" "+string(selector)+got.ID] = true
		}
	}
	got := map[string]bool{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		for _, bucket := range []string{bucketByOwner, bucketByState, bucketByTenant} {
			err := tx.Bucket([]byte(bucket)).ForEach(func(k, _ []byte) error {
				got[bucket+" "+string(k)] = true
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBoltFile(t *testing.T) {
	t.Parallel()

	t.Run("tasks survive closing and opening", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "tasks.db")
		s, err := OpenBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		tk, err := newTask(Draft{Title: "still here"}, Identity{Subject: "ann"}, time.Now())
		if err = errors.Join(err, s.Create(t.Context(), tk), s.Close()); err != nil {
			t.Fatal(err)
		}
		if s, err = OpenBolt(path); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got, err := s.Get(t.Context(), Ref{Owner: "ann", ID: tk.ID}); err != nil || !cmp.Equal(got, tk) {
			t.Errorf("got %v, %v; want %v", got, err, tk)
		}
	})

	t.Run("only its owner may read it", func(t *testing.T) {
		t.Parallel()
		s := newBolt(t)
		info, err := os.Stat(s.db.Path())
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
		}
	})

	t.Run("a second process is told so, soon", func(t *testing.T) {
		t.Parallel()
		s := newBolt(t)
		start := time.Now()
		if _, err := OpenBolt(s.db.Path()); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("got %v, want that another process has it open", err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
	})

	t.Run("a file of another kind is refused and left alone", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "notes.txt")
		text := strings.Repeat("not a database\n", 1000)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenBolt(path); err == nil {
			t.Error("opened")
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Error("the file was changed")
		}
	})

	t.Run("a damaged task is an error, not a missing one", func(t *testing.T) {
		t.Parallel()
		s := newBolt(t)
		tk, err := newTask(Draft{Title: "whole"}, Identity{Subject: "ann"}, time.Now())
		if err = errors.Join(err, s.Create(t.Context(), tk)); err != nil {
			t.Fatal(err)
		}
		err = s.db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketTasks)).Put([]byte(tk.ID), []byte("{"))
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Get(t.Context(), Ref{Owner: "ann", ID: tk.ID})
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) {
			t.Errorf("Get: %v", err)
		}
		err = s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucketTasks)).Delete([]byte(tk.ID)) })
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.ListByTenant(t.Context(), "", Page{Limit: 5})
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) {
			t.Errorf("ListByTenant: %v", err)
		}
	})
}

func TestOpenMongo(t *testing.T) {
	t.Parallel()

	t.Run("the database is the one in the path", func(t *testing.T) {
		t.Parallel()
		for uri, want := range map[string]string{
			"mongodb://localhost":                               "tasks",
			"mongodb://localhost/":                              "tasks",
			"mongodb://localhost/?replicaSet=rs0":               "tasks",
			"mongodb://localhost?authSource=/x":                 "tasks",
			"mongodb://u:p@a:1,b:2,[::1]:3/work?authSource=x/y": "work",
			"mongodb+srv://cluster.example.org/w%6Frk":          "work",
		} {
			if got, err := mongoDatabase(uri); err != nil || got != want {
				t.Errorf("%s: got %q, %v; want %q", uri, got, err, want)
			}
		}
	})

	t.Run("a connection string that is wrong is not repeated", func(t *testing.T) {
		t.Parallel()
		for _, uri := range []string{
			"mongodb://user:hunter2%zz@localhost/x", "mongodb://user:hunter2@@localhost", "mongodb://user:hunter2@",
			"mongodb://user:hunter2@localhost/%zz", "mongodb://user:hunter2@localhost/?tls=hunter2",
		} {
			if _, err := OpenMongo(t.Context(), uri); err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: got %v, want an error without the password", uri, err)
			}
		}
	})

	t.Run("a server that is not there is an error, soon", func(t *testing.T) {
		t.Parallel()
		start := time.Now()
		if _, err := OpenMongo(t.Context(), "mongodb://127.0.0.1:1/x"); err == nil {
			t.Error("opened")
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestMongoThatGoesAway(t *testing.T) {
	t.Parallel()
	uri := mongoURI(t)
	for name, breakIt := range map[string]func(*relay){"is cut off": (*relay).cut, "falls silent": (*relay).hang} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(uri)
			if err != nil {
				t.Fatal(err)
			}
			r := newRelay(t, u.Host)
			u.Host = r.Addr().String()
			q := u.Query()
			q.Set("directConnection", "true") // else the driver would find the way around
			u.RawQuery = q.Encode()
			s := newMongo(t, u.String())
			svc := newServiceOver(t, s)
			ann := svc.as("ann")
			task := ann.create("before")

			breakIt(r)
			for _, path := range []string{"/tasks", "/tasks/" + task.ID} {
				got := ann.do("GET", path, "")
				got.wantProblem(t, 503, codeStoreUnavailable)
				if strings.Contains(string(got.body), "127.0.0.1") {
					t.Errorf("the answer holds the driver's text: %s", got.body)
				}
				if got.took > 5*storeTimeout {
					t.Errorf("took %v", got.took)
				}
			}
			r.heal()
			deadline := time.Now().Add(20 * time.Second)
			for ann.do("GET", "/tasks/"+task.ID, "").status != 200 {
				if time.Now().After(deadline) {
					t.Fatal("it does not come back")
				}
			}
		})
	}
}

// relay forwards connections to another address until it is told not to.
type relay struct {
	net.Listener
	to string

	mu    sync.Mutex
	conns []net.Conn
	state string // "", "cut", "hang"
	wake  *sync.Cond
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, to: to}
	r.wake = sync.NewCond(&r.mu)
	go r.accept()
	t.Cleanup(func() { _ = l.Close(); r.heal(); r.closeAll() })
	return r
}

func (r *relay) accept() {
	for {
		client, err := r.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.to)
		r.mu.Lock()
		if err != nil || r.state == "cut" {
			_ = client.Close()
			r.mu.Unlock()
			continue
		}
		r.conns = append(r.conns, client, server)
		r.mu.Unlock()
		go r.pipe(client, server)
		go r.pipe(server, client)
	}
}

func (r *relay) pipe(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		for r.state == "hang" {
			r.wake.Wait()
		}
		r.mu.Unlock()
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (r *relay) set(state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = state
	r.wake.Broadcast()
}

func (r *relay) hang() { r.set("hang") }
func (r *relay) heal() { r.set("") }
func (r *relay) cut()  { r.set("cut"); r.closeAll() }

func (r *relay) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}
