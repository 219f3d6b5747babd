package config

// ForwardAuth is for people who run a proxy already: it asks, and forwards itself.
type ForwardAuth struct {
	Proxy     string   `yaml:"proxy" enum:"none|nginx|traefik|caddy|envoy" default:"none" doc:"which proxy asks PREFIX/forward about each request; it must be one of trusted_proxies"`
	Audiences []string `yaml:"audiences" format:"name" doc:"services that ?upstream=NAME may name about any path; of upstreams that are not listed, the one that the path leads to"`
}

func checkForwardAuth(c *Config, wrong complain) {
	if c.ForwardAuth.Proxy != "none" && len(c.TrustedProxies) == 0 {
		wrong("forward_auth.proxy", "must be one of trusted_proxies, and there are none", "trusted_proxies")
	}
}
