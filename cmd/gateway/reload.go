package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/policy"
)

// watchEvery is how often the files are looked at. Their content is compared,
// because editors rename files and Kubernetes swaps symbolic links.
const watchEvery = time.Second

// reloader builds a new State when a file has changed, and swaps it in when
// nothing is wrong with it.
type reloader struct {
	*shared
	running  *config.Config
	accounts *accounts
	gateway  *gateway.Gateway
	log      *slog.Logger
	seen     []byte // digest of the files that were last tried
}

// run reloads on every hangup and whenever the files have changed, until ctx ends.
func (r *reloader) run(ctx context.Context, hangup <-chan os.Signal) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	r.seen = r.digest()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		case <-tick.C:
			if bytes.Equal(r.digest(), r.seen) {
				continue
			}
		}
		r.seen = r.digest()
		if err := r.reload(); err != nil {
			r.gateway.Refused(err)
			r.log.Error("reload refused: the old configuration stays", "error", err)
			continue
		}
		r.log.Info("reloaded", "policy", r.running.Policy.File)
	}
}

// digest is of the content of every file that a reload reads, as far as the
// running configuration names it.
func (r *reloader) digest() []byte {
	files := []string{r.config, r.running.Policy.File, policy.SuiteFile(r.running.Policy.File)}
	for _, u := range r.running.Upstreams {
		files = append(append(files, u.OpenAPI), u.TLS.Files()...)
	}
	h := sha256.New()
	for _, f := range files {
		content, err := os.ReadFile(f)
		fmt.Fprintf(h, "%d %v\n", len(content), err != nil)
		h.Write(content)
	}
	return h.Sum(nil)
}

// reload builds everything, then swaps one pointer.
func (r *reloader) reload() error {
	next, err := r.load()
	if err != nil {
		return err
	}
	if fixed := needRestart(r.running, next); len(fixed) > 0 {
		return errors.New("needs a restart: " + strings.Join(fixed, ", "))
	}
	state, err := buildState(next, r.accounts)
	if err != nil {
		return err
	}
	r.gateway.Swap(state)
	r.running = next
	return nil
}

// needRestart names what has changed that cannot change in a running gateway.
func needRestart(a, b *config.Config) []string {
	var names []string
	for _, fixed := range []struct {
		name string
		same bool
	}{
		{"listen", a.Listen == b.Listen},
		{"admin", a.Admin == b.Admin},
		{"log", a.Log == b.Log},
		{"limits", a.Limits == b.Limits},
		{"identity.store", a.Identity.Store.File == b.Identity.Store.File && a.Identity.Store.MongoDB.Reveal() == b.Identity.Store.MongoDB.Reveal()},
		{"identity.tokens", a.Identity.Tokens == b.Identity.Tokens},
		{"identity.password", a.Identity.Password == b.Identity.Password},
		{"identity.revocation", a.Identity.Revocation == b.Identity.Revocation},
		{"identity.mail", sameMail(a.Identity.Mail, b.Identity.Mail)},
	} {
		if !fixed.same {
			names = append(names, fixed.name)
		}
	}
	return names
}

func sameMail(a, b config.Mail) bool {
	if a.SMTP.Password.Reveal() != b.SMTP.Password.Reveal() {
		return false
	}
	a.SMTP.Password, b.SMTP.Password = config.Secret{}, config.Secret{}
	return a == b
}
