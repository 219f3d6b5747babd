package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The stories run the real binaries, as their users do. testdata/story holds
// those that are told once for each store; testdata/script the others.

// patience is how long a story waits for something that should happen at once.
const patience = 15 * time.Second

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	// Stories wait for processes far more than they compute: more of them are told at
	// a time than there are cores.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "portcullis-stories-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if raceDetector {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "portcullis/cmd/gateway", "portcullis/cmd/taskmanager")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the commands: %v\n%s", err, out)
		return 1
	}
	if err := os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func TestStories(t *testing.T) {
	t.Parallel()
	t.Run("file", func(t *testing.T) { tell(t, "testdata/story", "") })
	t.Run("mongodb", func(t *testing.T) { tell(t, "testdata/story", mongoURI(t)) })
}

func TestScripts(t *testing.T) {
	t.Parallel()
	tell(t, "testdata/script", "")
}

// mongoURI returns where MongoDB is, or skips the test.
func mongoURI(t *testing.T) string {
	t.Helper()
	uri := os.Getenv("MONGODB_URI")
	switch {
	case uri == "" && os.Getenv("REQUIRE_MONGODB") != "":
		t.Fatal("REQUIRE_MONGODB is set, but MONGODB_URI is not")
	case uri == "":
		t.Skip("MONGODB_URI is not set: skipped")
	}
	return uri
}

// tell runs the scripts of a directory. mongo is the server whose databases they
// use as stores; "" means the embedded store.
func tell(t *testing.T, dir, mongo string) {
	testscript.Run(t, testscript.Params{
		Dir:   dir,
		Setup: func(env *testscript.Env) error { return setUpStory(t, env, mongo) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": cmdStart, "end": cmdEnd, "reload": cmdReload, "http": cmdHTTP, "save": cmdSave, "mailed": cmdMailed, "shown": cmdShown,
			"await": cmdAwait, "awaitstatus": cmdAwaitStatus, "awaitbody": cmdAwaitBody,
			"workers": cmdWorkers, "signal": cmdSignal, "crash": cmdCrash, "gone": cmdGone, "kept": cmdKept,
		},
	})
}

func setUpStory(t *testing.T, env *testscript.Env, mongoServer string) error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	edge, admin, tasks := freeAddr(t), freeAddr(t), freeAddr(t)
	store, tasksStore := "file:"+filepath.Join(env.WorkDir, "data", "identity.db"), "file:"+filepath.Join(env.WorkDir, "data", "tasks.db")
	if mongoServer != "" {
		name := "story_" + strconv.FormatInt(time.Now().UnixNano(), 36)
		store, tasksStore = onDatabase(mongoServer, name), onDatabase(mongoServer, name+"_tasks")
		env.Defer(func() { dropDatabases(t, mongoServer, name, name+"_tasks") })
	}
	env.Setenv("ROOT", root)
	env.Setenv("CALLER", newCaller())
	env.Setenv("REDIS_URL", os.Getenv("REDIS_URL"))
	env.Setenv("EDGE", "http://"+edge)
	env.Setenv("ADMIN", "http://"+admin)
	env.Setenv("TASKS", "http://"+tasks)
	env.Setenv("GATEWAY_LISTEN", edge)
	env.Setenv("GATEWAY_ADMIN_LISTEN", admin)
	env.Setenv("GATEWAY_IDENTITY_STORE", store)
	env.Setenv("GATEWAY_IDENTITY_PASSWORD_COST", "4")
	env.Setenv("GATEWAY_IDENTITY_TOKENS_KEYS", filepath.Join(env.WorkDir, "data", "keys"))
	env.Setenv("GATEWAY_IDENTITY_TOKENS_ISSUER", "http://"+edge)
	env.Setenv("GATEWAY_UPSTREAMS_TASKS_TARGETS", "http://"+tasks)
	env.Setenv("TASKS_LISTEN", tasks)
	env.Setenv("TASKS_STORE", tasksStore)
	env.Setenv("TASKS_JWKS", "http://"+edge+jwksPath)
	env.Setenv("TASKS_ISSUER", "http://"+edge)
	proxy := newDescribedProxy("http://" + edge)
	env.Setenv("API", proxy.URL)
	names := make([]string, 0, len(env.Vars))
	for _, v := range env.Vars {
		name, _, _ := strings.Cut(v, "=")
		names = append(names, name)
	}
	env.Values[namesKey{}] = &names
	env.Values[processKey{}] = map[string]*process{}
	env.Values[bodyKey{}] = new([]byte)
	env.Defer(func() { proxy.finish(func(problem string) { t.Error(problem) }) })
	return nil
}

