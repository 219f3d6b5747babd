package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"portcullis/identity"
)

// Cookie mode, for browsers: tokens travel in cookies that scripts can't read. The
// cookies are the gateway's: upstreams neither see nor set them. What a browser
// sends along by itself proves who is calling, not who wanted the call; see
// checkForgery.

// The cookies of ours, behind a prefix that binds them to one host and TLS
// (RFC 6265bis §4.1.3.2), unless CookieConfig.Insecure.
const (
	accessCookie  = "portcullis_access"
	refreshCookie = "portcullis_refresh"
	hostPrefix    = "__Host-"

	fieldCSRFToken = "X-CSRF-Token"

	maxCookie = 4096 // bytes; browsers drop larger ones without a word (RFC 6265 §6.1)
)

// errRepeatedCookie means that somebody, a neighbouring host perhaps, has put a
// second cookie beside ours: which of them is meant is not for us to guess.
var errRepeatedCookie = errors.New("repeated cookie")

// CookieConfig says how browsers are signed in by cookies.
type CookieConfig struct {
	// Origins are those whose pages may use the cookies (RFC 6454), written as
	// browsers do: lower case, no default port, no slash. None means that nobody may.
	Origins []string
	// Insecure leaves out Secure and the prefix __Host-, which browsers accept over
	// TLS only: for trying out on a loopback host.
	Insecure bool
}

func (c CookieConfig) name(base string) string {
	if c.Insecure {
		return base
	}
	return hostPrefix + base
}

// find returns the value of the cookie called name in the Cookie fields that
// hold ours; nil if it is not there.
func findCookie(fields [][]byte, name string) (value []byte, err error) {
	for _, field := range fields {
		for len(field) > 0 {
			var pair []byte
			pair, field, _ = bytes.Cut(field, []byte{';'})
			n, v, ok := bytes.Cut(bytes.Trim(pair, " \t"), []byte{'='})
			if !ok || string(n) != name {
				continue
			}
			if value != nil {
				return nil, &refusal{code: codeMalformedRequest, cause: errRepeatedCookie}
			}
			value = append([]byte{}, v...)
		}
	}
	return value, nil
}

// holdsOwnCookie reports whether a Cookie field has a cookie of ours in it.
func holdsOwnCookie(field []byte) bool {
	for len(field) > 0 {
		var pair []byte
		pair, field, _ = bytes.Cut(field, []byte{';'})
		if isOwnCookie(pair) {
			return true
		}
	}
	return false
}

