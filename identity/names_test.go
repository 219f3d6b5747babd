package identity

import (
	"errors"
	"strings"
	"testing"
	"unicode"
)

func TestParseUsername(t *testing.T) {
	for name, c := range map[string]struct {
		in  string
		key string // "" is refused
	}{
		"plain":                         {"ana", "ana"},
		"upper case is folded":          {"Ana", "ana"},
		"full width is narrowed":        {"Ａｎａ", "ana"},
		"composed and decomposed agree": {"Zoe\u0308", "zoë"},
		"inner punctuation":             {"a.b_c-d", "a.b_c-d"},
		"digits first":                  {"42nd", "42nd"},
		"another script":                {"Дмитрий", "дмитрий"},
		"scripts of Japanese":           {"たろう太郎タロウ", "たろう太郎タロウ"},
		"Korean with Latin":             {"kim김", "kim김"},
		"longest":                       {strings.Repeat("a", 64), strings.Repeat("a", 64)},
		"one character":                 {"a", ""},
		"too long":                      {strings.Repeat("a", 65), ""},
		"empty":                         {"", ""},
		"leading dot":                   {".ana", ""},
		"trailing hyphen":               {"ana-", ""},
		"leading combining mark":        {"\u0308ana", ""},
		"at sign":                       {"ana@x", ""},
		"slash":                         {"ana/x", ""},
		"colon":                         {"role:admin", ""},
		"comma":                         {"a,b", ""},
		"space":                         {"ana b", ""},
		"tab":                           {"ana\tb", ""},
		"line break":                    {"ana\r\nX-User-Roles: admin", ""},
		"NUL":                           {"ana\x00", ""},
		"zero-width joiner":             {"an\u200da", ""},
		"right-to-left override":        {"an\u202ea", ""},
		"Hangul filler":                 {"an\u3164a", ""},
		"ligature":                      {"ﬁona", ""},
		"invalid UTF-8":                 {"ana\xff", ""},
		"Latin with Cyrillic":           {"аna", ""},
		"Latin with Greek":              {"νictor", ""},
		"Japanese with Hangul":          {"た김", ""},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := parseUsername(c.in)
			var field *FieldError
			switch {
			case c.key == "" && !errors.As(err, &field):
				t.Errorf("accepted as %q, or refused without naming the field: %v", u.key, err)
			case c.key == "" && field.Field != "username":
				t.Errorf("refused for %q", field.Field)
			case c.key == "" && strings.Contains(err.Error(), c.in) && c.in != "" && c.in != "a":
				t.Errorf("the refusal quotes the input: %v", err)
			case c.key != "" && (err != nil || u.key != c.key):
				t.Errorf("key %q, %v; want %q", u.key, err, c.key)
			}
		})
	}
}

func TestUsernamesThatLookAlikeShareASkeleton(t *testing.T) {
	for _, pair := range [][2]string{
		{"alice", "aIice"}, // capital I
		{"alice", "ALICE"},
		{"alice", "al1ce"},
		{"ALICE", "aIice"},
		{"paypal", "PaypaI"},
		{"admin", "adrnin"},
		{"admin", "adm1n"},
		{"modern", "modem"},
		{"bob", "b0b"},
		{"bob", "ВОВ"}, // all Cyrillic
		{"max", "ΜΑΧ"}, // all Greek
		{"coco", "сосо"},
		{"root", "ｒ００ｔ"},
	} {
		a, errA := parseUsername(pair[0])
		b, errB := parseUsername(pair[1])
		if errA != nil || errB != nil {
			t.Errorf("%q, %q: %v, %v", pair[0], pair[1], errA, errB)
		} else if a.skeleton != b.skeleton {
			t.Errorf("%q and %q have skeletons %q and %q", pair[0], pair[1], a.skeleton, b.skeleton)
		}
	}
	for _, pair := range [][2]string{{"ana", "anna"}, {"tom", "tim"}, {"muller", "müller"}, {"user-a", "user_b"}} {
		a, _ := parseUsername(pair[0])
		b, _ := parseUsername(pair[1])
		if a.skeleton == b.skeleton {
			t.Errorf("%q and %q are taken for each other", pair[0], pair[1])
		}
	}
}

func TestParseEmail(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, c := range map[string]struct {
		in  string
		key string // "" is refused
	}{
		"plain":                        {"ana@example.com", "ana@example.com"},
		"case is folded":               {"Ana@Example.COM", "ana@example.com"},
		"subaddress":                   {"ana+x@example.com", "ana+x@example.com"},
		"domain in its own script":     {"ana@bücher.example", "ana@xn--bcher-kva.example"},
		"domain with ideographic dots": {"ana@b。c", "ana@b.c"},
		"local part in its own script": {"имя@example.com", "имя@example.com"},
		"decomposed":                   {"zoe\u0308@example.com", "zoë@example.com"},
		"empty":                        {"", ""},
		"no at sign":                   {"ana.example.com", ""},
		"two at signs":                 {"ana@b@example.com", ""},
		"no local part":                {"@example.com", ""},
		"no domain":                    {"ana@", ""},
		"one label":                    {"ana@localhost", ""},
		"address literal":              {"ana@[127.0.0.1]", ""},
		"quoted":                       {`"a b"@example.com`, ""},
		"empty label":                  {"ana@example..com", ""},
		"leading dot in the domain":    {"ana@.com", ""},
		"trailing dot":                 {"ana@example.com.", ""},
		"label too long":               {"ana@" + long + "a.com", ""},
		"leading dot":                  {".ana@example.com", ""},
		"double dot":                   {"a..b@example.com", ""},
		"trailing dot of local part":   {"ana.@example.com", ""},
		"second addressee":             {"ana@example.com,eve@example.com", ""},
		"header injection":             {"ana@example.com\r\nBcc: eve@example.com", ""},
		"line break in local part":     {"ana\n@example.com", ""},
		"NUL":                          {"ana\x00@example.com", ""},
		"invalid UTF-8":                {"ana\xff@example.com", ""},
		"invalid UTF-8 in the domain":  {"ana@ex\x82ample.com", ""},
		"expands to spaces":            {"ﷺ@example.com", ""},
		"compatibility character":      {"①@example.com", ""},
		"invisible character":          {"ana\u3164@example.com", ""},
		"angle brackets":               {"<ana@example.com>", ""},
		"local part too long":          {strings.Repeat("a", 65) + "@example.com", ""},
		"longest":                      {"a@" + strings.Repeat("b.", 125) + "cd", "a@" + strings.Repeat("b.", 125) + "cd"},
		"too long":                     {"a@" + strings.Repeat("b.", 126) + "cd", ""},
		"too long in ASCII":            {"a@" + strings.Repeat("ü.", 50) + strings.Repeat("b", 50), ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := parseEmail(c.in)
			if (err == nil) != (c.key != "") || e.key != c.key {
				t.Errorf("key %q, %v; want %q", e.key, err, c.key)
			}
			var field *FieldError
			if err != nil && (!errors.As(err, &field) || field.Field != "email") {
				t.Errorf("refused without naming the field: %v", err)
			}
		})
	}
}

