package config

// ForwardAuth is for people who run a proxy already: it asks, and forwards itself.
type ForwardAuth struct {
	Proxy     string   `yaml:"proxy" enum:"none|nginx|traefik|caddy|envoy" default:"none" doc:"which proxy asks PREFIX/forward about each request; it must be one of trusted_proxies"`
	Audiences []string `yaml:"audiences" format:"name" doc:"services that only the proxy knows, for ?upstream=NAME"`
}

func checkForwardAuth(c *Config, wrong complain) {
	if c.ForwardAuth.Proxy != "none" && len(c.TrustedProxies) == 0 {
		wrong("forward_auth.proxy", "must be one of trusted_proxies, and there are none", "trusted_proxies")
	}
}
