package identity_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/identity"
	"portcullis/identity/boltstore"
)

// world is a Service over a store in a file, with a clock that stands still, a
// mailer that keeps what it is given, and a store that fails where a test wants.
type world struct {
	*identity.Service
	t           testing.TB
	ctx         context.Context
	clock       *clock
	store       *faultyStore
	mails       *mailbox
	logs        *logs
	keys        *identity.Keyring
	hasher      *identity.Hasher
	revocations *identity.Revocations
	cfg         identity.Config
}

const (
	accessTTL = 15 * time.Minute
	grace     = 10 * time.Second
	password  = "correct horse battery"
	another   = "staple that was not"
)

// here is where calls come from that do not care.
var here = identity.Client{IP: "192.0.2.1", UserAgent: "test", RequestID: "req-1"}

func newWorld(t testing.TB, change ...func(*identity.Config)) *world {
	t.Helper()
	dir := inMemory(t)
	keys, err := identity.OpenKeyring(filepath.Join(dir, "keys"), identity.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	file, err := boltstore.Open(filepath.Join(dir, "identity.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	hasher, err := identity.NewHasher(identity.PasswordConfig{Hash: "bcrypt", Cost: 4, Workers: 4, Queue: 1000})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, ctx: context.Background(), keys: keys, hasher: hasher,
		clock: &clock{now: time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)},
		store: &faultyStore{Store: file}, mails: &mailbox{}, logs: &logs{},
		cfg: identity.Config{
			Registration: true, DefaultRoles: []string{"user"}, AdminRoles: []string{"admin"}, SuperRole: "superadmin",
			Passwords:  identity.PasswordRules{MinLength: 8},
			RefreshTTL: 7 * 24 * time.Hour, RefreshGrace: grace, SessionTTL: 30 * 24 * time.Hour,
			ResetTTL: time.Hour, VerifyTTL: 24 * time.Hour,
			ResetLink: "https://id.example/reset?token={token}", VerifyLink: "https://id.example/verify?token={token}",
			LoginLimit: identity.Limit{Attempts: 5, Window: 15 * time.Minute}, AuditTTL: 90 * 24 * time.Hour,
		},
	}
	w.cfg.Now = w.clock.Now
	for _, c := range change {
		c(&w.cfg)
	}
	w.start()
	return w
}

// inMemory is a temporary directory without a disk, where there is such a thing.
// A store waits for the disk at each write; what that is good for is tested in
// its own package, and here it would be most of the time.
func inMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "portcullis-test-") //nolint:usetesting // TempDir is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// start makes the service, as the start of a gateway does.
func (w *world) start() {
	w.t.Helper()
	log := slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.revocations = identity.NewRevocations(identity.RevocationConfig{}, w.store, log)
	w.must(w.revocations.Sync(w.ctx, w.clock.Now()))
	tokens := identity.NewTokens(identity.TokensConfig{Issuer: "https://id.example", Audience: "api", AccessTTL: accessTTL, Now: w.clock.Now}, w.keys, w.revocations)
	w.Service = identity.NewService(w.cfg, w.store, tokens, w.revocations, w.hasher, testRoles{}, w.mails, log)
}

