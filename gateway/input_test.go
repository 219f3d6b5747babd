package gateway

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"portcullis/identity"
	"portcullis/policy"
)

// What is no good gets a 4xx from every endpoint that takes a body, no answer
// holds what was sent, and nothing is stored.
func TestBadBodies(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) {
		rules, err := policy.Parse("test.csv", []byte(testPolicy+"p, anonymous, /auth/*, POST, allow\n"))
		if err != nil {
			t.Fatal(err)
		}
		c.Policy = rules
	})
	admin := "Authorization: Bearer " + e.token("ada", "admin")
	ana := e.user("ana")
	bodies := map[string]struct {
		mediaType, body string
		status          int
		code            code
	}{
		"operator objects":  {"", `{"username":{"$ne":null},"email":{"$gt":""},"password":{"$ne":1},"refresh_token":{"$ne":1},"token":{"$ne":1},"new_password":{"$ne":1},"roles":{"$ne":1}}`, 400, ""},
		"an operator":       {"", `{"$where":"sleep(1000)"}`, 400, codeInvalidJSON},
		"NUL":               {"", "{\"username\":\"a\x00b\"}", 400, codeInvalidJSON},
		"invalid UTF-8":     {"", "{\"username\":\"\xff\xfe\",\"email\":\"\xc3\",\"token\":\"\xed\xa0\x80\"}", 400, codeInvalidJSON},
		"half a surrogate":  {"", `{"username":"\ud800","email":"\ud800","token":"\udfff"}`, 400, codeInvalidJSON},
		"duplicate keys":    {"", `{"username":"x","username":"ana","email":"x","email":"y","password":"a","password":"b","token":"a","token":"b","roles":[],"roles":["admin"],"refresh_token":"a","refresh_token":"b","current_password":"a","current_password":"b"}`, 400, codeInvalidJSON},
		"other case":        {"", `{"USERNAME":"x","Email":"x","Token":"x","Roles":["admin"],"Refresh_Token":"x","Current_Password":"x"}`, 400, codeInvalidJSON},
		"depth 10,000":      {"", strings.Repeat(`{"username":`, 10000) + "1" + strings.Repeat("}", 10000), 413, codeBodyTooLarge},
		"depth 10,000 []":   {"", `{"email":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + "}", 400, ""},
		"a list":            {"", `[{"username":"x"}]`, 400, codeInvalidJSON},
		"null":              {"", "null", 400, codeInvalidJSON},
		"a string":          {"", `"x"`, 400, codeInvalidJSON},
		"two values":        {"", `{} {}`, 400, codeInvalidJSON},
		"a comment":         {"", `{/**/}`, 400, codeInvalidJSON},
		"a byte order mark": {"", "\ufeff{}", 400, codeInvalidJSON},
		"a half":            {"", `{"username":"x`, 400, codeInvalidJSON},
		"nothing":           {"", "", 400, codeInvalidJSON},
		"10 MB":             {"", `{"username":"` + strings.Repeat("x", 10<<20) + `"}`, 413, codeBodyTooLarge},
		"no type":           {"-", `{"username":"x"}`, 415, codeUnsupportedMedia},
		"text":              {"text/plain", `{"username":"x"}`, 415, codeUnsupportedMedia},
		"almost JSON":       {"application/jsonp", `{"username":"x"}`, 415, codeUnsupportedMedia},
		"XML":               {"application/xml", `<username>x</username>`, 415, codeUnsupportedMedia},
		"what is ours":      {"", `{"id":"1","is_active":true,"email_verified":true,"password_hash":"x","epoch":7,"version":7}`, 400, codeInvalidJSON},
	}
	endpoints := map[string]struct{ method, path, auth string }{
		"register":   {"POST", "/auth/register", ""},
		"login":      {"POST", "/auth/login", ""},
		"refresh":    {"POST", "/auth/refresh", ""},
		"forgot":     {"POST", "/auth/forgot-password", admin},
		"reset":      {"POST", "/auth/reset-password", admin},
		"verify":     {"POST", "/auth/verify-email", admin},
		"me":         {"PATCH", "/auth/me", admin},
		"password":   {"PUT", "/auth/me/password", admin},
		"change":     {"PATCH", "/auth/users/" + ana.ID, admin},
		"registered": {"POST", "/auth/register", admin},
	}
	before := e.users()
	for name, b := range bodies {
		for at, ep := range endpoints {
			fields := []string{"Host: gateway.test", fmt.Sprintf("Content-Length: %d", len(b.body))}
			if b.mediaType == "" {
				fields = append(fields, "Content-Type: application/json")
			} else if b.mediaType != "-" {
				fields = append(fields, "Content-Type: "+b.mediaType)
			}
			if ep.auth != "" {
				fields = append(fields, ep.auth)
			}
			res, body := e.ask(ep.method + " " + ep.path + " HTTP/1.1\r\n" + strings.Join(append(fields, "", ""), "\r\n") + b.body)
			got := res.Header.Get("X-Gateway-Error")
			if res.StatusCode != b.status || b.code != "" && got != string(b.code) || got == "" {
				t.Errorf("%s at %s: %d %s, want %d %s\n%s", name, at, res.StatusCode, got, b.status, b.code, body)
			}
			for _, part := range []string{"$ne", "$where", "sleep", "\xff", "xxxx", "goroutine", "identity."} {
				if strings.Contains(body, part) {
					t.Errorf("%s at %s: the answer holds %q: %s", name, at, part, body)
				}
			}
		}
	}
	if after := e.users(); !reflect.DeepEqual(before, after) {
		t.Errorf("stored: %v, before %v", after, before)
	}
	for _, part := range []string{"$ne", "$where", "sleep(", "xxxx"} {
		if strings.Contains(e.log.String(), part) {
			t.Errorf("the log holds %q", part)
		}
	}
}

// Whatever somebody adds to a registration, an ordinary user comes of it or nothing.
func TestARegistrationGivesNothingAway(t *testing.T) {
	e := startGateway(t)
	account := `"username":"eve","email":"eve@example.com","password":"correct horse"`
	for member, want := range map[string]struct {
		status int
		code   code
	}{
		`"role":"admin"`:             {403, codeRoleNotAllowed},
		`"role":"superadmin"`:        {403, codeRoleNotAllowed},
		`"role":"nonsense"`:          {403, codeRoleNotAllowed},
		`"role":["admin"]`:           {400, codeValidationFailed},
		`"role":null,"role":"admin"`: {400, codeInvalidJSON},
		`"roles":["admin"]`:          {400, codeInvalidJSON},
		`"is_active":true`:           {400, codeInvalidJSON},
		`"id":"0198c0de"`:            {400, codeInvalidJSON},
		`"_id":"0198c0de"`:           {400, codeInvalidJSON},
		`"tenant":"acme"`:            {400, codeInvalidJSON},
		`"email_verified":true`:      {400, codeInvalidJSON},
		`"password_hash":"$2a$04$"`:  {400, codeInvalidJSON},
		`"__proto__":{}`:             {400, codeInvalidJSON},
	} {
		body := "{" + account + "," + member + "}"
		e.is(member, fmt.Sprintf("POST /auth/register HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body), want.status, want.code)
	}
	if users := e.users(); len(users) != 0 {
		t.Errorf("stored: %v", users)
	}
}

// user is a stored account.
func (e *testGateway) user(name string) identity.User {
	e.t.Helper()
	u, err := e.service.CreateUser(context.Background(), identity.NewUser{Username: name, Email: name + "@example.com", Password: "correct horse"}, identity.Client{})
	if err != nil {
		e.t.Fatal(err)
	}
	return u
}

// users are all that are stored, but for what changes by itself.
func (e *testGateway) users() []identity.User {
	e.t.Helper()
	users, _, err := e.service.Users(context.Background(), nil, "", "", 1000)
	if err != nil {
		e.t.Fatal(err)
	}
	return users
}
