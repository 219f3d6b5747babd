package identity

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"
)

// Hashing keeps a processor busy for as long as it takes, and Go's scheduler knows
// no priorities: whoever becomes ready behind a hash waits for its time slice, and
// a garbage collection for its thread. So the hashes can be made in processes of a
// low priority, which take what the rest of the machine leaves.

const (
	workerIdle = time.Minute      // a process ends when there was nothing to do for so long
	workerTime = 20 * time.Second // for one password, on a machine that leaves little
)

// passwordTask is what a worker is asked: to verify a password against Stored, or
// to hash one when Stored is empty.
type passwordTask struct {
	Stored, Password string
	Hash             string // the kind that is to be made
	Cost             int
}

// passwordResult is its answer.
type passwordResult struct {
	Opens     bool
	Hash      string
	Malformed bool   // Stored is none that can be verified
	Failure   string // why there is no answer
}

func (t passwordTask) do() passwordResult {
	var r passwordResult
	var err error
	switch {
	case t.Stored != "":
		r.Opens, err = verifyHash(t.Stored, t.Password)
	case t.Hash == "argon2id":
		r.Hash = hashArgon2id(t.Password)
	default:
		r.Hash, err = hashBcrypt(t.Password, t.Cost)
	}
	if r.Malformed = errors.Is(err, errHashFormat); err != nil && !r.Malformed {
		r.Failure = err.Error()
	}
	return r
}

func (r passwordResult) err() error {
	switch {
	case r.Malformed:
		return errHashFormat
	case r.Failure != "":
		return errors.New(r.Failure)
	}
	return nil
}

// ServePasswords is the other side of [Hasher.Isolate]: it does one password after
// the other until there are no more, at the lowest priority.
func ServePasswords(in io.Reader, out io.Writer) error {
	lowerPriority()
	return servePasswords(in, out)
}

func servePasswords(in io.Reader, out io.Writer) error {
	tasks, results := gob.NewDecoder(in), gob.NewEncoder(out)
	for {
		var t passwordTask
		if err := tasks.Decode(&t); errors.Is(err, io.EOF) {
			return nil // the gateway has ended, however it did
		} else if err != nil {
			return fmt.Errorf("reading a password: %w", err)
		}
		if err := results.Encode(t.do()); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
}

// worker does one password at a time, in this process or in one of its own that is
// started when it is needed.
type worker struct {
	start func() (*workerProcess, error) // nil: in this process
	idle  time.Duration
	time  time.Duration

	mu      sync.Mutex // guards what follows
	process *workerProcess
	timer   *time.Timer
}

type workerProcess struct {
	kill    context.CancelFunc
	cmd     *exec.Cmd
	tasks   *gob.Encoder
	results *gob.Decoder
}

func (w *worker) do(t passwordTask) (passwordResult, error) {
	if w.start == nil {
		r := t.do()
		return r, r.err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	reused := w.process != nil
	r, err := w.exchange(t)
	if reused && err != nil && !errors.Is(err, ErrBusy) {
		r, err = w.exchange(t) // it has died while nobody looked
	}
	if err != nil {
		return passwordResult{}, err
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = time.AfterFunc(w.idle, w.close)
	return r, r.err()
}

func (w *worker) exchange(t passwordTask) (r passwordResult, err error) {
	if w.process == nil {
		if w.process, err = w.start(); err != nil {
			return r, fmt.Errorf("starting a password worker: %w", err)
		}
	}
	p := w.process
	late := time.AfterFunc(w.time, p.kill)
	if err = p.tasks.Encode(t); err == nil {
		err = p.results.Decode(&r)
	}
	inTime := late.Stop()
	if err == nil {
		return r, nil
	}
	ended := w.stop()
	if !inTime {
		return r, fmt.Errorf("%w: one has taken longer than %v", ErrBusy, w.time)
	}
	return r, fmt.Errorf("a password worker has failed: %w", errors.Join(err, ended))
}

// close ends the process, if there is one; another password starts another.
func (w *worker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	_ = w.stop() // it is killed, and says so
}

func (w *worker) stop() error {
	if w.process == nil {
		return nil
	}
	w.process.kill() // it has nothing to lose
	err := w.process.cmd.Wait()
	w.process = nil
	return err
}

// startWorker starts a process that gets passwords by its standard input alone, and
// of our environment nothing, because that has secrets. It ends with life, if not before.
func startWorker(life context.Context, command func(context.Context) *exec.Cmd) (*workerProcess, error) {
	ctx, kill := context.WithCancel(life)
	cmd := command(ctx)
	cmd.Env = append(cmd.Env, "GOMAXPROCS=1", "GOTRACEBACK=none")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		kill()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		kill()
		return nil, err
	}
	return &workerProcess{kill, cmd, gob.NewEncoder(in), gob.NewDecoder(out)}, nil
}
