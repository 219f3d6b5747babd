package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/identity"
	"portcullis/policy"
)

// watchEvery is how often the files are looked at. Their content is compared,
// because editors rename files and Kubernetes swaps symbolic links.
const watchEvery = time.Second

// settleAfter is how long a change has to stand still before it is believed.
const settleAfter = 500 * time.Millisecond

// reloader builds a new State when a file has changed, and swaps it in when
// nothing is wrong with it.
type reloader struct {
	*shared
	running  *config.Config
	accounts *accounts
	gateway  *gateway.Gateway
	log      *slog.Logger
	tried    *config.Config // the configuration that was last built, whatever came of it
	done     contents       // of the files when they were last tried
	seen     contents       // and when they were last looked at
}

// contents are digests of what files hold, by name.
type contents map[string][sha256.Size]byte

// errUnsettled ends a reload whose files were written to meanwhile.
var errUnsettled = errors.New("the files change while they are read")

// follow reloads on SIGHUP and when files have changed, until ctx ends.
func (r *reloader) follow(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	r.run(ctx, hangup)
}

// run reloads on every hangup and whenever the files have changed, until ctx ends.
func (r *reloader) run(ctx context.Context, hangup <-chan os.Signal) {
	next := time.NewTimer(watchEvery)
	defer next.Stop()
	r.done = r.digest()
	r.seen = r.done
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup: // somebody says that the files are complete
			r.seen = r.digest()
			r.try()
		case <-next.C:
			r.look()
		}
		if maps.Equal(r.seen, r.done) {
			next.Reset(watchEvery)
		} else {
			next.Reset(settleAfter)
		}
	}
}

// look reloads if the files are not those that were last tried, and stand still: a
// file that is just being written can make sense and mean something else.
func (r *reloader) look() {
	before := r.seen
	r.seen = r.digest()
	if !maps.Equal(r.seen, r.done) && maps.Equal(r.seen, before) {
		r.try()
	}
}

// try reloads and says what came of it, but for files that do not stand still:
// they are looked at again.
func (r *reloader) try() {
	err := r.reload()
	if errors.Is(err, errUnsettled) {
		return
	}
	r.done = maps.Clone(r.seen)
	if err != nil {
		r.gateway.Refused(err)
		r.log.Error("reload refused: the old configuration stays", "error", err)
		return
	}
	warn(r.running, r.log)
	maps.DeleteFunc(r.done, func(f string, _ [sha256.Size]byte) bool { return !slices.Contains(r.files(), f) })
	r.log.Info("reloaded", "policy", r.running.Policy.File, "revision", r.gateway.Policy().Revision())
}

// files are those that a reload reads, as far as is known: those of the running
// configuration and of the one that was tried last.
func (r *reloader) files() []string {
	files := []string{r.config}
	for _, cfg := range []*config.Config{r.running, r.tried} {
		if cfg == nil {
			continue
		}
		files = append(files, cfg.Policy.File, policy.SuiteFile(cfg.Policy.File), cfg.Policy.Shadow)
		keys, _ := filepath.Glob(filepath.Join(cfg.Identity.Tokens.Keys, "[^.]*")) // a bad pattern has no files
		files = append(files, keys...)
		for _, u := range cfg.Upstreams {
			files = append(append(files, u.OpenAPI), u.TLS.Files()...)
		}
		for _, is := range cfg.Identity.Issuers {
			files = append(files, is.CA)
		}
	}
	slices.Sort(files)
	return slices.DeleteFunc(slices.Compact(files), func(f string) bool { return f == "" })
}

// digest is of the content of these files, and of whether they can be read.
func (r *reloader) digest() contents {
	all := contents{}
	for _, f := range r.files() {
		content, err := os.ReadFile(f)
		h := sha256.New()
		fmt.Fprintf(h, "%v\n", err != nil)
		h.Write(content)
		all[f] = [sha256.Size]byte(h.Sum(nil))
	}
	return all
}

// reload builds everything, then swaps one pointer.
func (r *reloader) reload() error {
	// Keys have to agree with nothing else: what a withdrawn one has signed is
	// refused even while something is wrong with the policy.
	dir, alg, _ := keysOf(r.running)
	keys, err := identity.ReadKeyring(dir, alg)
	if err != nil {
		return r.settled(err)
	}
	if r.accounts.tokens.SetKeys(keys) {
		r.accounts.federation.Forget() // what upstreams are told of its callers is signed anew
	}

	next, err := r.load()
	if err != nil {
		return r.settled(err)
	}
	known := r.files()
	if r.tried = next; !slices.Equal(known, r.files()) {
		return errUnsettled // it names others: they have to be looked at, too
	}
	if fixed := needRestart(r.running, next); len(fixed) > 0 {
		return errors.New("needs a restart: " + strings.Join(fixed, ", "))
	}
	rules, err := loadPolicy(next)
	if err != nil {
		return r.settled(err)
	}
	if problems := rules.CheckOpened(r.gateway.Policy()); len(problems) > 0 {
		return r.settled(problems)
	}
	state, err := buildState(next, r.accounts, rules)
	if err != nil {
		return r.settled(err)
	}
	if err := r.settled(nil); err != nil {
		state.Close()
		return err
	}
	r.gateway.Swap(state)
	r.running = next
	return nil
}

// settled returns err, or errUnsettled if the files are no longer what they were
// when the reload began: then what was built is of neither.
func (r *reloader) settled(err error) error {
	if !maps.Equal(r.digest(), r.seen) {
		return errUnsettled
	}
	return err
}

// needRestart names what has changed that cannot change in a running gateway.
func needRestart(a, b *config.Config) []string {
	var names []string
	for _, fixed := range []struct {
		name string
		same bool
	}{
		{"listen", a.Listen == b.Listen},
		{"shutdown_timeout", a.ShutdownTimeout == b.ShutdownTimeout},
		{"drain_delay", a.DrainDelay == b.DrainDelay},
		{"tls or proxy_protocol", sameEdge(a, b)},
		{"admin", a.Admin == b.Admin},
		{"log", a.Log == b.Log},
		{"telemetry", a.Telemetry == b.Telemetry},
		{"limits", a.Limits == b.Limits},
		{"rate_limit_store", a.RateLimitStore.Reveal() == b.RateLimitStore.Reveal()},
		{"identity.store", a.Identity.Store.File == b.Identity.Store.File && a.Identity.Store.MongoDB.Reveal() == b.Identity.Store.MongoDB.Reveal()},
		{"identity.tokens", a.Identity.Tokens == b.Identity.Tokens},
		{"identity.password", a.Identity.Password == b.Identity.Password},
		{"identity.revocation", a.Identity.Revocation == b.Identity.Revocation},
		{"policy.decision_log", a.Policy.DecisionLog == b.Policy.DecisionLog},
		{"identity.reset", a.Identity.Reset == b.Identity.Reset}, // mails are written beside the requests
		{"identity.verify", a.Identity.Verify == b.Identity.Verify},
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
