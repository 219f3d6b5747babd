package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// Warning is about a value that is allowed and hardly meant.
type Warning struct {
	Key     string `json:"key"` // dotted path
	Message string `json:"message"`
}

// The last values that nobody is warned of.
const (
	calmCost   = 14 // of bcrypt
	calmAskers = 8  // bits of the addresses in a network that may ask: 256 of them
)

// Warnings returns what whoever runs c should know, with what to do about it.
func (c *Config) Warnings() (all []Warning) {
	if p := c.Identity.Password; p.Hash == "bcrypt" && p.Cost > calmCost {
		all = append(all, Warning{"identity.password.cost", fmt.Sprintf(
			"each password is %d times the work of one of cost 12: on a busy machine it can keep a worker for up to 40 s, and fail after all, while others are answered 503; use %d or less, or hash: argon2id",
			1<<(p.Cost-12), calmCost)})
	}
	if c.ForwardAuth.Proxy == "none" || len(c.ForwardAuth.From) > 0 {
		return all
	}
	wide := func(p netip.Prefix) bool { return p.Addr().BitLen()-p.Bits() > calmAskers }
	if i := slices.IndexFunc(c.TrustedProxies, wide); i >= 0 {
		all = append(all, Warning{"forward_auth.from", fmt.Sprintf(
			"is not set, so that all of trusted_proxies may ask, %s among them: whoever is there and holds a user's token gets assertions; name the addresses of the proxy alone",
			c.TrustedProxies[i])})
	}
	return all
}
