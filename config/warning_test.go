package config

import (
	"net/netip"
	"slices"
	"testing"
)

func TestWarnings(t *testing.T) {
	const cost, from = "identity.password.cost", "forward_auth.from"
	networks := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	ask := ForwardAuth{Proxy: "nginx"}
	for _, c := range []struct {
		what string
		Config
		want []string
	}{
		{"what is usual", Config{Identity: Identity{Password: Password{Hash: "bcrypt", Cost: 12}}}, nil},
		{"much work", Config{Identity: Identity{Password: Password{Hash: "bcrypt", Cost: 14}}}, nil},
		{"too much", Config{Identity: Identity{Password: Password{Hash: "bcrypt", Cost: 15}}}, []string{cost}},
		{"that nobody does", Config{Identity: Identity{Password: Password{Hash: "argon2id", Cost: 16}}}, nil},
		{"one proxy", Config{ForwardAuth: ask, TrustedProxies: networks("10.0.0.7/32", "fd00::7/128")}, nil},
		{"a small network", Config{ForwardAuth: ask, TrustedProxies: networks("10.0.0.0/24", "fd00::/120")}, nil},
		{"a larger one", Config{ForwardAuth: ask, TrustedProxies: networks("10.0.0.7/32", "10.0.0.0/23")}, []string{from}},
		{"of IPv6", Config{ForwardAuth: ask, TrustedProxies: networks("fd00::/64")}, []string{from}},
		{"everybody", Config{ForwardAuth: ask, TrustedProxies: networks("0.0.0.0/0")}, []string{from}},
		{"of whom one may ask", Config{ForwardAuth: ForwardAuth{Proxy: "nginx", From: networks("10.0.0.7/32")}, TrustedProxies: networks("10.0.0.0/8")}, nil},
		{"or nobody", Config{ForwardAuth: ForwardAuth{Proxy: "none"}, TrustedProxies: networks("10.0.0.0/8")}, nil},
		{"both", Config{Identity: Identity{Password: Password{Hash: "bcrypt", Cost: 16}}, ForwardAuth: ask, TrustedProxies: networks("::/0")}, []string{cost, from}},
	} {
		var got []string
		for _, w := range c.Warnings() {
			got = append(got, w.Key)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
