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
	display := norm.NFC.String(s)
	if n := utf8.RuneCountInString(display); n < minUsernameRunes || n > maxUsernameRunes {
		return username{}, badField("username", "must have %d to %d characters", minUsernameRunes, maxUsernameRunes)
	}
	key, err := usernameKey(display)
	if err != nil || !utf8.ValidString(s) {
		return username{}, badField("username", "may contain letters, digits, and . _ - between them")
	}
	for i, r := range key {
		inner := i > 0 && i < len(key)-1
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && (!unicode.IsMark(r) || i == 0) && (!inner || !strings.ContainsRune("._-", r)) {
			return username{}, badField("username", "may contain letters, digits, and . _ - between them")
		}
	}
	if mixesScripts(key) {
		return username{}, badField("username", "must not mix letters of several scripts")
	}
	return username{display: display, key: key, skeleton: usernameSkeleton(display)}, nil
}

// usernameKey is what usernames are compared by. It fails for what the profile
// does not allow, and for the rare text that the profile would change once more
// when applied to its own result (RFC 8264 §7): that would not be one name.
func usernameKey(s string) (string, error) {
	key, err := precis.UsernameCaseMapped.String(s)
	if err != nil {
		return "", fmt.Errorf("username: %w", err)
	}
	if again, err := precis.UsernameCaseMapped.String(key); err != nil || again != key || key == "" {
		return "", errors.New("username: has no stable form")
	}
	return key, nil
}

// usernameSkeleton is equal for names that look alike. It is made of what is
// shown, in its case: the capital I of "aIice" is the l of "alice", and capitals
// of other scripts look Latin that do not in lower case. Names that differ in
// case only count as alike, so i and l do too.
func usernameSkeleton(display string) string {
	s := norm.NFKC.String(display) // of what usernames may have, only width changes
	s = strings.ReplaceAll(strings.ToLower(confusables.Skeleton(s)), "i", "l")
	return confusables.Skeleton(s) // once more, for what only lower case looks like: "m" and "rn"
}

// mixesScripts reports whether a name has letters of scripts that are not
// written together: the "highly restrictive" level of UTS 39 §5.2. Within one
// script the skeleton finds what looks alike; across several it could not,
// because case changes what a letter looks like.
func mixesScripts(name string) bool {
	scripts := map[string]bool{}
	for _, r := range name {
		for script, table := range unicode.Scripts {
			if script != "Common" && script != "Inherited" && unicode.Is(table, r) {
				scripts[script] = true
			}
		}
	}
	if len(scripts) < 2 {
		return false
	}
	delete(scripts, "Latin")
	delete(scripts, "Han")
	japanese := scripts["Hiragana"] || scripts["Katakana"]
	delete(scripts, "Hiragana")
	delete(scripts, "Katakana")
	if japanese {
		return len(scripts) > 0
	}
	delete(scripts, "Bopomofo") // together with Hangul it would be odd, but nothing looks alike
	delete(scripts, "Hangul")
	return len(scripts) > 0
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
	if !ok || !utf8.ValidString(s) || len(s) > maxEmailBytes || len(local) > 64 {
		return email{}, wrong
	}
	// The profile of usernames refuses what is invisible or has several forms.
	localKey, err := usernameKey(local)
	if err != nil || strings.HasPrefix(localKey, ".") || strings.HasSuffix(localKey, ".") || strings.Contains(localKey, "..") {
		return email{}, wrong
	}
	for _, r := range localKey {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", r) {
			return email{}, wrong
		}
	}
	domainKey, err := domainKey(domain)
	if err != nil || len(localKey)+1+len(domainKey) > maxEmailBytes {
		return email{}, wrong
	}
	return email{display: norm.NFC.String(s), key: localKey + "@" + domainKey}, nil
}

// domainKey is a domain name of at least two labels in its ASCII form.
func domainKey(domain string) (string, error) {
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		return "", fmt.Errorf("domain: %w", err)
	}
	if again, err := idna.Lookup.ToASCII(ascii); err != nil || again != ascii {
		return "", errors.New("domain: has no stable form")
	}
	labels := strings.Split(ascii, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 { // RFC 1035 §2.3.4; the profile does not look
			return "", errors.New("domain: a label is empty or too long")
		}
	}
	if len(labels) < 2 {
		return "", errors.New("domain: has one label only")
	}
	return strings.ToLower(ascii), nil
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

// maxTenantBytes bounds the name of a tenant.
const maxTenantBytes = 64

// parseTenant accepts what is safe in a header field and in a list of them; ""
// is the default tenant.
func parseTenant(s string) (string, error) {
	ok := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r)
	}
	if len(s) > maxTenantBytes || strings.ContainsFunc(s, func(r rune) bool { return !ok(r) }) {
		return "", badField("tenant", "may have at most %d letters, digits, and . _ -", maxTenantBytes)
	}
	return s, nil
}

// fieldErrors joins the problems of several fields; nil if there are none.
func fieldErrors(errs ...error) error { return errors.Join(errs...) }
