package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// ForwardAuth is for people who run a proxy already: it asks, and forwards itself.
type ForwardAuth struct {
	Proxy     string         `yaml:"proxy" enum:"none|nginx|traefik|caddy|envoy" default:"none" doc:"which proxy asks PREFIX/forward about each request; it must be one of trusted_proxies"`
	From      []netip.Prefix `yaml:"from" doc:"those of trusted_proxies who may ask, which are all if none is named: name the proxy alone, because whoever may ask gets assertions"`
	Audiences []string       `yaml:"audiences" format:"name" doc:"services that ?upstream=NAME may name about any path; of upstreams that are not listed, the one that the path leads to"`
}

func checkForwardAuth(c *Config, wrong complain) {
	f := c.ForwardAuth
	if f.Proxy == "none" {
		return
	}
	if len(c.TrustedProxies) == 0 {
		wrong("forward_auth.proxy", "must be one of trusted_proxies, and there are none", "trusted_proxies")
		return
	}
	const from = "forward_auth.from"
	if f.From != nil && len(f.From) == 0 {
		wrong(from, "names nobody; without the key all trusted_proxies may ask")
	}
	trusted := make([]string, len(c.TrustedProxies))
	for i, p := range c.TrustedProxies {
		if !p.IsValid() {
			return // it may be the one that is meant
		}
		trusted[i] = networkText(p)
	}
	for i, p := range f.From {
		path, text := fmt.Sprintf("%s[%d]", from, i), networkText(p)
		switch holds := func(t netip.Prefix) bool { return t.Bits() <= p.Bits() && t.Contains(p.Addr()) }; {
		case !p.IsValid(), slices.ContainsFunc(c.TrustedProxies, holds):
		case slices.ContainsFunc(c.TrustedProxies, p.Overlaps):
			wrong(path, fmt.Sprintf("%q is more than is in trusted_proxies", text), "trusted_proxies")
		default:
			wrong(path, fmt.Sprintf("%q is none of trusted_proxies%s", text, didYouMean(text, trusted)), "trusted_proxies")
		}
	}
}

// networkText is a network as it is written, without the length of a single address.
func networkText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
