package main

import (
	"net/url"
	"slices"
	"testing"

	"portcullis/config"
)

func TestWhosePagesMayUseCookies(t *testing.T) {
	for issuer, want := range map[string]struct {
		origin   string
		insecure bool
	}{
		"https://auth.example.com":          {"https://auth.example.com", false},
		"https://Auth.Example.com:443/base": {"https://auth.example.com", false},
		"https://auth.example.com:8443":     {"https://auth.example.com:8443", false},
		"http://localhost:8080":             {"http://localhost:8080", true},
		"http://localhost:80/":              {"http://localhost", true},
		"http://127.0.0.1:8080":             {"http://127.0.0.1:8080", true},
		"http://[::1]:8080":                 {"http://[::1]:8080", true},
		"http://app.localhost":              {"http://app.localhost", true},
		"https://localhost:8443":            {"https://localhost:8443", false},
		"http://auth.example.com":           {"http://auth.example.com", false},
		"http://localhost.example.com":      {"http://localhost.example.com", false},
		"http://127.0.0.1.example.com":      {"http://127.0.0.1.example.com", false},
		"http://192.0.2.1:8080":             {"http://192.0.2.1:8080", false},
	} {
		c := cookieConfig(config.Identity{Tokens: config.Tokens{Issuer: issuer},
			Cookies: config.Cookies{Origins: []*url.URL{{Scheme: "https", Host: "App.example.com:443"}}}})
		if !slices.Equal(c.Origins, []string{want.origin, "https://app.example.com"}) || c.Insecure != want.insecure {
			t.Errorf("%s: %+v", issuer, c)
		}
	}
}
