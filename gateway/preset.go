package gateway

import (
	"fmt"
	"strings"

	"portcullis/identity"
)

// preset is the names under which an upstream is told who is calling. Beside
// them every upstream gets the assertion, and all of them are reserved, whichever
// is chosen: see classOf.
type preset uint8

const (
	presetPortcullis preset = iota
	presetOAuth2Proxy
	presetAuthelia
	presetKong
)

// parsePreset takes the name by which an upstream asks for it; "" is our own.
func parsePreset(name string) (preset, error) {
	switch name {
	case "", "portcullis":
		return presetPortcullis, nil
	case "oauth2-proxy":
		return presetOAuth2Proxy, nil
	case "authelia":
		return presetAuthelia, nil
	case "kong":
		return presetKong, nil
	}
	return 0, fmt.Errorf("no header preset is called %q", name)
}

// stranger returns the lines for a request of nobody.
func (s preset) stranger() []byte {
	if s == presetKong {
		return appendField(nil, "X-Anonymous-Consumer", "true")
	}
	return nil
}

// caller returns the lines that say who is calling, with the assertion.
func (s preset) caller(p *identity.Principal, permissions []string, assertion string) []byte {
	var dst []byte
	switch s {
	case presetOAuth2Proxy:
		dst = appendKnown(dst, "X-Forwarded-User", p.UserID)
		dst = appendKnown(dst, "X-Forwarded-Email", verifiedEmail(p))
		dst = appendKnown(dst, "X-Forwarded-Groups", strings.Join(p.Roles, ","))
		dst = appendKnown(dst, "X-Forwarded-Preferred-Username", localName(p))
	case presetAuthelia:
		dst = appendKnown(dst, "Remote-User", localName(p))
		dst = appendKnown(dst, "Remote-Groups", strings.Join(p.Roles, ","))
		dst = appendKnown(dst, "Remote-Email", verifiedEmail(p))
		dst = appendKnown(dst, "Remote-Name", localName(p)) // there is no other name
	case presetKong:
		dst = appendKnown(dst, "X-Consumer-Id", p.UserID)
		dst = appendKnown(dst, "X-Consumer-Custom-Id", p.UserID)
		dst = appendKnown(dst, "X-Consumer-Username", localName(p))
		dst = appendKnown(dst, "X-Consumer-Groups", strings.Join(p.Roles, ", "))
		dst = appendKnown(dst, "X-Authenticated-Groups", strings.Join(p.Roles, ", "))
	case presetPortcullis:
		return appendCaller(nil, p, permissions, assertion)
	}
	return appendField(dst, fieldAssertion, assertion)
}

// localName is the username, by which such applications know people. Of another
// issuer's users it is the ID: they may be called what somebody here is.
func localName(p *identity.Principal) string {
	if p.Issuer != "" {
		return p.UserID
	}
	return p.Username
}

// verifiedEmail is the address if its owner has proved it: applications written
// for another proxy take it for who somebody is, and anybody may register with any.
func verifiedEmail(p *identity.Principal) string {
	if p.EmailVerified {
		return p.Email
	}
	return ""
}

// appendKnown writes a field unless there is nothing to say.
func appendKnown(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendField(dst, name, value)
}
