package gateway

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// findProxy returns the path of a proxy's binary, and skips the test where there is
// none and REQUIRE_NAME does not ask for one.
func findProxy(t *testing.T, name string) string {
	t.Helper()
	for _, file := range []string{name, "/usr/sbin/" + name} { // which not everybody searches
		if found, err := exec.LookPath(file); err == nil {
			return found
		}
	}
	if require := "REQUIRE_" + strings.ToUpper(name); os.Getenv(require) != "" {
		t.Fatalf("%s is set, but there is no %s", require, name)
	}
	t.Skipf("there is no %s: skipped", name)
	return ""
}

// documented returns the README's first configuration in a language after some text, with
// each old text, which must be in it, replaced by its new one.
func documented(t *testing.T, after, language string, oldnew ...string) string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), after)
	_, rest, _ = strings.Cut(rest, "```"+language+"\n")
	config, _, ok := strings.Cut(rest, "```\n")
	for i := 0; i < len(oldnew); i += 2 {
		ok = ok && strings.Contains(config, oldnew[i])
	}
	if !ok {
		t.Fatalf("the README has no %s after %q with each of %q", language, after, oldnew)
	}
	return strings.NewReplacer(oldnew...).Replace(config)
}

// freeAddr is an address of ours that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String()
}

// runProxy runs cmd until the test ends, and returns when it listens on addr.
func runProxy(t *testing.T, cmd *exec.Cmd, addr string) {
	t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }() // it is killed
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("%s says:\n%s", cmd.Path, log.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-exited:
			t.Fatalf("%s ended", cmd.Path)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen", cmd.Path)
		}
	}
}