// A look-alike of an address is another address: a mail for the one must never
// be promised to the other's reader.
func TestEmailsThatLookAlikeAreNotTheSame(t *testing.T) {
	for _, imitation := range []string{"mıke@example.com", "mike@exаmple.com", "mi\u0307ke@example.com"} {
		e, err := parseEmail(imitation)
		if err == nil && e.key == "mike@example.com" {
			t.Errorf("%q is looked up as mike@example.com", imitation)
		}
	}
}

func TestParseTenant(t *testing.T) {
	for _, ok := range []string{"", "acme", "Acme_2.eu-west", strings.Repeat("a", 64)} {
		if _, err := parseTenant(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"a,b", "a b", "a\r\nX-User-Roles: admin", "a\x00", "ä", "\xff", strings.Repeat("a", 65)} {
		if _, err := parseTenant(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestPasswordRules(t *testing.T) {
	rules := PasswordRules{MinLength: 8}
	u := User{UsernameKey: "ana-maria", EmailKey: "ana@example.com"}
	for name, c := range map[string]struct {
		password string
		ok       bool
	}{
		"long enough":                {"abcdefgh", true},
		"too short":                  {"abcdefg", false},
		"empty":                      {"", false},
		"characters, not bytes":      {"ääääääää", true},
		"seven characters of many":   {"äääääää", false},
		"64 characters":              {strings.Repeat("xyzw", 16), true},
		"1024 bytes":                 {strings.Repeat("xyzw", 256), true},
		"1025 bytes":                 {strings.Repeat("xyzw", 256) + "x", false},
		"spaces":                     {"a b c d e f", true},
		"line break":                 {"abcdefgh\n", false},
		"NUL":                        {"abcdefgh\x00", false},
		"invalid UTF-8":              {"abcdefgh\xff", false},
		"the username":               {"Ana-Maria", false},
		"the address":                {"ANA@example.com", false},
		"the username in full width": {"Ａna-maria", false},
		"no composition rules":       {"zzqqxxkkww", true},
	} {
		t.Run(name, func(t *testing.T) {
			err := rules.check("password", c.password, u)
			if (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
			if err != nil && c.password != "" && strings.Contains(err.Error(), c.password) {
				t.Errorf("the refusal quotes the password")
			}
		})
	}
}

func FuzzParseUsername(f *testing.F) {
	for _, s := range []string{"ana", "Ａna", "ﬁ", "a.b", "a@b", "İi", "ΣΑΣ", "a\u0308", "\u1e9e", "ŉa", "𐐀𐐨", "か\u3099"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseUsername(s)
		if err != nil {
			return
		}
		again, err := parseUsername(u.key)
		if err != nil || again.key != u.key {
			t.Errorf("%q has the key %q, which has the key %q (%v)", s, u.key, again.key, err)
		}
		if shown, err := parseUsername(u.display); err != nil || shown.key != u.key || shown.skeleton != u.skeleton {
			t.Errorf("%q is shown as %q, which is another name: %+v (%v)", s, u.display, shown, err)
		}
		for _, text := range []string{u.key, u.display} {
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }) || strings.ContainsAny(text, "@,:/\"<>") {
				t.Errorf("%q has become %q", s, text)
			}
		}
		if u.skeleton == "" {
			t.Errorf("%q has no skeleton", s)
		}
		if _, err := parseEmail(s); err == nil {
			t.Errorf("%q is both a username and an e-mail address", s)
		}
	})
}

func FuzzParseEmail(f *testing.F) {
	for _, s := range []string{"ana@example.com", "A@B.C", "x@ü.de", "ﷺ@x.y", "a@b。c", "a@xn--a.b", "K@b.c", "a@ﬀ.com", "ΣΑΣ@b.c", "a@\u200d.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseEmail(s)
		if err != nil {
			return
		}
		if again, err := parseEmail(e.key); err != nil || again.key != e.key {
			t.Errorf("%q has the key %q, which has the key %q (%v)", s, e.key, again.key, err)
		}
		for _, text := range []string{e.key, e.display} {
			if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) ||
				strings.Count(text, "@") != 1 || strings.ContainsAny(text, ",:;\"<>()[]\\") {
				t.Errorf("%q has become %q", s, text)
			}
		}
		if _, err := parseUsername(s); err == nil {
			t.Errorf("%q is both a username and an e-mail address", s)
		}
	})
}
