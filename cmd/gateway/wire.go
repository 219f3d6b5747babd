package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/identity"
	"portcullis/identity/boltstore"
	"portcullis/identity/mongostore"
	"portcullis/policy"
)

// The wiring: the one place where the names of gateway.yaml meet those of the code.

// load reads the configuration. What is wrong with it is shown as it is.
func (s *shared) load() (*config.Config, error) {
	cfg, err := config.Load(s.config, s.env)
	var problems *config.Error
	if errors.As(err, &problems) {
		return nil, fmt.Errorf("the configuration cannot be used:\n%w", problems)
	}
	return cfg, err
}

func newLogger(cfg *config.Config, to io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.Log.Level}
	if cfg.Log.Format == "text" {
		return slog.New(slog.NewTextHandler(to, options))
	}
	return slog.New(slog.NewJSONHandler(to, options))
}

// accounts is the identity side, opened.
type accounts struct {
	store       identity.Store
	tokens      *identity.Tokens
	revocations *identity.Revocations
	federation  *identity.Federation
	service     *identity.Service
	hasher      *identity.Hasher
}

// openAccounts opens the store and everything around it, for a policy. Mails of the
// log driver go to mails.
func openAccounts(ctx context.Context, cfg *config.Config, rules *policy.Policy, log *slog.Logger, mails io.Writer) (*accounts, error) {
	id := cfg.Identity
	keys, err := identity.OpenKeyring(id.Tokens.Keys, identity.Algorithm(id.Tokens.Algorithm))
	if err != nil {
		return nil, err
	}
	workers := id.Password.Workers
	if workers == 0 {
		workers = max(1, runtime.NumCPU()/2) // the other half is for everything else
	}
	hasher, err := identity.NewHasher(identity.PasswordConfig{Hash: id.Password.Hash, Cost: id.Password.Cost, Workers: workers, Queue: id.Password.Queue})
	if err != nil {
		return nil, err
	}
	mailer, err := newMailer(id.Mail, mails)
	if err != nil {
		return nil, err
	}
	a := &accounts{hasher: hasher}
	if a.store, err = openStore(ctx, id.Store); err != nil {
		return nil, err
	}
	staleness := id.Revocation.MaxStaleness
	if id.Revocation.OnStoreLoss == "serve" {
		staleness = 0
	}
	a.revocations = identity.NewRevocations(identity.RevocationConfig{Poll: id.Revocation.Poll, MaxStaleness: staleness}, a.store, log)
	if err := a.revocations.Sync(ctx, time.Now()); err != nil {
		return nil, errors.Join(fmt.Errorf("reading revocations: %w", err), a.store.Close())
	}
	a.tokens = identity.NewTokens(identity.TokensConfig{Issuer: id.Tokens.Issuer, Audience: id.Tokens.Audience, AccessTTL: id.Tokens.AccessTTL}, keys, a.revocations)
	a.federation = identity.NewFederation(log)
	a.service = identity.NewService(serviceConfig(id), a.store, a.tokens, a.revocations, hasher, rules, mailer, log)
	return a, nil
}

func serviceConfig(id config.Identity) identity.Config {
	return identity.Config{
		Registration: id.Registration == "open",
		DefaultRoles: id.DefaultRoles,
		AdminRoles:   id.AdminRoles,
		SuperRole:    id.SuperRole,
		Passwords:    identity.PasswordRules{MinLength: id.Password.MinLength},
		RefreshTTL:   id.Tokens.RefreshTTL,
		RefreshGrace: id.Tokens.RefreshGrace,
		SessionTTL:   id.SessionTTL,
		ResetTTL:     id.Reset.TTL,
		ResetLink:    id.Reset.Link,
		VerifyTTL:    id.Verify.TTL,
		VerifyLink:   id.Verify.Link,
		LoginLimit:   identity.Limit{Attempts: id.LoginLimit.Attempts, Window: id.LoginLimit.Window},
		AuditTTL:     id.Audit.TTL,
	}
}

