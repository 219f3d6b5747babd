package identity

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Every thread has the priority: the one that hashes may be any. Whoever runs the test may
// have a low one, which is not to be raised.
func TestPriorities(t *testing.T) {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, low := range []time.Duration{0, time.Hour} {
		h := isolated(t, PasswordConfig{}, "serve")
		h.workers[0].lowUntil = time.Now().Add(low)
		if _, err := h.Hash(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		priority := h.workers[0].process.priority // low either way on a machine that is too busy for the other
		want := unix.SchedAttr{Policy: unix.SCHED_IDLE, Nice: own.Nice}
		if priority == PriorityLow {
			want = unix.SchedAttr{Policy: own.Policy, Nice: max(lowNice, own.Nice)}
		} else if low > 0 {
			t.Errorf("priority %q for an hour of low", priority)
		}
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", h.workers[0].process.cmd.Process.Pid))
		if err != nil || len(threads) < 2 {
			t.Fatalf("threads %q, %v", threads, err)
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(filepath.Base(thread))
			if err != nil {
				t.Fatal(err)
			}
			got, err := unix.SchedGetAttr(id, 0)
			if err != nil || got.Policy != want.Policy || got.Nice != want.Nice {
				t.Errorf("%s: policy %d, nice %d, %v", priority, got.Policy, got.Nice, err)
			}
		}
	}
}
