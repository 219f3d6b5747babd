package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/config"
)

// A changed gateway.yaml counts however it was written, and with SIGHUP; half of
// one never does.
func TestAChangedConfigurationRunsHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) string {
		return serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"upstream":%q}`, name) }))
	}
	targets := []string{named("first"), named("second")}
	text := func(n int) string {
		return strings.NewReplacer("http://127.0.0.1:9001", "http://"+targets[n%2],
			"policy/policy.csv", root+"/policy/policy.csv", "upstream/openapi.yaml", root+"/upstream/openapi.yaml").Replace(read(t, root+"/gateway.yaml"))
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	// As Kubernetes lays it out: the file is a link into a directory that is a link.
	version := func(n int) string {
		v := filepath.Join(dir, fmt.Sprint("..", n))
		if err := os.MkdirAll(v, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(v, "gateway.yaml"), text(n))
		return v
	}
	link := func(to, name string) {
		if err := os.Symlink(to, name+".new"); err != nil {
			t.Fatal(err)
		}
		rename(t, name+".new", name)
	}
	link(version(0), filepath.Join(dir, "..data"))
	link(filepath.Join("..data", "gateway.yaml"), file)
	i := &instance{t: t, dir: filepath.Join(dir, "a"), config: file}
	i.start()
	defer i.stop()
	r := &replica{t: t, addr: i.edge}
	token := r.signIn("ana")
	upstream := func() string {
		_, answer, _ := r.ask("GET", "/tasks", token, "")
		return fmt.Sprint(answer["upstream"])
	}
	for n, step := range []struct {
		name string
		do   func(n int)
	}{
		{"as it was", func(int) {}},
		{"by a swap of links", func(n int) { link(version(n), filepath.Join(dir, "..data")) }},
		{"by a rename", func(n int) { write(t, file+".new", text(n)); rename(t, file+".new", file) }},
		{"in place", func(n int) { write(t, file, text(n)) }},
		{"in two halves", func(n int) {
			whole := text(n)
			write(t, file, whole[:strings.Index(whole, "routes:")+3])
			until(t, "half of it is refused", func() bool { return strings.Contains(i.log.String(), "reload refused") })
			if got := upstream(); got != "second" {
				t.Errorf("with half of it, the upstream is %s", got)
			}
			write(t, file, whole)
		}},
		{"with SIGHUP", func(n int) {
			write(t, file, text(n))
			if err := i.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		step.do(n)
		want := []string{"first", "second"}[n%2]
		until(t, step.name+" the upstream is the "+want, func() bool { return upstream() == want })
	}
}

// What mails are written by is not what a reload replaces: a link to an address that
// was given up would go on being mailed, and the log would say that all is well.
func TestWhatMailsAreWrittenByNeedsARestart(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*config.Identity){
		"identity.reset":  func(id *config.Identity) { id.Reset.Link = "https://id.example/reset?token={token}" },
		"identity.verify": func(id *config.Identity) { id.Verify.TTL = time.Hour },
		"identity.mail":   func(id *config.Identity) { id.Mail.From = "id@id.example" },
	} {
		var before, after config.Config
		change(&after.Identity)
		if got := needRestart(&before, &after); !slices.Equal(got, []string{name}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
