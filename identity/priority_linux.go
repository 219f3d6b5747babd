package identity

import (
	"os"
	"strconv"
	"syscall"
)

// lowerPriority gives way to every other process. Priorities are a thread's own on
// Linux, and inherited by the threads that it starts, so all there are get it,
// twice in case that one was starting meanwhile. No core is dumped: it would hold
// passwords.
func lowerPriority() {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	for range 2 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, lowestPriority) // better than nothing
			return
		}
		for _, thread := range threads {
			if id, err := strconv.Atoi(thread.Name()); err == nil {
				_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, lowestPriority) // lowering is allowed to everybody
			}
		}
	}
}

// lowestPriority is the nice value, see setpriority(2).
const lowestPriority = 19
