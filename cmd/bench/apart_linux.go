package main

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// apart returns how many nanoseconds it takes one processor to see what another has
// written. On machines that are shared it changes from one minute to the next, with
// where the host puts the processors, and all that threads have in common costs
// accordingly: a result that does not say it cannot be compared. It returns 0 where
// there is only one.
func apart() float64 {
	var allowed unix.CPUSet
	if unix.SchedGetaffinity(0, &allowed) != nil {
		return 0
	}
	var processors []int
	for id := 0; len(processors) < 2 && id < 1024; id++ {
		if allowed.IsSet(id) {
			processors = append(processors, id)
		}
	}
	if len(processors) < 2 {
		return 0
	}
	const tries, turns = 20, 2000
	var turn atomic.Int64
	least := math.Inf(1)
	var both sync.WaitGroup
	for side, id := range processors {
		both.Go(func() {
			runtime.LockOSThread() // and gives it back as it was: servers end with the thread that started them
			defer runtime.UnlockOSThread()
			var one unix.CPUSet
			one.Set(id)
			_ = unix.SchedSetaffinity(0, &one)
			defer func() { _ = unix.SchedSetaffinity(0, &allowed) }()
			for try := range int64(tries) {
				begin := time.Now()
				for n := try * turns; n < (try+1)*turns; n += 2 {
					for turn.Load() != n+int64(side) {
					}
					turn.Store(n + int64(side) + 1)
				}
				if side == 0 { // the least is of a try that nothing else came between
					least = min(least, float64(time.Since(begin).Nanoseconds())/turns)
				}
			}
		})
	}
	both.Wait()
	return least
}
