package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/gateway/certs"
)

// edge is where clients connect: the listener and what comes before a request.
type edge struct {
	net.Listener
	certs    *certs.Store // nil: plain HTTP
	plain    net.Listener // nil: no redirect
	redirect *http.Server
}

func openEdge(cfg *config.Config, log *slog.Logger, metrics prometheus.Registerer) (*edge, error) {
	e := &edge{}
	var err error
	if e.certs, err = openCerts(cfg.TLS, log, metrics); err != nil {
		return nil, err
	}
	if e.Listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("listening for clients: %w", err)
	}
	if cfg.TLS.Redirect == "" {
		return e, nil
	}
	if e.plain, err = net.Listen("tcp", cfg.TLS.Redirect); err != nil {
		return nil, errors.Join(fmt.Errorf("listening for plain HTTP: %w", err), e.Listener.Close())
	}
	_, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil { // checked by config
		return nil, errors.Join(err, e.Listener.Close(), e.plain.Close())
	}
	e.redirect = &http.Server{
		Handler:           e.certs.HTTPHandler(gateway.RedirectHandler(port, e.certs.Covers)),
		ReadHeaderTimeout: cfg.Limits.HeaderTimeout, ReadTimeout: cfg.Limits.HeaderTimeout, WriteTimeout: 10 * time.Second,
		MaxHeaderBytes: int(cfg.Limits.HeaderBytes),
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what it says is about single clients
	}
	e.redirect.SetKeepAlivesEnabled(false)
	return e, nil
}

// openCerts reads the certificates of the edge; nil if it is to be plain HTTP.
func openCerts(cfg config.TLS, log *slog.Logger, metrics prometheus.Registerer) (*certs.Store, error) {
	if !cfg.On() {
		return nil, nil
	}
	c := certs.Config{
		MinVersion: map[string]uint16{"tls1.2": tls.VersionTLS12, "tls1.3": tls.VersionTLS13}[cfg.MinVersion],
		ClientCA:   cfg.ClientCA,
		ClientAuth: map[string]tls.ClientAuthType{
			"none": tls.NoClientCert, "request": tls.VerifyClientCertIfGiven, "require": tls.RequireAndVerifyClientCert,
		}[cfg.ClientAuth],
		ACME: certs.ACME{Domains: cfg.ACME.Domains, Email: cfg.ACME.Email, Cache: cfg.ACME.Cache, Directory: cfg.ACME.Directory},
		Log:  log, Metrics: metrics,
	}
	for _, p := range cfg.Certs {
		c.Pairs = append(c.Pairs, certs.Pair{Cert: p.Cert, Key: p.Key})
	}
	return certs.Open(c)
}

// configure is what the edge has to say about how the gateway serves.
func (e *edge) configure(cfg *config.Config, gc *gateway.Config) {
	gc.ConnectionsPerAddress = cfg.Limits.ConnectionsPerAddress
	gc.ProxyProtocol = map[string]gateway.ProxyProtocol{
		"off": gateway.ProxyOff, "optional": gateway.ProxyOptional, "required": gateway.ProxyRequired,
	}[cfg.ProxyProtocol]
	if e.certs != nil {
		gc.TLS, gc.TLSProblem = e.certs.TLS(), e.certs.Problem
	}
}

// start runs what goes on beside serving, until ctx ends and close is called.
func (e *edge) start(ctx context.Context, run *errgroup.Group) {
	if e.certs != nil {
		run.Go(func() error { e.certs.Run(ctx, watchEvery); return nil })
	}
	if e.redirect != nil {
		run.Go(func() error { return ignoreClosed(e.redirect.Serve(e.plain)) })
	}
}

// stopRedirect ends the redirect, which takes no time to answer.
func (e *edge) stopRedirect() error { return closeServer(e.redirect) }

// sameEdge reports whether two configurations need the same listeners.
func sameEdge(a, b *config.Config) bool {
	return reflect.DeepEqual(a.TLS, b.TLS) && a.ProxyProtocol == b.ProxyProtocol
}
