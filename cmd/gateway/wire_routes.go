package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/config"
	"portcullis/gateway"
)

// upstreamConfigs reads the files that upstreams name.
func upstreamConfigs(cfg *config.Config) ([]gateway.UpstreamConfig, error) {
	var all []gateway.UpstreamConfig
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Upstreams)) {
		u := cfg.Upstreams[name]
		uc := gateway.UpstreamConfig{
			Name: name, Targets: u.Targets, LeastConnections: u.Balance == "least_connections",
			ConnectTimeout: u.ConnectTimeout, HeaderTimeout: u.HeaderTimeout, IdleTimeout: u.IdleTimeout, BodyTimeout: u.BodyTimeout,
			HealthPath: u.Health.Path, HealthInterval: u.Health.Interval, HealthTimeout: u.Health.Timeout,
			Headers: u.Headers,
		}
		var err error
		if uc.TLS, err = upstreamTLS(u.TLS); err != nil {
			errs = append(errs, fmt.Errorf("upstream %s: %w", name, err))
		}
		if u.OpenAPI != "" {
			if uc.OpenAPI, err = os.ReadFile(u.OpenAPI); err != nil {
				errs = append(errs, fmt.Errorf("upstream %s: its API description: %w", name, err))
			}
		}
		all = append(all, uc)
	}
	return all, errors.Join(errs...)
}

// upstreamTLS returns nil for what the gateway does by itself.
func upstreamTLS(t config.UpstreamTLS) (*tls.Config, error) {
	if t == (config.UpstreamTLS{}) {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		var err error
		if _, c.RootCAs, err = readRoots(t.CA); err != nil {
			return nil, err
		}
	}
	if t.Cert != "" {
		own, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{own}
	}
	return c, nil
}

// readRoots reads certificates to believe.
func readRoots(file string) (pem []byte, pool *x509.CertPool, err error) {
	if pem, err = os.ReadFile(file); err != nil {
		return nil, nil, fmt.Errorf("certificates to believe: %w", err)
	}
	pool = x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("certificates to believe: %s holds none in PEM", file)
	}
	return pem, pool, nil
}

func routeConfigs(cfg *config.Config) []gateway.RouteConfig {
	var all []gateway.RouteConfig
	for _, r := range cfg.Routes {
		rc := gateway.RouteConfig{
			Path: r.Path, Upstream: r.Upstream, PassAuthorization: r.PassAuthorization, MaxBody: r.MaxBody,
			HeaderTimeout: r.HeaderTimeout, IdleTimeout: r.IdleTimeout, BodyTimeout: r.BodyTimeout, Rewrite: r.Rewrite,
			RequestHeaders: headerEdit(r.RequestHeaders), ResponseHeaders: headerEdit(r.ResponseHeaders),
			CORS: corsConfig(r.CORS), RateLimits: r.RateLimits,
		}
		if r.StripPrefix {
			rc.Rewrite = "/"
		}
		all = append(all, rc)
	}
	return all
}

func headerEdit(h config.Headers) gateway.HeaderEdit {
	edit := gateway.HeaderEdit{Remove: h.Remove}
	for _, field := range h.Set {
		name, value, _ := strings.Cut(field, ":")
		edit.Set = append(edit.Set, gateway.Field{Name: name, Value: strings.TrimSpace(value)})
	}
	return edit
}

func corsConfig(c config.CORS) gateway.CORS {
	return gateway.CORS{Origins: c.Origins, Methods: c.Methods, Headers: c.Headers, Expose: c.Expose, Credentials: c.Credentials, MaxAge: c.MaxAge}
}

// hsts is a Strict-Transport-Security (RFC 6797 §6.1).
func hsts(h config.HSTS) string {
	if h.MaxAge == 0 {
		return ""
	}
	value := fmt.Sprintf("max-age=%d", int(h.MaxAge/time.Second))
	if h.IncludeSubdomains {
		value += "; includeSubDomains"
	}
	return value
}

func rateLimits(cfg *config.Config) []gateway.RateLimit {
	var all []gateway.RateLimit
	for _, l := range cfg.RateLimits {
		all = append(all, gateway.RateLimit{Name: l.Name, Key: l.Key, Requests: l.Requests, Per: l.Per, Burst: l.Burst})
	}
	return all
}

// openSharedLimits returns nil where replicas count by themselves.
func openSharedLimits(cfg *config.Config, log *slog.Logger, metrics prometheus.Registerer) (*gateway.SharedLimits, error) {
	url := cfg.RateLimitStore.Reveal()
	if url == "" {
		return nil, nil
	}
	return gateway.OpenSharedLimits(url, log, metrics)
}

func closeShared(s *gateway.SharedLimits, log *slog.Logger) {
	if err := s.Close(); err != nil {
		log.Error("rate limits", "error", err)
	}
}