func openStore(ctx context.Context, at config.Store) (identity.Store, error) {
	if at.File != "" {
		return boltstore.Open(at.File)
	}
	return mongostore.Open(ctx, at.MongoDB.Reveal())
}

func newMailer(cfg config.Mail, mails io.Writer) (identity.Mailer, error) {
	var own fs.FS
	if cfg.Templates != "" {
		own = os.DirFS(cfg.Templates)
	}
	templates, err := identity.LoadTemplates(own)
	if err != nil {
		return nil, err
	}
	if cfg.Driver == "log" {
		return &identity.LogMailer{Templates: templates, Out: mails}, nil
	}
	return identity.NewSMTPMailer(identity.SMTPConfig{
		Host: cfg.SMTP.Host, Port: cfg.SMTP.Port, TLS: cfg.SMTP.TLS,
		Username: cfg.SMTP.Username, Password: cfg.SMTP.Password.Reveal(), From: cfg.From,
	}, templates)
}

// start runs what goes on beside serving, until ctx ends.
func (a *accounts) start(ctx context.Context, run *errgroup.Group) {
	run.Go(func() error { a.service.Run(ctx); return nil })
	run.Go(func() error { a.revocations.Run(ctx); return nil })
}

func (a *accounts) close(log *slog.Logger) {
	a.hasher.Close()
	if err := a.store.Close(); err != nil {
		log.Error("the store did not close well", "error", err)
	}
}

func (a *accounts) register(metrics prometheus.Registerer) {
	metrics.MustRegister(
		issuerAges{a.federation},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "portcullis_revocations", Help: "Revocations in memory.",
		}, func() float64 { return float64(a.revocations.Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "portcullis_revocations_staleness_seconds", Help: "Time since the store last told all revocations.",
		}, func() float64 { return a.revocations.Staleness(time.Now()).Seconds() }),
	)
}

// credentials are shown once, to whoever runs the gateway for the first time.
type credentials struct{ username, password string }

// firstAdministrator creates an administrator if there is none. Of two gateways
// that start at once on one store, one creates it and shows the password.
func (a *accounts) firstAdministrator(ctx context.Context, cfg *config.Config) (*credentials, error) {
	if there, err := a.service.HasAdministrator(ctx); err != nil || there {
		return nil, err
	}
	c := &credentials{"admin", strings.ToLower(rand.Text())}
	_, err := a.service.CreateUser(ctx, identity.NewUser{
		Username: c.username, Password: c.password, Roles: cfg.Identity.AdminRoles[:1],
		Email: "admin@localhost.localdomain", Quiet: true, // there is nobody to write to
	}, identity.Client{})
	if errors.Is(err, identity.ErrUsernameTaken) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("creating the first administrator: %w", err)
	}
	return c, nil
}

// buildState makes everything that is swapped together, or says all that is wrong.
func buildState(cfg *config.Config, a *accounts, rules *policy.Policy) (*gateway.State, error) {
	sc := gateway.StateConfig{
		Policy:         rules,
		Shadow:         loadShadow(cfg),
		Identity:       a.service.With(serviceConfig(cfg.Identity), rules),
		Prefix:         cfg.Identity.Prefix,
		TrustedProxies: cfg.TrustedProxies,
		ForwardAuth:    forwardAuth(cfg),
		Cookies:        cookieConfig(cfg.Identity),
	}
	var err error
	if sc.Upstreams, err = upstreamConfigs(cfg); err != nil {
		return nil, err
	}
	sc.Routes = routeConfigs(cfg)
	sc.RateLimits, sc.OwnRateLimits = rateLimits(cfg), cfg.Identity.RateLimits
	sc.CORS, sc.HSTS = corsConfig(cfg.Identity.CORS), hsts(cfg.HSTS)
	if sc.Identity, err = trusting(sc.Identity, a.federation, cfg, rules); err != nil {
		return nil, err
	}
	state, err := gateway.NewState(sc)
	if err != nil {
		sc.Identity.Close()
	}
	return state, err
}
