package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

// runMain makes the test binary the command itself, for tests of what only a
// process has: signals and an exit status.
const runMain = "TASKMANAGER_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func noEnvironment(string) string { return "" }

func TestHelpGoesToStdoutAndIsNoError(t *testing.T) {
	for _, flag := range []string{"-h", "-help", "--help"} {
		var out, log bytes.Buffer
		if err := run(t.Context(), []string{flag}, noEnvironment, &out, &log); err != nil {
			t.Errorf("%s: %v", flag, err)
		}
		for _, want := range []string{"-listen", "-store", "-jwks", "-issuer", "-audience", "TASKS_STORE", "Example:"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s does not mention %s", flag, want)
			}
		}
		if log.Len() != 0 {
			t.Errorf("%s logs %s", flag, log.String())
		}
	}
}

func TestWrongCallIsAnErrorThatRepeatsNoSecret(t *testing.T) {
	for name, args := range map[string][]string{
		"an unknown flag":           {"-nonsense"},
		"an argument":               {"mongodb://u:hunter2@localhost"},
		"no address":                {"-listen", ""},
		"an address without a port": {"-listen", "localhost"},
		"no store":                  {"-store", ""},
		"a store of another kind":   {"-store", "postgres://u:hunter2@localhost"},
		"a file without a name":     {"-store", "file:"},
		"a file URL":                {"-store", "file://data/tasks.db"},
		"a path":                    {"-store", "./tasks.db"},
		"a JWKS that is no URL":     {"-jwks", "localhost:8080"},
		"no JWKS":                   {"-jwks", ""},
		"no issuer":                 {"-issuer", ""},
		"no audience":               {"-audience", ""},
	} {
		dir := t.TempDir()
		t.Chdir(dir)
		err := run(t.Context(), args, noEnvironment, io.Discard, io.Discard)
		if !errors.Is(err, errUsage) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s left %v behind, %v", name, left, err)
		}
	}
}

func TestFlagsWinOverTheEnvironmentAndThatOverTheDefaults(t *testing.T) {
	getenv := func(name string) string {
		return map[string]string{"TASKS_LISTEN": "127.0.0.1:1", "TASKS_AUDIENCE": "other", "TASKS_ISSUER": ""}[name]
	}
	o, err := parseOptions([]string{"-listen", "127.0.0.1:2"}, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if o.listen != "127.0.0.1:2" || o.verifier.Audience != "other" || o.verifier.Issuer != "http://localhost:8080" ||
		o.store != "file:./data/tasks.db" || o.verifier.JWKS != "http://localhost:8080/.well-known/jwks.json" {
		t.Errorf("%+v", o)
	}
}

func TestStartsBeforeTheGatewayServesAndStops(t *testing.T) {
	gateway := newGateway(t)
	store := "file:" + filepath.Join(t.TempDir(), "data", "tasks.db")

	p := start(t, gateway, store)
	if got := p.get(t, "/healthz", ""); got.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %d", got.StatusCode)
	}
	if got := p.get(t, "/tasks", gateway.assertion(t)); got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" {
		t.Errorf("before the gateway is up: %d", got.StatusCode)
	}
	gateway.Start()
	until(t, func() bool { return p.get(t, "/tasks", gateway.assertion(t)).StatusCode == http.StatusOK })
	if got := p.post(t, gateway.assertion(t), strings.NewReader(`{"title":"remember me"}`)); got.StatusCode != http.StatusCreated {
		t.Errorf("creating a task: %d", got.StatusCode)
	}
	p.stop(t)
	if _, err := net.Dial("tcp", p.address); err == nil {
		t.Error("it still listens")
	}

	p = start(t, gateway, store)
	res := p.get(t, "/tasks", gateway.assertion(t))
	if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), "remember me") {
		t.Errorf("after a restart: %s, %v", body, err)
	}
	p.stop(t)
}

func TestRequestUnderWayIsAnsweredBeforeTheEnd(t *testing.T) {
	gateway := newGateway(t)
	gateway.Start()
	p := start(t, gateway, "file:"+filepath.Join(t.TempDir(), "tasks.db"))
	body, rest := io.Pipe()
	answer := make(chan int, 1)
	go func() { answer <- p.post(t, gateway.assertion(t), body).StatusCode }()
	if _, err := io.WriteString(rest, `{"title":`); err != nil { // taken: the request is on its way
		t.Fatal(err)
	}
	// The keys are asked for by the handler, which has begun then.
	until(t, func() bool { return gateway.asked() })
	p.cancel()
	until(t, func() bool { return strings.Contains(p.log.String(), "shutting down") })
	if _, err := io.WriteString(rest, `"just in time"}`); err != nil {
		t.Fatal(err)
	}
	if err := rest.Close(); err != nil {
		t.Fatal(err)
	}
	if status := <-answer; status != http.StatusCreated {
		t.Errorf("status %d, want 201", status)
	}
	p.stop(t)
}

