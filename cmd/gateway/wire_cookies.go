package main

import (
	"net"
	"net/url"
	"strings"

	"portcullis/config"
	"portcullis/gateway"
)

// cookieConfig says whose pages may use cookies: the issuer's, and those that are
// configured. With an issuer on a loopback host without TLS the cookies do without
// it, too.
func cookieConfig(id config.Identity) gateway.CookieConfig {
	var c gateway.CookieConfig
	if issuer, err := url.Parse(id.Tokens.Issuer); err == nil { // config has parsed it before
		c.Origins = append(c.Origins, origin(issuer))
		c.Insecure = issuer.Scheme == "http" && isLoopback(issuer.Hostname())
	}
	for _, u := range id.Cookies.Origins {
		c.Origins = append(c.Origins, origin(u))
	}
	return c
}

// origin is written as browsers do (RFC 6454 §6.2).
func origin(u *url.URL) string {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if port := map[string]string{"http": ":80", "https": ":443"}[scheme]; port != "" {
		host = strings.TrimSuffix(host, port)
	}
	return scheme + "://" + host
}

func isLoopback(host string) bool {
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host).IsLoopback()
}