// replica is another gateway over the same store.
func (w *world) replica() *world {
	w.t.Helper()
	r := *w
	r.start()
	return &r
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// want fails the test unless err is target.
func (w *world) want(err, target error) {
	w.t.Helper()
	if !errors.Is(err, target) {
		w.t.Errorf("got %v, want %v", err, target)
	}
}

// user creates an account; roles default to those of a new user.
func (w *world) user(name string, roles ...string) identity.User {
	w.t.Helper()
	return w.userOf("", name, roles...)
}

func (w *world) userOf(tenant, name string, roles ...string) identity.User {
	w.t.Helper()
	if len(roles) == 0 {
		roles = []string{"user"}
	}
	u, err := w.CreateUser(w.ctx, identity.NewUser{Username: name, Email: name + "@example.com", Password: password, Roles: roles, Tenant: tenant}, here)
	w.must(err)
	return u
}

// login signs in with the usual password.
func (w *world) login(name string) identity.Grant {
	w.t.Helper()
	g, err := w.Login(w.ctx, name, password, here)
	w.must(err)
	return g
}

// who is what Verify says of an access token that it believes.
func (w *world) who(token string) *identity.Principal {
	w.t.Helper()
	p, err := w.Tokens().Verify([]byte(token))
	w.must(err)
	return p
}

// as is a signed-in caller.
func (w *world) as(name string) *identity.Principal {
	w.t.Helper()
	return w.who(w.login(name).AccessToken)
}

// refused fails the test if an access token is believed.
func (w *world) refused(token string) {
	w.t.Helper()
	if p, err := w.Tokens().Verify([]byte(token)); !errors.Is(err, identity.ErrTokenRevoked) {
		w.t.Errorf("an access token that must be revoked: %+v, %v", p, err)
	}
}

// believed fails the test if an access token is refused.
func (w *world) believed(token string) {
	w.t.Helper()
	if _, err := w.Tokens().Verify([]byte(token)); err != nil {
		w.t.Errorf("an access token that must be believed: %v", err)
	}
}

// stored is the account as it is in the store.
func (w *world) stored(id string) identity.User {
	w.t.Helper()
	u, err := w.store.Store.User(w.ctx, id)
	w.must(err)
	return u
}

// sessions counts the live sessions of a user.
func (w *world) sessions(id string) int {
	w.t.Helper()
	s, err := w.store.Store.Sessions(w.ctx, id, w.clock.Now())
	w.must(err)
	return len(s)
}

// mail does what is due and returns what was mailed since the last call.
func (w *world) mail() []identity.Mail {
	w.t.Helper()
	w.must(w.RunDue(w.ctx))
	return w.mails.take()
}

// token does what is due and returns the token of the only mail with a link.
func (w *world) token() string {
	w.t.Helper()
	var found []string
	for _, m := range w.mail() {
		if _, token, ok := cutLink(m); ok {
			found = append(found, token)
		}
	}
	if len(found) != 1 {
		w.t.Fatalf("%d mails with a link, want 1", len(found))
	}
	return found[0]
}

// forgot asks for a reset and returns its token.
func (w *world) forgot(email string) string {
	w.t.Helper()
	w.mail()
	w.must(w.Forgot(w.ctx, email, here))
	return w.token()
}

// audited returns the records of an event, oldest first.
func (w *world) audited(event string) []identity.AuditRecord {
	w.t.Helper()
	records, err := w.store.Store.ListAudit(w.ctx, identity.AuditQuery{Event: event, Now: w.clock.Now(), Limit: 1000})
	w.must(err)
	slices.Reverse(records)
	return records
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// mailbox is a mailer that keeps mails, or fails.
type mailbox struct {
	mu    sync.Mutex
	mails []identity.Mail
	fail  error
}

func (m *mailbox) Send(_ context.Context, mail identity.Mail) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.mails = append(m.mails, mail)
	return nil
}

func (m *mailbox) take() []identity.Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	mails := m.mails
	m.mails = nil
	return mails
}

func (m *mailbox) failWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// logs keeps what was logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testRoles is a policy that knows a few roles.
type testRoles struct{}

func (testRoles) Roles() []string { return []string{"admin", "editor", "superadmin", "user"} }

func (testRoles) Permissions(roles []string) []string {
	var out []string
	for _, r := range roles {
		out = append(out, "be."+r)
	}
	return out
}

// mailsTo lists template and addressee of mails, sorted.
func mailsTo(mails []identity.Mail) []string {
	var out []string
	for _, m := range mails {
		out = append(out, fmt.Sprintf("%s %s", m.Template, m.To))
	}
	slices.Sort(out)
	return out
}

// cutLink cuts the token off the link of a mail.
func cutLink(m identity.Mail) (before, token string, ok bool) { return strings.Cut(m.Link, "token=") }

// countLines counts the lines that hold part.
func countLines(text, part string) (n int) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
