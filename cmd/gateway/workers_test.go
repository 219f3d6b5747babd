package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// What stories say of the processes that hash a gateway's passwords, as Linux shows
// them to anybody who looks.

// cmdWorkers is workers NAME N [VAR]: so many work for a command, each at the priority
// that it was given, with no secrets in sight and no core to be dumped. VAR is set to the ids.
func cmdWorkers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: workers NAME N [VAR]")
	}
	var found []int
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		// One that was killed for getting too little time may take a moment to die.
		if found = children(ts, processes(ts)[args[0]].cmd.Process.Pid); strconv.Itoa(len(found)) == args[1] {
			break
		}
		if time.Now().After(end) {
			ts.Fatalf("%d work: %v", len(found), found)
		}
	}
	own := scheduleOf(ts, "/proc/self/stat") // whoever runs the stories may have a low priority
	var ids []string
	for _, id := range found {
		ids = append(ids, strconv.Itoa(id))
		dir := fmt.Sprintf("/proc/%d/", id)
		read := func(name string) string {
			b, err := os.ReadFile(dir + name)
			ts.Check(err)
			return string(b)
		}
		_, arguments, _ := strings.Cut(read("cmdline"), "\x00")
		priority, known := map[string]schedule{
			"password-worker\x00--priority=idle\x00": {policy: 5, nice: own.nice}, // SCHED_IDLE
			"password-worker\x00--priority=low\x00":  {policy: own.policy, nice: max(10, own.nice)},
		}[arguments]
		if !known {
			ts.Fatalf("arguments %q", arguments)
		}
		if environ := read("environ"); environ != "GOMAXPROCS=1\x00GOTRACEBACK=none\x00" {
			ts.Fatalf("environment %q", environ)
		}
		threads, err := filepath.Glob(dir + "task/*/stat")
		ts.Check(err)
		for _, thread := range threads {
			if has := scheduleOf(ts, thread); has != priority {
				ts.Fatalf("%q is scheduled as %v", arguments, has)
			}
		}
		for line := range strings.Lines(read("limits")) {
			if strings.HasPrefix(line, "Max core file size") && !slices.Equal(strings.Fields(line)[4:6], []string{"0", "0"}) {
				ts.Fatalf("%s", line)
			}
		}
		for line := range strings.Lines(read("status")) {
			if strings.HasPrefix(line, "VmHWM") {
				ts.Logf("%d: %s", id, line)
			}
		}
	}
	if len(args) > 2 {
		ts.Setenv(args[2], strings.Join(ids, ","))
	}
}

// schedule is how the system treats a process, as numbers of proc_pid_stat(5).
type schedule struct{ policy, nice int }

func scheduleOf(ts *testscript.TestScript, file string) schedule {
	b, err := os.ReadFile(file)
	ts.Check(err)
	fields := strings.Fields(afterName(string(b)))
	policy, err1 := strconv.Atoi(fields[38])
	nice, err2 := strconv.Atoi(fields[16])
	ts.Check(errors.Join(err1, err2))
	return schedule{policy, nice}
}

// cmdKept is kept NAME ID: a command's only worker is still that one, unless it got too
// little time on a busy machine, and another was started, at another priority.
func cmdKept(ts *testscript.TestScript, _ bool, args []string) {
	cmdWorkers(ts, false, []string{args[0], "1", "KEPT"})
	if now := ts.Getenv("KEPT"); now != args[1] {
		b, err := os.ReadFile("/proc/" + now + "/cmdline")
		ts.Check(err)
		if !bytes.Contains(b, []byte("--priority=low")) {
			ts.Fatalf("%s works instead of %s", now, args[1])
		}
		ts.Logf("%s got too little time", args[1])
	}
}

// cmdSignal is signal KILL|INT|TERM|HUP ID,...: sends it to processes, if they have not
// ended.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	s := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[args[0]]
	for text := range strings.SplitSeq(args[1], ",") {
		id, err := strconv.Atoi(text)
		ts.Check(err)
		if err := syscall.Kill(id, s); err != syscall.ESRCH {
			ts.Check(err)
		}
	}
}

// cmdCrash is crash NAME: a command ends at once.
func cmdCrash(ts *testscript.TestScript, _ bool, args []string) {
	p := processes(ts)[args[0]]
	ts.Check(p.cmd.Process.Kill())
	<-p.done
	delete(processes(ts), args[0])
}

// cmdGone is gone ID,...: these processes end, and somebody has asked how.
func cmdGone(ts *testscript.TestScript, _ bool, args []string) {
	for id := range strings.SplitSeq(args[0], ",") {
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if b, err := os.ReadFile("/proc/" + id + "/cmdline"); err != nil || !bytes.Contains(b, []byte("password-worker")) {
				break
			}
			if time.Now().After(end) {
				ts.Fatalf("%s goes on", id)
			}
		}
	}
}

// children are the processes that a process has started and that have not ended.
func children(ts *testscript.TestScript, parent int) (ids []int) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	ts.Check(err)
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		if fields := strings.Fields(afterName(string(b))); fields[0] != "Z" && fields[1] == strconv.Itoa(parent) {
			id, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			ts.Check(err)
			ids = append(ids, id)
		}
	}
	return ids
}

// afterName is the part of /proc/ID/stat behind the program's name, which may hold
// anything: it begins with the state.
func afterName(stat string) string { return stat[strings.LastIndexByte(stat, ')')+1:] }
