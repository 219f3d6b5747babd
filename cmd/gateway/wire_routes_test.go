package main

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"portcullis/config"
)

// A certificate that is renewed on the disk is a change like one of gateway.yaml.
func TestCertificatesOfUpstreamsAreWatched(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	u := config.UpstreamTLS{CA: write("ca", "1"), Cert: write("cert", "1"), Key: write("key", "1")}
	r := &reloader{
		shared:  &shared{config: write("gateway.yaml", "")},
		running: &config.Config{Policy: config.Policy{File: write("policy.csv", "")}, Upstreams: map[string]config.Upstream{"up": {TLS: u}}},
	}
	before := r.digest()
	for _, name := range []string{"ca", "cert", "key"} {
		write(name, "2")
		after := r.digest()
		if maps.Equal(before, after) {
			t.Errorf("a change of %s is not seen", name)
		}
		before = after
	}
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []config.UpstreamTLS{{CA: empty}, {CA: filepath.Join(dir, "none")}, {Cert: empty, Key: empty}, {Cert: filepath.Join(dir, "none"), Key: empty}} {
		if _, err := upstreamTLS(bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if c, err := upstreamTLS(config.UpstreamTLS{ServerName: "web"}); err != nil || c.ServerName != "web" || c.RootCAs != nil || c.InsecureSkipVerify {
		t.Errorf("%+v %v", c, err)
	}
}

func TestStrictTransportSecurity(t *testing.T) {
	for want, h := range map[string]config.HSTS{
		"": {}, "max-age=3600": {MaxAge: time.Hour}, "max-age=60; includeSubDomains": {MaxAge: time.Minute, IncludeSubdomains: true},
	} {
		if got := hsts(h); got != want {
			t.Errorf("%+v: %q, want %q", h, got, want)
		}
	}
}
