package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// jwksPath is where the gateway publishes its keys, whatever identity.prefix is.
const jwksPath = "/.well-known/jwks.json"

// complain reports that the value of a path breaks a rule, which also looks at
// the values of others.
type complain func(path, message string, others ...string)

// check holds the rules that take more than one value. It changes nothing.
func check(c *Config, wrong complain) {
	if c.Admin.Listen != "" && c.Admin.Listen == c.Listen {
		wrong("admin.listen", "is where clients connect; operators need an address of their own", "listen")
	}
	checkEdge(c, wrong)
	checkForwardAuth(c, wrong)
	checkIdentity(&c.Identity, wrong)
	checkMail(&c.Identity.Mail, wrong)
	checkCORS(c.Identity.CORS, "identity.cors", wrong)
	checkPolicy(&c.Policy, wrong)
	checkUpstreams(c, wrong)
	checkRoutes(c, wrong)
	checkRateLimits(c, wrong)
}

func checkIdentity(id *Identity, wrong complain) {
	if id.Prefix == "/" {
		wrong("identity.prefix", `must be "" for the root`)
	}
	if under(id.Prefix, jwksPath) {
		wrong("identity.prefix", "is taken by the published keys")
	}
	for _, role := range id.DefaultRoles {
		if slices.Contains(id.AdminRoles, role) {
			wrong("identity.default_roles", "would make everybody who registers an administrator", "identity.admin_roles")
		}
		if id.SuperRole != "" && role == id.SuperRole {
			wrong("identity.default_roles", "would make everybody who registers an administrator of every tenant", "identity.super_role")
		}
	}
	if id.Tokens.RefreshTTL <= id.Tokens.AccessTTL {
		wrong("identity.tokens.refresh_ttl", "must be more than access_ttl", "identity.tokens.access_ttl")
	}
	checkIssuers(id, wrong)
	if id.SessionTTL < id.Tokens.RefreshTTL {
		wrong("identity.session_ttl", "must not be less than tokens.refresh_ttl", "identity.tokens.refresh_ttl")
	}
	if id.Revocation.MaxStaleness < id.Revocation.Poll {
		wrong("identity.revocation.max_staleness", "must not be less than poll", "identity.revocation.poll")
	}
}

func checkMail(m *Mail, wrong complain) {
	if m.Driver != "smtp" {
		return
	}
	if m.From == "" {
		wrong("identity.mail.from", "is missing; the driver smtp needs it")
	}
	if m.SMTP.Host == "" {
		wrong("identity.mail.smtp.host", "is missing; the driver smtp needs it")
	}
	const username, password = "identity.mail.smtp.username", "identity.mail.smtp.password"
	switch hasPassword := m.SMTP.Password.Reveal() != ""; {
	case hasPassword && m.SMTP.Username == "":
		wrong(username, "is missing; there is a password for it")
	case !hasPassword && m.SMTP.Username != "":
		wrong(password, "is missing; there is a username for it")
	case hasPassword && m.SMTP.TLS == "none":
		wrong("identity.mail.smtp.tls", "must not be none: the password would be readable on the way", password)
	}
}

func checkUpstreams(c *Config, wrong complain) {
	for name, u := range c.Upstreams {
		path := "upstreams." + name
		if u.Health.Timeout > u.Health.Interval {
			wrong(path+".health.timeout", "must not be more than interval", path+".health.interval")
		}
		checkUpstreamTLS(u, path, wrong)
	}
}

func checkRoutes(c *Config, wrong complain) {
	paths, unused := map[string]int{}, maps.Clone(c.Upstreams)
	reserved := reservedPaths(c.Identity.Prefix)
	for i, r := range c.Routes {
		path := fmt.Sprintf("routes[%d]", i)
		if first, again := paths[r.Path]; again {
			wrong(path+".path", fmt.Sprintf("is the path of routes[%d] too", first))
		} else {
			paths[r.Path] = i
		}
		if i := slices.IndexFunc(reserved, func(own string) bool { return overlap(r.Path, own) }); i >= 0 {
			wrong(path+".path", "overlaps "+reserved[i]+", where the gateway answers itself", "identity.prefix")
		}
		checkRewrite(r, path, wrong)
		checkCORS(r.CORS, path+".cors", wrong)
		delete(unused, r.Upstream)
		if _, known := c.Upstreams[r.Upstream]; !known {
			names := slices.Sorted(maps.Keys(c.Upstreams))
			wrong(path+".upstream", fmt.Sprintf("there is no upstream %q%s", clip(r.Upstream), didYouMean(r.Upstream, names)), "upstreams")
			unused = nil // one of them may be meant
		}
	}
	for name := range unused {
		wrong("upstreams."+name, "is used by no route", "routes")
	}
}

// reservedPaths returns the paths at and beneath which the gateway answers
// itself. With an empty prefix only the gateway knows which those are, and
// refuses routes that overlap them.
func reservedPaths(prefix string) []string {
	if prefix == "" {
		return []string{jwksPath}
	}
	return []string{jwksPath, prefix}
}

// overlap reports whether a route takes paths that are reserved. The route / is
// for everything else and does not.
func overlap(route, reserved string) bool {
	return under(route, reserved) || route != "/" && under(reserved, route)
}

// under reports whether path begins with the segments of above.
func under(path, above string) bool {
	return path == above || strings.HasPrefix(path, above+"/")
}
