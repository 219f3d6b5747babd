package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/identity"
)

// A whole life of an account, with everything that can go wrong in it, leaves no
// password, token or hash in the log or in the audit records.
func TestNoSecretIsLogged(t *testing.T) {
	w := newWorld(t)
	var secrets []string
	secret := func(s ...string) { secrets = append(secrets, s...) }
	grant := func(g identity.Grant, err error) identity.Grant {
		t.Helper()
		w.must(err)
		secret(g.AccessToken, g.RefreshToken, g.AccessToken[strings.LastIndexByte(g.AccessToken, '.')+1:])
		return g
	}
	secret(password, another, "wrong password", "hunter2-in-the-wrong-field", "Third-password-of-4")

	u, err := w.Register(w.ctx, identity.Registration{Username: "ana", Email: "ana@example.com", Password: password}, nil, here)
	w.must(err)
	secret(u.PasswordHash)
	_, _ = w.Register(w.ctx, identity.Registration{Username: "ana", Email: "ana@example.com", Password: another}, nil, here)
	_, _ = w.Register(w.ctx, identity.Registration{Username: "x y", Email: "no", Password: "hunter2-in-the-wrong-field"}, nil, here)
	verify := w.token()
	secret(verify)
	w.must(w.VerifyEmail(w.ctx, verify, here))
	_ = w.VerifyEmail(w.ctx, verify, here)
	for range 7 {
		_, _ = w.Login(w.ctx, "hunter2-in-the-wrong-field", "wrong password", here)
		_, _ = w.Login(w.ctx, "eve@example.com", "wrong password", here)
	}
	first := grant(w.Login(w.ctx, "ana", password, here))
	second := grant(w.Refresh(w.ctx, first.RefreshToken, here))
	w.clock.advance(time.Minute)
	_, err = w.Refresh(w.ctx, first.RefreshToken, here) // theft
	w.want(err, identity.ErrTokenReused)
	_, _ = w.Refresh(w.ctx, second.RefreshToken, here)
	_, _ = w.Refresh(w.ctx, second.RefreshToken+"x", here)
	_, _ = w.Tokens().Verify([]byte(second.AccessToken))

	third := grant(w.Login(w.ctx, "ana", password, here))
	me := w.who(third.AccessToken)
	_ = w.ChangePassword(w.ctx, me, "wrong password", another, here)
	w.must(w.ChangePassword(w.ctx, me, password, another, here))
	secret(w.stored(u.ID).PasswordHash)
	_, err = w.UpdateMe(w.ctx, me, identity.Profile{Email: ptr("new@example.com"), CurrentPassword: another}, here)
	w.must(err)
	w.mails.failWith(os.ErrDeadlineExceeded)
	w.mail()
	w.mails.failWith(nil)
	w.clock.advance(identity.JobPause)
	for _, m := range w.mail() {
		if _, token, ok := cutLink(m); ok {
			secret(token)
			w.must(w.VerifyEmail(w.ctx, token, here))
		}
	}
	reset := w.forgot("new@example.com")
	secret(reset)
	_ = w.Reset(w.ctx, reset, "short", here)
	w.must(w.Reset(w.ctx, reset, "Third-password-of-4", here))
	secret(w.stored(u.ID).PasswordHash)
	_, err = w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Roles: &[]string{"editor"}, Email: ptr("third@example.com")}, here)
	w.must(err)
	last := grant(w.Login(w.ctx, "ana", "Third-password-of-4", here))
	w.store.failing(2)
	_ = w.Logout(w.ctx, w.who(last.AccessToken), identity.LogoutGlobal, here)
	_, _ = w.Login(w.ctx, "ana", "Third-password-of-4", here)
	w.store.heal()
	for _, m := range w.mail() {
		if _, token, ok := cutLink(m); ok {
			secret(token)
		}
	}
	w.must(w.DeleteUser(w.ctx, nil, u.ID, here))
	for _, file := range keyFiles(t, w) {
		for line := range strings.Lines(file) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "-----") {
				secret(line)
			}
		}
	}

	if countLines(w.logs.String(), `"audit"`) < 15 {
		t.Fatalf("hardly anything was logged:\n%s", w.logs.String())
	}
	held := map[string]string{"log": w.logs.String()}
	for _, r := range w.audited("") {
		for key, value := range r.Details {
			held["audit record "+r.Event+", "+key] = value
		}
	}
	for where, text := range held {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%.12q… is in the %s", s, where)
			}
		}
	}
}

// keyFiles reads the key directory of a world.
func keyFiles(t *testing.T, w *world) (contents []string) {
	t.Helper()
	infos := w.keys.Keys(w.clock.Now(), identity.Lifetimes{})
	if len(infos) == 0 {
		t.Fatal("no keys")
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(infos[0].File), "*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, string(b))
	}
	return contents
}