// appendOtherCookies appends a Cookie field without the cookies of ours; nothing
// if there are no others.
func appendOtherCookies(dst, name, field []byte) []byte {
	begin := len(dst)
	for len(field) > 0 {
		var pair []byte
		pair, field, _ = bytes.Cut(field, []byte{';'})
		pair = bytes.Trim(pair, " \t")
		if len(pair) == 0 || isOwnCookie(pair) {
			continue
		}
		if len(dst) == begin {
			dst = append(append(dst, name...), ": "...)
		} else {
			dst = append(dst, "; "...)
		}
		dst = append(dst, pair...)
	}
	if len(dst) > begin {
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// isOwnCookie reports whether a pair of a Cookie or the beginning of a Set-Cookie
// field names a cookie of ours, in any spelling that some server or browser might
// take for it: with quotes and blanks, in another case, with other punctuation,
// or as the value of a cookie without a name, which browsers send as if it were one.
func isOwnCookie(pair []byte) bool {
	for len(pair) > 0 && (cookiePadding(pair[0]) || pair[0] == '=') {
		pair = pair[1:]
	}
	if i := bytes.IndexByte(pair, '='); i >= 0 {
		pair = pair[:i]
	}
	for len(pair) > 0 && cookiePadding(pair[len(pair)-1]) {
		pair = pair[:len(pair)-1]
	}
	switch len(pair) { // which nearly no other name gets past
	case len(accessCookie), len(refreshCookie), len(hostPrefix + accessCookie), len(hostPrefix + refreshCookie):
	default:
		return false
	}
	var buf [longestClassified]byte
	switch string(fold(&buf, pair)) {
	case "portcullis-access", "portcullis-refresh", "--host-portcullis-access", "--host-portcullis-refresh":
		return true
	}
	return false
}

func cookiePadding(c byte) bool { return c == ' ' || c == '\t' || c == '"' }

// setsOwnCookie reports whether an upstream's Set-Cookie is about a cookie of ours.
func setsOwnCookie(value []byte) bool {
	pair, _, _ := bytes.Cut(value, []byte{';'})
	return isOwnCookie(pair)
}

// cookieMode reports whether the client wants its tokens in cookies.
func (c *call) cookieMode() (bool, error) {
	switch mode := c.ctx.QueryArgs().Peek("mode"); string(mode) {
	case "":
		return false, nil
	case "cookie":
		return true, nil
	}
	return false, &refusal{code: codeValidationFailed, fields: []fieldProblem{{"mode", `must be "cookie" or left out`}}}
}

// cookieBody is a token response whose tokens are in cookies.
type cookieBody struct {
	TokenType        string `json:"token_type"`
	ExpiresIn        int    `json:"expires_in"`
	RefreshExpiresIn int    `json:"refresh_expires_in"`
	CSRFToken        string `json:"csrf_token"`
}

// replyTokens answers with a grant, in cookies if the client wants them there.
func (c *call) replyTokens(grant identity.Grant, cookies bool) error {
	c.event.userID, c.event.sessionID = grant.User.ID, grant.SessionID
	body := newTokenBody(grant)
	if !cookies {
		return c.reply(200, body)
	}
	for _, cookie := range []string{
		c.st.cookies.line(accessCookie, grant.AccessToken, grant.AccessExpiresIn),
		c.st.cookies.line(refreshCookie, grant.RefreshToken, grant.RefreshExpiresIn),
	} {
		if len(cookie) > maxCookie {
			return fmt.Errorf("a cookie of %d bytes, and browsers take %d: the user has more roles and permissions than fit", len(cookie), maxCookie)
		}
		c.answer.Header.Add("Set-Cookie", cookie)
	}
	return c.reply(200, cookieBody{body.TokenType, body.ExpiresIn, body.RefreshExpiresIn, c.st.identity.CSRFToken(grant.SessionID)})
}

// line is the value of a Set-Cookie field.
func (c CookieConfig) line(base, value string, life time.Duration) string {
	line := c.name(base) + "=" + value + "; Path=/; Max-Age=" + strconv.Itoa(int(life.Seconds())) + "; HttpOnly; SameSite=Strict"
	if !c.Insecure {
		line += "; Secure"
	}
	return line
}

// cleared are the values of the Set-Cookie fields that take both cookies away.
func (c CookieConfig) cleared() []string {
	return []string{c.line(accessCookie, "", 0), c.line(refreshCookie, "", 0)}
}

// clearCookies takes the cookies away from a caller whose session they were.
func (c *call) clearCookies() {
	if !c.header.cookieCaller {
		return
	}
	for _, cookie := range c.st.cookies.cleared() {
		c.answer.Header.Add("Set-Cookie", cookie)
	}
}

// refreshCookie reads the refresh token of the cookie. The body must be empty: a
// client that sends a token there wants the other mode.
func (c *call) refreshCookie() (token string, err error) {
	if err := c.checkOrigin(c.st); err != nil {
		return "", err
	}
	b, err := c.body()
	if err != nil {
		return "", err
	}
	if len(b) > 0 {
		return "", &refusal{code: codeMalformedRequest, detail: "In cookie mode the token is in the cookie, and there is no body."}
	}
	value, err := findCookie(c.header.cookies, c.st.cookies.name(refreshCookie))
	if err != nil {
		return "", err
	}
	session, err := c.st.identity.RefreshSession(string(value))
	if err != nil {
		return "", err
	}
	return string(value), c.checkCSRF(c.st, session)
}
