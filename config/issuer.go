package config

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Issuer is somebody else whose tokens are believed.
type Issuer struct {
	Name          string            `yaml:"name" format:"name" required:"true" doc:"what it is called here; the ids of its users are NAME:SUB"`
	Issuer        string            `yaml:"issuer" required:"true" doc:"the iss claim of its tokens, byte by byte"`
	JWKSURL       string            `yaml:"jwks_url" format:"url" required:"true" doc:"where it publishes its keys (RFC 7517)"`
	CA            string            `yaml:"ca" format:"file" doc:"certificates to believe at jwks_url, in PEM; \"\" is those of the system"`
	AllowHTTP     bool              `yaml:"allow_http" default:"false" doc:"whether jwks_url may be http where it leads to another machine; whoever is on the way can forge tokens then"`
	Audience      string            `yaml:"audience" required:"true" doc:"what the aud claim must have"`
	Algorithms    []string          `yaml:"algorithms" enum:"RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA" default:"RS256" required:"true" doc:"algorithms of its signatures; never a symmetric one"`
	RolesClaim    string            `yaml:"roles_claim" default:"roles" doc:"claim with the roles, a list or one text with spaces; a JSON Pointer (RFC 6901) if nested: /realm_access/roles"`
	Roles         map[string]string `yaml:"roles" format:"role" doc:"its roles, and which of ours they are; those not named count for nothing"`
	UsernameClaim string            `yaml:"username_claim" doc:"claim with the username, if names cannot be mistaken for others' here; \"\" is the id"`
	EmailClaim    string            `yaml:"email_claim" default:"email" doc:"claim with the address, which counts if email_verified is true"`
	Tenant        string            `yaml:"tenant" doc:"tenant of its users"`
	ClockSkew     time.Duration     `yaml:"clock_skew" default:"30s" min:"0s" max:"5m" doc:"how far its clock may be ahead of ours; it prolongs nothing"`
	MaxTTL        time.Duration     `yaml:"max_ttl" default:"24h" min:"1m" max:"30d" doc:"tokens that are valid for longer are refused"`
	Refresh       time.Duration     `yaml:"refresh" default:"5m" min:"1s" max:"24h" doc:"time between two looks at its keys; an unknown key is looked for sooner, every 10s at most"`
}

func checkIssuers(id *Identity, wrong complain) {
	names, issuers := map[string]bool{}, map[string]bool{id.Tokens.Issuer: true}
	for i, is := range id.Issuers {
		at := fmt.Sprintf("identity.issuers[%d]", i)
		if names[is.Name] {
			wrong(at+".name", "is the name of another issuer, too")
		}
		if issuers[is.Issuer] {
			wrong(at+".issuer", "is another issuer, or this gateway", "identity.tokens.issuer")
		}
		names[is.Name], issuers[is.Issuer] = true, true
		if u, err := url.Parse(is.JWKSURL); err == nil && u.Scheme == "http" && !is.AllowHTTP && !loopback(u.Hostname()) {
			wrong(at+".jwks_url", "must be https, unless allow_http says otherwise: whoever is on the way could forge tokens", at+".allow_http")
		}
		if u, err := url.Parse(is.JWKSURL); err == nil && u.Scheme == "http" && is.CA != "" {
			wrong(at+".jwks_url", "is not https, and there is a ca for it", at+".ca")
		}
		if strings.ContainsFunc(is.Tenant, func(r rune) bool { return r <= ' ' || r > '~' }) {
			wrong(at+".tenant", "must be visible ASCII characters")
		}
	}
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
