package main

import (
	"os"
	"strings"
	"testing"
)

func TestColours(t *testing.T) {
	const green, red, yellow, end = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
	for text, want := range map[string]string{
		"ok      routes\nWRONG   upstreams\nwarning x\n": green + "ok" + end + "      routes\n" + red + "WRONG" + end + "   upstreams\n" + yellow + "warning" + end + " x\n",
		"GET /tasks is allowed\n":                        "GET /tasks" + green + " is allowed" + end + "\n",
		"GET /tasks is denied\n":                         "GET /tasks" + red + " is denied" + end + "\n",
		"3 passed, 0 failed\n":                           green + "3 passed" + end + ", 0 failed\n",
		"0 passed, 12 failed\n":                          "0 passed, " + red + "12 failed" + end + "\n",
		"role:a gains GET /x\nrole:b loses GET /x\n":     "role:a" + green + " gains " + end + "GET /x\nrole:b" + red + " loses " + end + "GET /x\n",
		"f:1: error: a\nf:2: warning: b\n":               "f:1" + red + ": error: " + end + "a\nf:2" + yellow + ": warning: " + end + "b\n",
		"what is allowed, ok\n":                          "what is allowed, ok\n",
	} {
		if got := colour(text); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Whatever is not a terminal gets what people wrote, and nothing else.
func TestColoursAreForTerminals(t *testing.T) {
	s := &shared{}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if s.coloured(w) || s.coloured(new(strings.Builder)) {
		t.Error("a pipe gets colours")
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminal to be had:", err)
	}
	defer tty.Close()
	for env, want := range map[string]bool{"": true, "NO_COLOR=": true, "NO_COLOR=1": false, "TERM=xterm": true, "TERM=dumb": false} {
		if got := (&shared{environment: environment{env: []string{env}}}).coloured(tty); got != want {
			t.Errorf("%q: %v, want %v", env, got, want)
		}
	}
}
