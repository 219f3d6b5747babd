package main

import (
	"portcullis/config"
	"portcullis/gateway"
)

func forwardAuth(cfg *config.Config) gateway.ForwardAuthConfig {
	c := cfg.ForwardAuth
	if c.Proxy == "none" {
		return gateway.ForwardAuthConfig{}
	}
	from := c.From
	if len(from) == 0 {
		from = cfg.TrustedProxies
	}
	return gateway.ForwardAuthConfig{Proxy: c.Proxy, From: from, Audiences: c.Audiences}
}
