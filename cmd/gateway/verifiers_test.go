package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The verifiers that upstream/README.md shows are run as they stand there, against
// a gateway that makes the assertions.

// verifierOf takes the block of a language out of upstream/README.md.
func verifierOf(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("../../upstream/README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindStringSubmatch(string(text))
	if block == nil {
		t.Fatalf("upstream/README.md has nothing in %s", language)
	}
	return block[1]
}

// Around each verifier goes a program that reads a JSON array of header values a
// line, and answers each line with what came of it.
const (
	goProgram = `package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

%s
func main() {
	caller, err := NewCaller(context.Background(), os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		panic(err)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var fields []string
		_ = json.Unmarshal(lines.Bytes(), &fields)
		if c, err := caller(&http.Request{Header: http.Header{"X-Identity-Assertion": fields}}); err != nil {
			fmt.Println("no", err)
		} else {
			fmt.Println("ok", c.Subject)
		}
	}
}
`
	nodeProgram = `import { createInterface } from 'node:readline'
%s
const caller = newCaller(...process.argv.slice(2))
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log('ok', (await caller({ headersDistinct: { 'x-identity-assertion': JSON.parse(line) } })).sub)
  } catch (err) {
    console.log('no', err.message)
  }
}
`
	pythonProgram = `%s
import json, sys
caller = new_caller(*sys.argv[1:])
for line in sys.stdin:
    try:
        print("ok", caller(json.loads(line))["sub"], flush=True)
    except jwt.PyJWTError as err:
        print("no", err, flush=True)
`
)

func TestVerifiersOfTheUpstreamsReadme(t *testing.T) {
	t.Parallel()
	asserted := make(chan string, 1)
	i := &instance{t: t, dir: filepath.Join(t.TempDir(), "a"), tasks: serveHTTP(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asserted <- r.Header.Get("X-Identity-Assertion")
	}))}
	i.start()
	defer i.stop()
	r := &replica{t: t, addr: i.edge}
	token := r.signIn("ana")
	_, me, _ := r.ask("GET", "/auth/me", token, "")
	if status, _, _ := r.ask("GET", "/tasks", token, ""); status != 200 {
		t.Fatalf("GET /tasks: %d", status)
	}
	good := <-asserted

	t.Run("go", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "main.go"), fmt.Sprintf(goProgram, verifierOf(t, "go")))
		verifies(t, exec.Command("go", "run", filepath.Join(dir, "main.go")), i, good, token, me["id"].(string))
	})
	t.Run("node", func(t *testing.T) {
		need(t, "REQUIRE_NODE", "node", "npm")
		dir := t.TempDir()
		install := exec.Command("npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts",
			"--fetch-retries=0", "--fetch-timeout=10000", "jose@6.2.18")
		if out, err := install.CombinedOutput(); err != nil {
			if os.Getenv("REQUIRE_NODE") == "" {
				t.Skip("npm cannot install jose: skipped")
			}
			t.Fatalf("npm: %v\n%s", err, out)
		}
		write(t, filepath.Join(dir, "main.mjs"), fmt.Sprintf(nodeProgram, verifierOf(t, "js")))
		verifies(t, exec.Command("node", filepath.Join(dir, "main.mjs")), i, good, token, me["id"].(string))
	})
	t.Run("python", func(t *testing.T) {
		need(t, "REQUIRE_PYTHON", "python3")
		python := "python3"
		if exec.Command(python, "-c", "import jwt, cryptography").Run() != nil {
			python = "/usr/bin/python3" // the distribution's, beside another one
		}
		if exec.Command(python, "-c", "import jwt, cryptography").Run() != nil {
			t.Skip("PyJWT is not installed: skipped")
		}
		dir := t.TempDir()
		write(t, filepath.Join(dir, "main.py"), fmt.Sprintf(pythonProgram, verifierOf(t, "python")))
		verifies(t, exec.Command(python, filepath.Join(dir, "main.py")), i, good, token, me["id"].(string))
	})
	for _, language := range []string{"go", "js", "python", "java"} {
		block := verifierOf(t, language)
		if _, code, ok := strings.Cut(block, "\n\nfunc "); ok {
			block = code // the claims are what a service likes
		}
		if n := strings.Count(strings.TrimSpace(block), "\n") + 1; n > 20 {
			t.Errorf("%s: %d lines, more than 20", language, n)
		}
	}
}

// verifies runs a verifier over assertions of which one is good.
func verifies(t *testing.T, cmd *exec.Cmd, i *instance, good, accessToken, subject string) {
	t.Helper()
	head, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	flipped := signature[:10] + string(signature[10]^1) + signature[11:]
	cases := []struct {
		name     string
		audience string
		fields   []string
		ok       bool
	}{
		{"a good one", "tasks", []string{good}, true},
		{"the same again", "tasks", []string{good}, true},
		{"none", "tasks", []string{}, false},
		{"two", "tasks", []string{good, good}, false},
		{"an empty one", "tasks", []string{""}, false},
		{"a client's access token, of the same keys", "api", []string{accessToken}, false},
		{"for another service", "billing", []string{good}, false},
		{"a broken signature", "tasks", []string{head + "." + payload + "." + flipped}, false},
		{"no signature", "tasks", []string{head + "." + payload + "."}, false},
		{"no signature, and says so", "tasks", []string{"eyJhbGciOiJub25lIiwidHlwIjoiaWRlbnRpdHktYXNzZXJ0aW9uK2p3dCJ9." + payload + "."}, false},
		{"another payload", "tasks", []string{head + ".eyJzdWIiOiJyb290In0." + signature}, false},
		{"not a token", "tasks", []string{"ana"}, false},
	}
	for _, audience := range []string{"tasks", "api", "billing"} {
		run := *cmd
		run.Args = append(append([]string{}, cmd.Args...), "http://"+i.edge+jwksPath, "http://localhost:8080", audience)
		in, err := run.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := run.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		run.Stderr = os.Stderr
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		answers := bufio.NewReader(out)
		for _, c := range cases {
			if c.audience != audience {
				continue
			}
			line, err := json.Marshal(c.fields)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.Write(append(line, '\n')); err != nil {
				t.Fatal(err)
			}
			got, err := answers.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if want := "ok " + subject + "\n"; (got == want) != c.ok || !c.ok && !strings.HasPrefix(got, "no ") {
				t.Errorf("%s: %s", c.name, got)
			}
		}
		_ = in.Close()
		_, _ = io.Copy(io.Discard, answers)
		if err := run.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// need skips the test where a tool is missing, unless the variable says it must not.
func need(t *testing.T, variable string, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv(variable) != "" {
				t.Fatalf("%s is set, but %s is not installed", variable, tool)
			}
			t.Skipf("%s is not installed: skipped", tool)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
