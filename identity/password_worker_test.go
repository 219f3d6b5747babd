package identity

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// workerMode makes this test program a worker.
const workerMode = "PASSWORD_WORKER"

func TestWorkerProcess(t *testing.T) {
	switch os.Getenv(workerMode) {
	case "serve":
		if err := ServePasswords(os.Stdin, os.Stdout, PriorityIdle); err != nil {
			os.Exit(3)
		}
		os.Exit(0)
	case "serve low":
		_ = ServePasswords(os.Stdin, os.Stdout, PriorityLow)
		os.Exit(0)
	case "fail":
		os.Exit(4)
	case "garbage":
		_, _ = io.WriteString(os.Stdout, strings.Repeat("a library that greets\n", 10))
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case "die":
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(5)
	case "late":
		_ = servePasswords(os.Stdin, lateWriter{os.Stdout})
		os.Exit(0)
	case "hang":
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case "once":
		var task passwordTask
		_ = gob.NewDecoder(os.Stdin).Decode(&task)
		_ = gob.NewEncoder(os.Stdout).Encode(task.do())
		os.Exit(0)
	case "deaf":
		time.Sleep(time.Hour)
	}
}

// lateWriter says what it is to say when nobody waits for it any more.
type lateWriter struct{ io.Writer }

func (w lateWriter) Write(p []byte) (int, error) {
	time.Sleep(300 * time.Millisecond)
	return w.Writer.Write(p)
}

// patience is for what is certain to happen, but not soon on a machine that has other
// things to do.
const patience = 2 * time.Minute

// isolated returns a Hasher whose workers are processes of this program. It is patient.
func isolated(t *testing.T, cfg PasswordConfig, mode string) *Hasher {
	t.Helper()
	return isolatedBy(t, cfg, func(p Priority) string {
		if mode == "serve" && p == PriorityLow {
			return "serve low"
		}
		return mode
	})
}

// isolatedBy is isolated with processes whose mode follows from their priority.
func isolatedBy(t *testing.T, cfg PasswordConfig, mode func(Priority) string) *Hasher {
	t.Helper()
	h := newTestHasher(t, cfg)
	h.Isolate(func(ctx context.Context, p Priority) *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestWorkerProcess$")
		cmd.Env = []string{workerMode + "=" + mode(p)}
		return cmd
	})
	t.Cleanup(h.Close)
	h.beHeldUp(patience)
	return h
}

// undying returns a patient Hasher whose processes at idle priority have a mode, and are
// killed without ever being given the time to notice. made tells what it has started.
func undying(t *testing.T, mode string) (h *Hasher, made *startedProcesses) {
	t.Helper()
	h, made = newTestHasher(t, PasswordConfig{}), &startedProcesses{}
	h.Isolate(func(ctx context.Context, p Priority) *exec.Cmd {
		made.at = append(made.at, p)
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestWorkerProcess$")
		cmd.Env = []string{workerMode + "=serve low"}
		if p == PriorityIdle {
			cmd.Env = []string{workerMode + "=" + mode}
			cmd.Cancel = func() error { return nil }
			made.idle = cmd
		}
		return cmd
	})
	t.Cleanup(h.Close)
	h.beHeldUp(patience)
	return h, made
}

// startedProcesses are the priorities of those that were started, and the last at idle.
type startedProcesses struct {
	at   []Priority
	idle *exec.Cmd
}

// beHeldUp lets passwords take so long.
func (h *Hasher) beHeldUp(limit time.Duration) {
	h.wait = limit
	for _, w := range h.workers {
		w.time = limit
	}
}

