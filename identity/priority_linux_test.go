package identity

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Every thread has the priority: the one that hashes may be any.
func TestPriorities(t *testing.T) {
	for mode, want := range map[string]struct {
		policy uint32
		nice   int32
	}{
		"serve":     {unix.SCHED_IDLE, 0},
		"serve low": {unix.SCHED_NORMAL, lowNice},
	} {
		h := isolated(t, PasswordConfig{}, mode)
		if _, err := h.Hash(t.Context(), "x"); err != nil {
			t.Fatal(err)
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
			if err != nil || got.Policy != want.policy || got.Nice != want.nice {
				t.Errorf("%s: policy %d, nice %d, %v", mode, got.Policy, got.Nice, err)
			}
		}
	}
}
