package main

import (
	"fmt"
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
			fmt.Printf("no %%q\n", err)
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
	// The request is whatever has getHeaders: nothing else of it is asked.
	javaProgram = `import java.io.*;
import java.lang.reflect.Proxy;
import java.util.*;
import javax.servlet.ServletException;
import javax.servlet.http.HttpServletRequest;
import org.jose4j.json.JsonUtil;
import org.jose4j.jwa.AlgorithmConstraints.ConstraintType;
import org.jose4j.jwk.HttpsJwks;
import org.jose4j.jwt.JwtClaims;
import org.jose4j.jwt.consumer.*;
import org.jose4j.keys.resolvers.HttpsJwksVerificationKeyResolver;

class Main {
%s
    public static void main(String[] args) throws Exception {
        var verifier = newVerifier(args[0], args[1], args[2]);
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            var fields = (List<?>) JsonUtil.parseJson("{\"fields\":" + line + "}").get("fields");
            var request = (HttpServletRequest) Proxy.newProxyInstance(Main.class.getClassLoader(), new Class<?>[] {HttpServletRequest.class},
                (proxy, method, given) -> "X-Identity-Assertion".equals(given[0]) ? Collections.enumeration(fields) : null);
            try {
                System.out.println("ok " + caller(verifier, request).getSubject());
            } catch (InvalidJwtException | ServletException e) {
                System.out.println("no " + e.getMessage().replace('\n', ' '));
            }
        }
    }
}
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

	a := &forger{issuer: "http://" + i.edge, good: good, accessToken: token, subject: me["id"].(string), key: signingKey(t, filepath.Join(filepath.Dir(i.dir), "keys"))}
	t.Run("go", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "main.go"), fmt.Sprintf(goProgram, verifierOf(t, "go")))
		a.against(t, a.program(t, exec.Command("go", "run", filepath.Join(dir, "main.go"))))
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
		a.against(t, a.program(t, exec.Command("node", filepath.Join(dir, "main.mjs"))))
	})
	t.Run("python", func(t *testing.T) {
		need(t, "REQUIRE_PYTHON", "python3")
		python := "python3"
		if exec.Command(python, "-c", "import jwt, cryptography").Run() != nil {
			python = "/usr/bin/python3" // the distribution's, beside another one
		}
		if exec.Command(python, "-c", "import jwt, cryptography").Run() != nil {
			if os.Getenv("REQUIRE_PYTHON") != "" {
				t.Fatal("REQUIRE_PYTHON is set, but PyJWT or cryptography is not installed")
			}
			t.Skip("PyJWT or cryptography is not installed: skipped")
		}
		dir := t.TempDir()
		write(t, filepath.Join(dir, "main.py"), fmt.Sprintf(pythonProgram, verifierOf(t, "python")))
		a.against(t, a.program(t, exec.Command(python, filepath.Join(dir, "main.py"))))
	})
	t.Run("java", func(t *testing.T) {
		path := os.Getenv("JOSE4J")
		if path == "" {
			t.Skip("JOSE4J is not set to a class path with jose4j, slf4j and the servlet API: skipped")
		}
		need(t, "JOSE4J", "javac", "java")
		dir := t.TempDir()
		write(t, filepath.Join(dir, "Main.java"), fmt.Sprintf(javaProgram, verifierOf(t, "java")))
		if out, err := exec.Command("javac", "-cp", path, "-d", dir, filepath.Join(dir, "Main.java")).CombinedOutput(); err != nil {
			t.Fatalf("javac: %v\n%s", err, out)
		}
		a.against(t, a.program(t, exec.Command("java", "-cp", path+string(os.PathListSeparator)+dir, "Main")))
	})
	t.Run("the task manager", func(t *testing.T) { a.against(t, a.taskManager(t)) })
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