func mustHash(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

func TestProcessesAnswerAsThisOneWould(t *testing.T) {
	h := isolated(t, PasswordConfig{Workers: 2, Queue: 100}, "serve")
	for name, password := range map[string]string{
		"plain": "hunter-hunter", "argon2id": strings.Repeat("x", 73), "empty": "", "not UTF-8": "pass\xff\x00word\n", "ligature": "\ufb01sh", "a megabyte": strings.Repeat("x", 1<<20),
	} {
		hash, err := h.Hash(t.Context(), password)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if ok, stale, err := h.Verify(t.Context(), hash, password); !ok || stale || err != nil {
			t.Errorf("%s: %v, stale %v, %v", name, ok, stale, err)
		}
		for _, wrong := range []string{password + "x", "pass\ufffd\x00word\n"} {
			if ok, _, err := h.Verify(t.Context(), hash, wrong); ok || err != nil {
				t.Errorf("%s: %q opens it: %v", name, wrong, err)
			}
		}
	}
	if ok, _, err := h.Verify(t.Context(), "", "x"); ok || err != nil {
		t.Errorf("nobody: %v, %v", ok, err)
	}
	if _, _, err := h.Verify(t.Context(), "$1$malformed", "x"); !errors.Is(err, errHashFormat) {
		t.Errorf("%v", err)
	}
	hash := mustHash(t, "p7")
	var all sync.WaitGroup
	for i := range 40 { // nobody gets another's answer
		all.Go(func() {
			if ok, _, err := h.Verify(t.Context(), hash, fmt.Sprint("p", i)); ok != (i == 7) || err != nil {
				t.Errorf("%d: %v, %v", i, ok, err)
			}
		})
	}
	all.Wait()
}

// A worker that has been killed while it had nothing to do is replaced, and nobody
// notices.
func TestAProcessThatHasDiedIsReplaced(t *testing.T) {
	h := isolated(t, PasswordConfig{}, "serve")
	for range 3 {
		if _, err := h.Hash(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if err := h.workers[0].process.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAProcessWithNothingToDoEnds(t *testing.T) {
	h := isolated(t, PasswordConfig{}, "serve")
	w := h.workers[0]
	w.idle = time.Millisecond
	if _, err := h.Hash(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	ended := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.process == nil
	}
	for deadline := time.Now().Add(patience); !ended(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it goes on")
		}
	}
	if _, err := h.Hash(t.Context(), "x"); err != nil {
		t.Error("another is not started:", err)
	}
}

// One that had nothing to do gets as little of a busy machine to end with. Who has a
// password meanwhile is served by another.
func TestAProcessWithNothingToDoIsNotWaitedFor(t *testing.T) {
	h, made := undying(t, "serve low")
	w := h.workers[0]
	w.starved, w.idle = patience, time.Millisecond
	if _, err := h.Hash(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	waitForDying(t, w, 1)
	w.idle = patience
	if _, err := h.Hash(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	if want := []Priority{PriorityIdle, PriorityLow}; !slices.Equal(made.at, want) {
		t.Errorf("processes were started at %q, want %q", made.at, want)
	}
	if err := made.idle.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	waitForDying(t, w, 0)
}

// waitForDying waits until so many processes of w are abandoned and have not ended.
func waitForDying(t *testing.T, w *worker, n int32) {
	t.Helper()
	for deadline := time.Now().Add(patience); w.dying.Load() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are dying, want %d", w.dying.Load(), n)
		}
	}
}

// Whatever is wrong with a worker is an error, soon, and never an opened account.
func TestAWorkerThatFailsIsAnError(t *testing.T) {
	for _, mode := range []string{"fail", "die", "garbage", "hang", "late", "missing"} {
		h := isolated(t, PasswordConfig{}, mode)
		if mode == "missing" {
			h.Isolate(func(ctx context.Context, _ Priority) *exec.Cmd {
				return exec.CommandContext(ctx, t.TempDir()+"/missing")
			})
		}
		h.beHeldUp(patience)
		slow := mode == "hang" || mode == "late"
		if slow {
			h.workers[0].time = 50 * time.Millisecond
		}
		for range 2 {
			ok, _, err := h.Verify(t.Context(), "", "x")
			if ok || err == nil || errors.Is(err, ErrBusy) != slow {
				t.Errorf("%s: %v, %v", mode, ok, err)
			}
		}
		if h.waiting.Load() != 0 || len(h.workers) != 1 || h.workers[0].process != nil {
			t.Errorf("%s: a place is lost, or a process is left", mode)
		}
	}
}

// A machine that leaves nothing to whoever is idle must not lock people out: theirs
// is hashed again by a process that gets a share, and so are the next ones, for a while.
func TestAPasswordThatStarvesGetsAShare(t *testing.T) {
	var started []Priority
	mode := map[Priority]string{PriorityIdle: "hang", PriorityLow: "serve low"}
	h := isolatedBy(t, PasswordConfig{}, func(p Priority) string {
		started = append(started, p)
		return mode[p]
	})
	w := h.workers[0]
	w.starved = time.Millisecond
	verified := func(want ...Priority) {
		t.Helper()
		started = nil
		if ok, _, err := h.Verify(t.Context(), mustHash(t, "right"), "right"); !ok || err != nil {
			t.Errorf("the right password: %v, %v", ok, err)
		}
		if !slices.Equal(started, want) {
			t.Errorf("processes were started at %q, want %q", started, want)
		}
	}
	for _, low := range []time.Duration{workerLow, 2 * workerLow, 4 * workerLow} { // which is longer each time
		before := time.Now()
		verified(PriorityIdle, PriorityLow)
		verified()
		if least, most := before.Add(low), time.Now().Add(low); w.lowUntil.Before(least) || w.lowUntil.After(most) {
			t.Errorf("it lasts until %v, want %v to %v", w.lowUntil, least, most)
		}
		w.lowUntil = time.Now() // the while has passed
	}
	w.lowFor = workerLowMost
	verified(PriorityIdle, PriorityLow)
	if w.lowFor != workerLowMost {
		t.Errorf("it grows to %v", w.lowFor)
	}
	// Until there is some left to them again.
	mode[PriorityIdle], w.starved, w.lowUntil = "serve", workerStarved, time.Now()
	verified(PriorityIdle)
	if w.lowFor != 0 {
		t.Errorf("the next while would be longer than %v", w.lowFor)
	}
}

// What starves takes as long to die. Nobody waits for that, and no other is started
// beside it.
func TestAProcessThatStarvesDiesByItself(t *testing.T) {
	h, made := undying(t, "deaf")
	w := h.workers[0]
	w.starved = time.Millisecond
	hash := mustHash(t, "right")
	for range 2 {
		for _, password := range []string{"right" + strings.Repeat("x", 1<<20), "right"} {
			if ok, _, err := h.Verify(t.Context(), hash, password); ok != (password == "right") || err != nil {
				t.Errorf("%d bytes: %v, %v", len(password), ok, err)
			}
		}
		w.lowUntil = time.Now()
	}
	if want := []Priority{PriorityIdle, PriorityLow}; !slices.Equal(made.at, want) {
		t.Errorf("processes were started at %q, want %q", made.at, want)
	}
	if err := made.idle.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	waitForDying(t, w, 0)
	made.at = nil
	if _, _, err := h.Verify(t.Context(), hash, "right"); err != nil || !slices.Equal(made.at, []Priority{PriorityIdle, PriorityLow}) {
		t.Errorf("then %q: %v", made.at, err)
	}
	if err := made.idle.Process.Kill(); err != nil {
		t.Error(err)
	}
}

// One that nothing is left for even so is given up, and not waited for twice.
func TestAPasswordThatAlwaysStarvesIsGivenUp(t *testing.T) {
	h := isolated(t, PasswordConfig{}, "hang")
	w := h.workers[0]
	w.starved, w.time = time.Millisecond, 50*time.Millisecond
	for range 2 {
		if _, err := h.Hash(t.Context(), "x"); !errors.Is(err, ErrBusy) {
			t.Errorf("%v, want ErrBusy", err)
		}
	}
}

// A hash of twice the work may take twice the time before anybody calls it starved.
func TestPatienceGrowsWithTheCost(t *testing.T) {
	for _, tc := range []struct {
		task passwordTask
		want time.Duration
	}{
		{passwordTask{Hash: "bcrypt", Cost: 4}, time.Second},
		{passwordTask{Hash: "bcrypt", Cost: 12}, time.Second},
		{passwordTask{Hash: "bcrypt", Cost: 13}, 2 * time.Second},
		{passwordTask{Stored: decoy(PasswordConfig{Hash: "bcrypt", Cost: 16})}, 16 * time.Second},
		{passwordTask{Hash: "argon2id"}, time.Second},
		{passwordTask{Stored: decoy(PasswordConfig{Hash: "argon2id"})}, time.Second},
	} {
		if got := tc.task.patience(time.Second); got != tc.want {
			t.Errorf("%+v: %v, want %v", tc.task, got, tc.want)
		}
	}
}

// An answer that comes too late is nobody's: not that of the next password, either.
func TestALateAnswerIsNotTheNextOnes(t *testing.T) {
	h := isolated(t, PasswordConfig{}, "late")
	hash := mustHash(t, "right")
	w := h.workers[0]
	for i := range 6 {
		password, limit := "right", 100*time.Millisecond
		if i%2 == 1 {
			password, limit = "wrong", patience
		}
		w.time = limit
		ok, _, err := h.Verify(t.Context(), hash, password)
		if ok || errors.Is(err, ErrBusy) != (i%2 == 0) || i%2 == 1 && err != nil {
			t.Errorf("%d: %v, %v", i, ok, err)
		}
	}
}

// The gateway may be killed: its end of the pipe is gone then.
func TestAWorkerEndsWithItsGateway(t *testing.T) {
	if err := servePasswords(strings.NewReader(""), io.Discard); err != nil {
		t.Error(err)
	}
	if err := servePasswords(strings.NewReader("garbage"), io.Discard); err == nil {
		t.Error("garbage is taken")
	}
	h := isolated(t, PasswordConfig{}, "serve")
	if _, err := h.Hash(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	process := h.workers[0].process.cmd.Process
	h.Close()
	if err := process.Signal(syscall.Signal(0)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("it is still there: %v", err)
	}
}

// Whoever is stopped does not wait for a password, and leaves no process behind.
func TestCloseDoesNotWaitForAPassword(t *testing.T) {
	h := isolated(t, PasswordConfig{Workers: 2}, "hang")
	failed := make(chan error, 2)
	for range cap(failed) {
		go func() {
			_, err := h.Hash(t.Context(), "x")
			failed <- err
		}()
	}
	for !h.full() {
		runtime.Gosched()
	}
	h.Close() // whether they have a process by now or will ask for one
	for range cap(failed) {
		select {
		case err := <-failed:
			if err == nil {
				t.Error("a password that was not hashed")
			}
		case <-time.After(patience):
			t.Fatal("still at it")
		}
	}
	for _, w := range h.workers {
		if w.process != nil {
			t.Error("a process is left")
		}
	}
	if _, err := h.Hash(t.Context(), "x"); err == nil {
		t.Error("another was started")
	}
}
