package identity

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Nice values, see setpriority(2).
const (
	lowNice  = 10 // has a tenth of the weight of 0
	idleNice = 19 // the least, where there is no idle policy
)

// lowerPriority gives way to other processes, for good: raising it again takes a
// right. Priorities are a thread's own on Linux, and inherited by the threads that it
// starts, so all there are get it, twice in case that one was starting meanwhile. No
// core is dumped: it would hold passwords.
//
// Idle priority is a scheduling policy there, and more than the least share: a
// processor that has nothing else to do counts as free for whoever wakes up.
func lowerPriority(p Priority) {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	for range 2 {
		for _, thread := range threads() {
			if p == PriorityLow {
				setNice(thread, lowNice)
			} else if unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0) != nil {
				setNice(thread, idleNice)
			}
		}
	}
}

// setNice lowers the priority of a thread, which is allowed to everybody. It raises none,
// which is allowed to some.
func setNice(thread, nice int) {
	if has, err := unix.SchedGetAttr(thread, 0); err != nil || int(has.Nice) < nice {
		_ = unix.Setpriority(unix.PRIO_PROCESS, thread, nice)
	}
}

// threads are the threads of this process, or the one that asks where they cannot be
// had.
func threads() (ids []int) {
	entries, _ := os.ReadDir("/proc/self/task")
	for _, e := range entries {
		if id, err := strconv.Atoi(e.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	if ids == nil {
		ids = []int{unix.Gettid()}
	}
	return ids
}
