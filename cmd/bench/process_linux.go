package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a process that this one has started, and all that it has started in
// turn. Its output goes to a file, as what is measured would log, and not to a
// pipe that somebody would have to read.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string // the file
	ended chan struct{}
}

// startProcess starts a process that ends with this one, come what may.
func startProcess(dir, name string, command ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, "output"), ended: make(chan struct{})}
	f, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()                 // the process has its own
	p.cmd = exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // what is measured; stop ends it
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it went is in the log
		close(p.ended)
	}()
	return p, nil
}

// listens waits until somebody accepts connections at addr.
func (p *process) listens(ctx context.Context, addr string) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		var d net.Dialer
		if conn, err := d.DialContext(ctx, "tcp", addr); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ended:
			return p.failure("has ended")
		case <-time.After(5 * time.Millisecond):
		}
	}
	return p.failure("does not listen on " + addr)
}

// failure is an error with the end of what the process had to say.
func (p *process) failure(what string) error {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s %s: %s", p.name, what, text[max(0, len(text)-2000):])
}

// stop ends the process and what it has started, gently first.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its group, if there is anybody left
	<-p.ended
}

// pids are the process and its descendants.
func (p *process) pids() []int {
	all := []int{p.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i])) // the pattern is well formed
		for _, thread := range threads {
			children, err := os.ReadFile(thread)
			if err != nil {
				continue // it has ended meanwhile
			}
			for _, field := range strings.Fields(string(children)) {
				if pid, err := strconv.Atoi(field); err == nil {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}

// cpu is the time on a processor, user and system, of the process and its
// descendants so far.
func (p *process) cpu() (time.Duration, error) {
	total := time.Duration(0)
	for _, pid := range p.pids() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The name, in brackets, may hold anything. proc_pid_stat(5): utime and
		// stime are the 14th and 15th field, in hundredths of a second.
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		if len(fields) < 13 {
			return 0, fmt.Errorf("/proc/%d/stat is %q", pid, stat)
		}
		user, err1 := strconv.Atoi(fields[11])
		system, err2 := strconv.Atoi(fields[12])
		if err := errors.Join(err1, err2); err != nil {
			return 0, err
		}
		total += time.Duration(user+system) * (time.Second / 100)
	}
	return total, nil
}

// memory is the proportional set size of the process and its descendants: what is
// resident, and of what is shared their share. In bytes.
func (p *process) memory() (int, error) {
	total := 0
	for _, pid := range p.pids() {
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		_, after, _ := strings.Cut(string(rollup), "\nPss:")
		fields := strings.Fields(after)
		if len(fields) < 2 || fields[1] != "kB" {
			return 0, fmt.Errorf("/proc/%d/smaps_rollup is %q", pid, rollup)
		}
		kB, err := strconv.Atoi(fields[0])
		if err != nil {
			return 0, err
		}
		total += kB << 10
	}
	return total, nil
}

// settle has a program read from the disk when it is next started, as after a boot.
// The page cache holds what has just been linked in pieces as large as the memory
// happened to have, each of which is resident as a whole once a page of it is
// touched: with one and the same program, 8 MB more or less.
func settle(program string) error {
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	if err := f.Sync(); err != nil { // what is not on the disk yet is not dropped
		return fmt.Errorf("settling %s: %w", program, err)
	}
	const dontNeed = 4 // POSIX_FADV_DONTNEED
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
		return fmt.Errorf("settling %s: %w", program, errno)
	}
	return nil
}

// freePort returns the address of a port that nobody listens on. Somebody may
// take it before it is used; then the start fails and says so.
func freePort() (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// raiseFileLimit makes room for 10,000 connections and more, here and in what is
// started from here, as far as is allowed.
func raiseFileLimit() {
	const enough = 65536
	limit := syscall.Rlimit{Cur: enough, Max: enough}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		return
	}
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // what needs more says so
	}
}
