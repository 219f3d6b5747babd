package identity

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mtibben/confusables"
	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// Bounds of what a user may choose.
const (
	minUsernameRunes = 2
	maxUsernameRunes = 64
	maxEmailBytes    = 254 // RFC 5321 §4.5.3.1.3, less the angle brackets
	maxPasswordBytes = 1024
)

// FieldError says what is wrong with one field of the input, in words that may
// be shown to whoever sent it. It never quotes the value.
type FieldError struct {
	Field   string
	Message string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

func badField(field, format string, args ...any) error {
	return &FieldError{Field: field, Message: fmt.Sprintf(format, args...)}
}

// username is a name as its owner typed it and what it is compared by.
type username struct {
	display  string
	key      string // PRECIS UsernameCaseMapped (RFC 8265 §3.3)
	skeleton string // UTS 39: equal for names that look alike
}

// parseUsername accepts letters and digits of any script with ".", "_" and "-"
// between them. "@" is not among them, so that no username can be somebody's
// e-mail address.
func parseUsername(s string) (username, error) {
	if n := utf8.RuneCountInString(s); !utf8.ValidString(s) || n < minUsernameRunes || n > maxUsernameRunes {
		return username{}, badField("username", "must have %d to %d characters", minUsernameRunes, maxUsernameRunes)
	}
	key, err := usernameKey(s)
	if err != nil {
		return username{}, badField("username", "may contain letters, digits, and . _ - between them")
	}
	for i, r := range key {
		inner := i > 0 && i < len(key)-1
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && !(inner && strings.ContainsRune("._-", r)) {
			return username{}, badField("username", "may contain letters, digits, and . _ - between them")
		}
	}
	return username{display: norm.NFC.String(s), key: key, skeleton: strings.ToLower(confusables.Skeleton(key))}, nil
}

// usernameKey is what usernames are compared by.
func usernameKey(s string) (string, error) {
	return precis.UsernameCaseMapped.String(s)
}

// email is an address as its owner typed it and what it is compared by.
type email struct {
	display string
	key     string
}

// parseEmail accepts an addr-spec (RFC 5321 §4.1.2 without quoted strings and
// address literals; RFC 6531 for other scripts). Whether it exists only a mail
// can tell.
func parseEmail(s string) (email, error) {
	wrong := badField("email", "must be an e-mail address")
	local, domain, ok := strings.Cut(s, "@")
	if !ok || len(s) > maxEmailBytes || !utf8.ValidString(s) || local == "" || len(local) > 64 || !strings.Contains(domain, ".") {
		return email{}, wrong
	}
	for _, r := range local {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", r) {
			return email{}, wrong
		}
	}
	if strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return email{}, wrong
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || ascii == "" || strings.HasSuffix(ascii, ".") {
		return email{}, wrong
	}
	return email{display: norm.NFC.String(s), key: strings.ToLower(norm.NFKC.String(local)) + "@" + strings.ToLower(ascii)}, nil
}

// PasswordRules is what a new password must satisfy. There are no composition
// rules (NIST SP 800-63B-4 §3.1.1.2).
type PasswordRules struct {
	MinLength int // characters
}

// check says what is wrong with a password somebody wants to have.
func (r PasswordRules) check(field, password string, u User) error {
	switch n := utf8.RuneCountInString(normalPassword(password)); {
	case !utf8.ValidString(password):
		return badField(field, "must be valid UTF-8")
	case n < r.MinLength:
		return badField(field, "must have at least %d characters", r.MinLength)
	case len(password) > maxPasswordBytes:
		return badField(field, "must have at most %d bytes", maxPasswordBytes)
	case strings.ContainsFunc(password, unicode.IsControl):
		return badField(field, "must not contain control characters")
	}
	lower := strings.ToLower(normalPassword(password))
	if lower == u.UsernameKey || lower == u.EmailKey {
		return badField(field, "must not be the username or the e-mail address")
	}
	return nil
}

// fieldErrors joins the problems of several fields; nil if there are none.
func fieldErrors(errs ...error) error { return errors.Join(errs...) }