const jwksPath = "/.well-known/jwks.json"

// Keys of what a story's commands share.
type (
	processKey struct{} // map[string]*process, by name
	bodyKey    struct{} // *[]byte, of the last answer
	namesKey   struct{} // *[]string, of the environment
)

// givenAddrs are those that freeAddr has given, to tests that run at the same time.
var givenAddrs sync.Map

// freeAddr is a loopback address that was free a moment ago, and that no other test has.
func freeAddr(t *testing.T) string {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		_ = ln.Close()
		if _, given := givenAddrs.LoadOrStore(addr, true); !given {
			return addr
		}
	}
}

func onDatabase(server, name string) string {
	u, err := url.Parse(server)
	if err != nil {
		return server
	}
	u.Path = "/" + name
	return u.String()
}

func dropDatabases(t *testing.T, server string, names ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := mongo.Connect(options.Client().ApplyURI(server))
	if err != nil {
		t.Error(err)
		return
	}
	for _, name := range names {
		if err := client.Database(name).Drop(ctx); err != nil {
			t.Error(err)
		}
	}
	_ = client.Disconnect(ctx)
}

// process is a command in the background.
type process struct {
	cmd  *exec.Cmd
	out  string // the file with its standard output and error
	done chan error
}

// start NAME [VAR=VALUE...] COMMAND [ARG...] runs a command in the background, its
// output in NAME.log.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	var extra []string
	for len(args) > 1 && strings.Contains(args[1], "=") {
		extra = append(extra, args[1])
		args = append(args[:1:1], args[2:]...)
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME [VAR=VALUE...] COMMAND [ARG...]")
	}
	out, err := os.Create(ts.MkAbs(args[0] + ".log"))
	ts.Check(err)
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	p := &process{cmd: exec.Command(path, args[2:]...), out: out.Name(), done: make(chan error, 1)}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), out, out
	for _, name := range *ts.Value(namesKey{}).(*[]string) {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	p.cmd.Env = append(p.cmd.Env, extra...)
	ts.Check(p.cmd.Start())
	go func() { p.done <- p.cmd.Wait(); _ = out.Close() }()
	processes(ts)[args[0]] = p
	ts.Defer(func() {
		if processes(ts)[args[0]] == p {
			_ = p.cmd.Process.Kill()
			<-p.done
			ts.Logf("%s:\n%s", args[0], ts.ReadFile(p.out))
		}
	})
}

func processes(ts *testscript.TestScript) map[string]*process {
	return ts.Value(processKey{}).(map[string]*process)
}

// TestStoriesAreToldToTheirEnd holds that no story uses the library's own "stop", which
// ends the story and takes no notice of what stands behind it.
func TestStoriesAreToldToTheirEnd(t *testing.T) {
	stories, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(stories) == 0 {
		t.Fatal(len(stories), err)
	}
	for _, story := range stories {
		b, err := os.ReadFile(story)
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`(?m)^(! )?stop\b`).Match(b) {
			t.Errorf("%s: says stop; end is what ends a command", story)
		}
	}
}

// end NAME asks a command to end and wants it to do so well.
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	p := processes(ts)[args[0]]
	ts.Check(p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-p.done:
		delete(processes(ts), args[0])
		if (err != nil) != neg {
			ts.Fatalf("%s ended with %v:\n%s", args[0], err, ts.ReadFile(p.out))
		}
	case <-time.After(patience):
		ts.Fatalf("%s does not end", args[0])
	}
}

// reload NAME tells a gateway that its files are complete, which it would see a second
// or two later.
func cmdReload(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(processes(ts)[args[0]].cmd.Process.Signal(syscall.SIGHUP))
}

// await URL waits until a GET is answered with 200.
func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, args[0], func(status int, _ string) bool { return status == http.StatusOK })
}

// awaitstatus STATUS URL waits until a GET is answered so.
func cmdAwaitStatus(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, args[1], func(status int, _ string) bool { return strconv.Itoa(status) == args[0] })
}

// awaitbody TEXT URL waits until the answer to a GET has (with "!": has not) the text.
func cmdAwaitBody(ts *testscript.TestScript, neg bool, args []string) {
	await(ts, args[1], func(_ int, body string) bool { return strings.Contains(body, args[0]) != neg })
}

