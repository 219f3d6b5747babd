package gateway

import (
	"bytes"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestCanonicalPathIsTakenAsItIs(t *testing.T) {
	for path, decoded := range map[string]string{
		"/":                  "/",
		"/tasks":             "/tasks",
		"/tasks/":            "/tasks/",
		"/a/b/c":             "/a/b/c",
		"/.well-known/x":     "/.well-known/x",
		"/a/...":             "/a/...",
		"/a@b:c,d=e+f!$&'()": "/a@b:c,d=e+f!$&'()",
		"/a%40b":             "/a@b",
		"/a%20b":             "/a b",
		"/caf%C3%A9":         "/café",
		"/100%25":            "/100%",
		"/100%25-x":          "/100%-x",
		"/a%3Fb":             "/a?b",
		"/a%23b":             "/a#b",
	} {
		got, err := canonicalPath(nil, []byte(path))
		if err != nil || string(got) != decoded {
			t.Errorf("%s: got %q, %v; want %q", path, got, err, decoded)
		}
	}
}

func TestPathWithTwoReadingsIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		path string
		want error
	}{
		"empty":                            {"", errPathForm},
		"asterisk form":                    {"*", errPathForm},
		"absolute form":                    {"http://host/tasks", errPathForm},
		"authority form":                   {"host:80", errPathForm},
		"dot segment":                      {"/a/./b", errPathSegment},
		"dot-dot segment":                  {"/a/../admin", errPathSegment},
		"dot-dot at the end":               {"/a/..", errPathSegment},
		"dot at the end":                   {"/a/.", errPathSegment},
		"double slash":                     {"//admin", errPathSegment},
		"double slash inside":              {"/a//b", errPathSegment},
		"double slash at the end":          {"/a//", errPathSegment},
		"backslash":                        {`/a\..\admin`, errPathByte},
		"path parameter":                   {"/admin;x=1", errPathByte},
		"parameter on a dot-dot segment":   {"/public/..;/admin", errPathByte},
		"space":                            {"/a b", errPathByte},
		"control character":                {"/a\x01", errPathByte},
		"NUL":                              {"/a\x00", errPathByte},
		"DEL":                              {"/a\x7f", errPathByte},
		"raw UTF-8":                        {"/café", errPathByte},
		"quote":                            {`/a"b`, errPathByte},
		"fragment":                         {"/a#b", errPathByte},
		"encoded unreserved letter":        {"/%61dmin", errPathEncoding},
		"encoded dot":                      {"/%2E%2E/admin", errPathEncoding},
		"encoded slash":                    {"/a%2Fb", errPathEncoding},
		"encoded slash in lower case":      {"/a%2fb", errPathEncoding},
		"encoded backslash":                {"/a%5Cb", errPathEncoding},
		"encoded semicolon":                {"/a%3Bb", errPathEncoding},
		"lower-case hexadecimal":           {"/caf%c3%a9", errPathEncoding},
		"encoded NUL":                      {"/a%00", errPathEncoding},
		"encoded line feed":                {"/a%0Ab", errPathEncoding},
		"encoded carriage return":          {"/a%0D", errPathEncoding},
		"encoded DEL":                      {"/a%7F", errPathEncoding},
		"double encoding":                  {"/%252E%252E/admin", errPathEncoding},
		"double encoding in lower case":    {"/%252e", errPathEncoding},
		"double encoding in two steps":     {"/%25%32%45", errPathEncoding},
		"encoded percent before encoding":  {"/%25%C3%A9", errPathEncoding},
		"truncated encoding":               {"/a%4", errPathEncoding},
		"percent alone":                    {"/a%", errPathEncoding},
		"no hexadecimal":                   {"/a%GG", errPathEncoding},
		"Unicode escape of old servers":    {"/a%u002f", errPathEncoding},
		"invalid UTF-8":                    {"/a%FF", errPathEncoding},
		"overlong slash":                   {"/a%C0%AF", errPathEncoding},
		"encoded surrogate":                {"/a%ED%A0%80", errPathEncoding},
		"zero-width space":                 {"/a%E2%80%8B", errPathEncoding},
		"line separator":                   {"/a%E2%80%A8", errPathEncoding},
		"C1 control character":             {"/a%C2%85", errPathEncoding},
		"right-to-left override":           {"/a%E2%80%AE", errPathEncoding},
		"dot segment hidden by a trailing": {"/a/../", errPathSegment},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := canonicalPath(nil, []byte(tc.path))
			if !errors.Is(err, tc.want) {
				t.Errorf("%q: got %q, %v; want %v", tc.path, got, err, tc.want)
			}
		})
	}
}

// What is accepted must mean the same to a server that decodes, to one that
// decodes and cleans, and to one that decodes twice.
func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/tasks/9", "/a%20b", "/100%25", "/%2e%2e/", "/a//b", "/a;b", "/caf%C3%A9"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		decoded, err := canonicalPath(nil, path)
		if err != nil {
			return
		}
		once, err := url.PathUnescape(string(path))
		if err != nil || once != string(decoded) {
			t.Fatalf("%q: net/url reads %q, %v; we read %q", path, once, err, decoded)
		}
		if twice, err := url.PathUnescape(once); err == nil && twice != once {
			t.Fatalf("%q: decoded twice it is %q", path, twice)
		}
		segments := strings.Split(once[1:], "/")
		for i, s := range segments {
			if s == "." || s == ".." || s == "" && i < len(segments)-1 {
				t.Fatalf("%q: segment %q", path, s)
			}
		}
		if strings.Count(once, "/") != bytes.Count(path, []byte("/")) {
			t.Fatalf("%q: slashes differ after decoding", path)
		}
		if strings.ContainsAny(once, "\\;\x00\r\n") {
			t.Fatalf("%q: decodes to %q", path, once)
		}
	})
}

// What tools ask about is what a client could have typed.
func TestCanonicalPathOfWhatSomebodyTypes(t *testing.T) {
	for _, c := range []struct{ typed, want string }{
		{"/tasks/9", "/tasks/9"},
		{"/a%20b", "/a b"},
		{"/a b", "/a b"},
		{"/tä", "/tä"},
		{"/t%C3%A4", "/tä"},
		{"/a%2fb", ""},
		{"/a\\b", ""},
		{"/a;b", ""},
		{"/a\x00", ""},
		{"/a%", ""},
		{"/a/../b", ""},
		{"tasks", ""},
		{"", ""},
	} {
		got, err := CanonicalPath(c.typed)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%q: %q, %v", c.typed, got, err)
		}
	}
}

func TestEndpointsAreBelowThePrefix(t *testing.T) {
	for _, prefix := range []string{"/auth", "/a/b", ""} {
		all, err := Endpoints(prefix)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []Endpoint{{"POST", prefix + "/login"}, {"GET", jwksPath}, {"PATCH", prefix + "/users/:id"}, {"GET", prefix + "/docs"}} {
			if !slices.Contains(all, want) {
				t.Errorf("prefix %q: %v is missing", prefix, want)
			}
		}
	}
	if _, err := Endpoints("/a/"); err == nil {
		t.Error("no error for a prefix that is none")
	}
}