func TestWhatItNeedsAndDoesNotGetIsAnError(t *testing.T) {
	gateway := newGateway(t)
	store := "file:" + filepath.Join(t.TempDir(), "tasks.db")
	p := start(t, gateway, store)
	defer p.stop(t)
	for name, args := range map[string][]string{
		"the address": {"-listen", p.address, "-store", "file:" + filepath.Join(t.TempDir(), "tasks.db")},
		"the store":   {"-listen", "127.0.0.1:0", "-store", store},
		"the server":  {"-listen", "127.0.0.1:0", "-store", "mongodb://127.0.0.1:1"},
	} {
		if err := run(t.Context(), args, noEnvironment, io.Discard, io.Discard); err == nil || errors.Is(err, errUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProcessEndsOnSignalsWithStatusZero(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(signal.String(), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), runMain+"=1", "TASKS_LISTEN=127.0.0.1:0", "TASKS_STORE=file:"+filepath.Join(t.TempDir(), "tasks.db"))
			log, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(log).ReadString('\n'); err != nil || !strings.Contains(line, "listening") {
				t.Errorf("first line %q, %v", line, err)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v, want exit status 0", err)
			}
		})
	}
	t.Run("and with 2 when it was called wrongly", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-nonsense")
		cmd.Env = append(os.Environ(), runMain+"=1")
		var exit *exec.ExitError
		if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("%v, want exit status 2", err)
		}
	})
}

// gateway serves keys, once it is started, and signs assertions.
type gateway struct {
	*httptest.Server
	private ed25519.PrivateKey
	fetched chan struct{} // closed when the keys have been asked for
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{private: private, fetched: make(chan struct{})}
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !g.asked() {
			close(g.fetched)
		}
		x := base64.RawURLEncoding.EncodeToString(public)
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"k","x":%q}]}`, x)
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) asked() bool {
	select {
	case <-g.fetched:
		return true
	default:
		return false
	}
}

func (g *gateway) assertion(t *testing.T) string {
	t.Helper()
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": "test", "aud": "tasks", "sub": "ann", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	})
	token.Header["typ"], token.Header["kid"] = "identity-assertion+jwt", "k"
	signed, err := token.SignedString(g.private)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// program is a run() under way.
type program struct {
	address string
	log     *syncBuffer
	cancel  context.CancelFunc
	ended   chan error
}

func start(t *testing.T, g *gateway, store string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &program{log: &syncBuffer{wrote: make(chan struct{}, 1)}, cancel: cancel, ended: make(chan error, 1)}
	args := []string{"-listen", "127.0.0.1:0", "-store", store, "-issuer", "test", "-jwks", "http://" + g.Listener.Addr().String()}
	go func() { p.ended <- run(ctx, args, noEnvironment, io.Discard, p.log) }()
	select {
	case <-p.log.wrote:
	case err := <-p.ended:
		t.Fatal(err)
	}
	var line struct{ Msg, Address string }
	if err := json.Unmarshal([]byte(p.log.String()), &line); err != nil || line.Msg != "listening" {
		t.Fatalf("first line %s, %v", p.log, err)
	}
	p.address = line.Address
	return p
}

// stop ends the program, which must do so in an orderly way and soon.
func (p *program) stop(t *testing.T) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections()
	p.cancel()
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(shutdownTimeout / 2):
		t.Fatal("it does not end")
	}
}

func (p *program) get(t *testing.T, path, assertion string) *http.Response {
	t.Helper()
	return p.do(t, http.MethodGet, path, assertion, nil)
}

func (p *program) post(t *testing.T, assertion string, body io.Reader) *http.Response {
	t.Helper()
	return p.do(t, http.MethodPost, "/tasks", assertion, body)
}

func (p *program) do(t *testing.T, method, path, assertion string, body io.Reader) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.address+path, body)
	if err != nil {
		t.Error(err)
		return &http.Response{}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Identity-Assertion", assertion)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return &http.Response{}
	}
	defer res.Body.Close()
	whole, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	res.Body = io.NopCloser(bytes.NewReader(whole))
	return res
}

func until(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come about")
		}
	}
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	wrote chan struct{} // has something after the first write
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.wrote <- struct{}{}:
	default:
	}
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