func await(ts *testscript.TestScript, url string, ok func(status int, body string) bool) {
	last := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		res, err := http.Get(url)
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err == nil && ok(res.StatusCode, string(body)) {
			return
		}
		last = fmt.Sprintf("%s %v\n%s", res.Status, err, body)
	}
	ts.Fatalf("%s: %s", url, last)
}

// http [-token T] [-form|-type T] [-header 'N: V'] METHOD URL [BODY] STATUS asks
// and wants that status; the answer's head and body are its standard output.
func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	header := http.Header{}
	for !neg && len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-token":
			header.Set("Authorization", "Bearer "+args[1])
			args = args[2:]
		case "-type":
			header.Set("Content-Type", args[1])
			args = args[2:]
		case "-form":
			header.Set("Content-Type", "application/x-www-form-urlencoded")
			args = args[1:]
		case "-header":
			name, value, _ := strings.Cut(args[1], ": ")
			header[name] = append(header[name], value) // as it is spelt
			args = args[2:]
		default:
			ts.Fatalf("unknown flag %s", args[0])
		}
	}
	if len(args) != 3 && len(args) != 4 {
		ts.Fatalf("usage: http [flags] METHOD URL [BODY] STATUS")
	}
	body := ""
	if len(args) == 4 {
		body = args[2]
		if header.Get("Content-Type") == "" {
			header.Set("Content-Type", "application/json")
		}
	}
	req, err := http.NewRequest(args[0], args[1], strings.NewReader(body))
	ts.Check(err)
	req.Header = header
	client := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	ts.Check(err)
	answer, err := io.ReadAll(res.Body)
	ts.Check(err)
	_ = res.Body.Close()
	ts.Logf("%s %s: %s\n%s", args[0], args[1], res.Status, answer)
	fmt.Fprintf(ts.Stdout(), "%s\n", res.Status)
	_ = res.Header.Write(ts.Stdout())
	fmt.Fprintf(ts.Stdout(), "\n%s\n", answer)
	*ts.Value(bodyKey{}).(*[]byte) = answer
	if want := args[len(args)-1]; strconv.Itoa(res.StatusCode) != want {
		ts.Fatalf("%s %s: %s, want %s\n%s", args[0], args[1], res.Status, want, answer)
	}
}

// save NAME FIELD puts a field of the last answer (a.b.0.c) into the environment.
func cmdSave(ts *testscript.TestScript, _ bool, args []string) {
	var v any
	ts.Check(json.NewDecoder(bytes.NewReader(*ts.Value(bodyKey{}).(*[]byte))).Decode(&v))
	for _, step := range strings.Split(args[1], ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[step]
		case []any:
			i, err := strconv.Atoi(step)
			ts.Check(err)
			if i >= len(at) {
				ts.Fatalf("%s: no element %d", args[1], i)
			}
			v = at[i]
		}
	}
	if v == nil {
		ts.Fatalf("the last answer has no %s", args[1])
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

// shown NAME PROCESS PATTERN waits until a command has written something that
// matches, and puts what the pattern's group matches into the environment.
func cmdShown(ts *testscript.TestScript, _ bool, args []string) {
	pattern, log := regexp.MustCompile(args[2]), processes(ts)[args[1]].out
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if m := pattern.FindStringSubmatch(ts.ReadFile(log)); m != nil {
			ts.Setenv(args[0], m[1])
			return
		}
	}
	ts.Fatalf("%s has not shown %s", args[1], args[2])
}

// mailed NAME PROCESS ADDRESS PATTERN waits for a mail to ADDRESS in a log and
// puts what the pattern's group matches into the environment.
func cmdMailed(ts *testscript.TestScript, _ bool, args []string) {
	mail := regexp.MustCompile(`(?s)--- mail to ` + regexp.QuoteMeta(args[2]) + `: [^\n]*\n(.*?)\n---\n`)
	pattern := regexp.MustCompile(args[3])
	log := processes(ts)[args[1]].out
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		mails := mail.FindAllStringSubmatch(ts.ReadFile(log), -1)
		for i := len(mails) - 1; i >= 0; i-- {
			if m := pattern.FindStringSubmatch(mails[i][1]); m != nil {
				ts.Setenv(args[0], m[1])
				return
			}
		}
	}
	ts.Fatalf("no mail to %s with %s", args[2], args[3])
}
