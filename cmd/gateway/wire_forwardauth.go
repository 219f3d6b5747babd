package main

import (
	"portcullis/config"
	"portcullis/gateway"
)

func forwardAuth(c config.ForwardAuth) gateway.ForwardAuthConfig {
	if c.Proxy == "none" {
		return gateway.ForwardAuthConfig{}
	}
	return gateway.ForwardAuthConfig{Proxy: c.Proxy, Audiences: c.Audiences}
}
