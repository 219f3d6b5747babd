package identity

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// Hashing keeps a processor busy for as long as it takes, and Go's scheduler knows
// no priorities: whoever becomes ready behind a hash waits for its time slice, and
// a garbage collection for its thread. So the hashes can be made in processes that
// take what the rest of the machine leaves. Where it leaves next to nothing, nobody
// could sign in any more: a password that has waited for it is hashed again by a
// process that gets a share.

// Priority is what a process that hashes passwords gets of a busy machine.
type Priority string

// The priorities. Both mean all there is on a machine with nothing else to do, and
// on systems that don't know them.
const (
	PriorityIdle Priority = "idle" // what nobody else wants
	PriorityLow  Priority = "low"  // about a tenth of a processor
)

const (
	workerIdle    = time.Minute      // a process ends when there was nothing to do for so long
	workerTime    = 20 * time.Second // for one password, on a machine that leaves little
	workerStarved = 2 * time.Second  // for one at idle priority, of bcrypt's cost 12 or less
	workerLow     = 10 * time.Second // low priority is kept for so long
	workerLowMost = 5 * time.Minute  // and longer each time it turns out too soon, up to that
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

// patience returns how long a password may take at idle priority, where one of cost
// 12 may take starved.
func (t passwordTask) patience(starved time.Duration) time.Duration {
	cost := t.Cost
	if t.Stored != "" {
		cost = bcryptCost(t.Stored)
	}
	return starved << max(0, cost-12) // each cost is twice the work of the one below
}

// ServePasswords is the other side of [Hasher.Isolate]: it does one password after
// the other until there are no more.
func ServePasswords(in io.Reader, out io.Writer, p Priority) error {
	lowerPriority(p)
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

// WorkerCommand returns a command that runs [ServePasswords] at a priority. The
// context ends it.
type WorkerCommand func(context.Context, Priority) *exec.Cmd

// worker does one password at a time, in this process or in one of its own that is
// started when it is needed.
type worker struct {
	start   func(Priority) (*workerProcess, error) // nil: in this process
	idle    time.Duration
	time    time.Duration
	starved time.Duration

	mu       sync.Mutex // guards what follows
	process  *workerProcess
	timer    *time.Timer
	lowUntil time.Time // before it, the machine is known to leave too little
	lowFor   time.Duration

	dying atomic.Int32 // processes that were abandoned and have not ended yet
}

type workerProcess struct {
	priority Priority
	kill     context.CancelFunc
	cmd      *exec.Cmd
	in, out  io.Closer
	tasks    *gob.Encoder
	results  *gob.Decoder
}

func newWorker() *worker {
	return &worker{idle: workerIdle, time: workerTime, starved: workerStarved}
}

// errStarved means that a password got too little of the machine at idle priority.
var errStarved = errors.New("the machine leaves nothing for passwords")

func (w *worker) do(t passwordTask) (passwordResult, error) {
	if w.start == nil {
		r := t.do()
		return r, r.err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	reused := w.process != nil
	r, err := w.exchange(t)
	if reused && err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, errStarved) {
		r, err = w.exchange(t) // it has died while nobody looked
	}
	if errors.Is(err, errStarved) {
		w.lowFor = min(max(2*w.lowFor, workerLow), workerLowMost)
		w.lowUntil = time.Now().Add(w.lowFor)
		r, err = w.exchange(t)
	}
	if err != nil {
		return passwordResult{}, err
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = time.AfterFunc(w.idle, w.retire)
	return r, r.err()
}

func (w *worker) exchange(t passwordTask) (r passwordResult, err error) {
	priority, limit := PriorityIdle, min(t.patience(w.starved), w.time)
	if time.Now().Before(w.lowUntil) || w.dying.Load() > 0 {
		priority, limit = PriorityLow, w.time
	}
	if w.process != nil && w.process.priority != priority {
		_ = w.stop() // nobody is allowed to raise one; it gets enough of the machine to end soon
	}
	if w.process == nil {
		if w.process, err = w.start(priority); err != nil {
			return r, fmt.Errorf("starting a password worker: %w", err)
		}
	}
	p := w.process
	late := time.AfterFunc(limit, p.giveUp)
	if err = p.tasks.Encode(t); err == nil {
		err = p.results.Decode(&r)
	}
	inTime := late.Stop()
	switch {
	case !inTime && priority == PriorityIdle:
		if w.abandon(); err != nil {
			return r, errStarved
		}
	case !inTime:
		_ = w.stop() // it was killed, and says so
		if err != nil {
			return r, fmt.Errorf("%w: one has taken longer than %v", ErrBusy, limit)
		}
	case err != nil:
		return r, fmt.Errorf("a password worker has failed: %w", errors.Join(err, w.stop()))
	}
	if priority == PriorityIdle {
		w.lowFor = 0
	}
	return r, nil
}

// giveUp kills the process, and has whoever talks to it go on at once.
func (p *workerProcess) giveUp() {
	p.kill()
	_ = p.in.Close() // it may not have read all of the password
	_ = p.out.Close()
}

// abandon kills the process and leaves it to its end, for which it needs some of the
// machine, too, and at idle priority gets as little. No other is started at idle
// priority before that.
func (w *worker) abandon() {
	w.process.kill()
	cmd := w.process.cmd
	w.process = nil
	w.dying.Add(1)
	go func() {
		defer w.dying.Add(-1)
		_ = cmd.Wait() // it was killed, and says so
	}()
}

// retire ends a process that has had nothing to do. Who has a password just then does
// not wait for that.
func (w *worker) retire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.process != nil {
		w.abandon()
	}
}

// close ends the process, if there is one, and waits for its end.
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
func startWorker(life context.Context, command WorkerCommand, p Priority) (*workerProcess, error) {
	ctx, kill := context.WithCancel(life)
	cmd := command(ctx, p)
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
	return &workerProcess{p, kill, cmd, in, out, gob.NewEncoder(in), gob.NewDecoder(out)}, nil
}
