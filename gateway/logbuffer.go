package gateway

import (
	"io"
	"sync"
	"time"
)

const (
	logDelay     = 100 * time.Millisecond // how long a record may wait for others
	logEnough    = 128 << 10              // bytes that are written without waiting: larger writes cost a file less a byte
	logAtMost    = 256 << 10              // bytes beyond which whoever logs has to wait
	logSpareSize = 2 * logEnough
)

// LogBuffer gathers records of requests, so that many go out in one write; what
// else is logged goes through it too, at once and in its place. A writer that
// stands still holds up whoever logs once 256 KiB are waiting: a gateway that
// cannot say what it does must not go on as if it could.
//
// A process that dies without Close loses the records of at most 100 ms.
type LogBuffer struct {
	out io.Writer

	writing sync.Mutex // held while out is written to; taken before mu
	spare   []byte     // guarded by writing

	mu      sync.Mutex // guards what follows
	pending []byte
	timer   *time.Timer // runs while something is pending; nil once closed
	running bool
}

// NewLogBuffer returns a LogBuffer that writes to out.
func NewLogBuffer(out io.Writer) *LogBuffer {
	b := &LogBuffer{out: out}
	b.timer = time.AfterFunc(time.Hour, b.flush)
	b.timer.Stop()
	return b
}

// Write writes p at once, behind what was added before. It implements io.Writer
// for loggers.
func (b *LogBuffer) Write(p []byte) (int, error) {
	b.add(p)
	b.flush()
	return len(p), nil
}

// Close writes what is pending. What is logged later is written at once.
func (b *LogBuffer) Close() {
	b.mu.Lock()
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.mu.Unlock()
	b.flush()
}

// record adds a whole line, which is written soon.
func (b *LogBuffer) record(line []byte) {
	size := b.add(line)
	switch {
	case size > logAtMost:
		b.flush()
	case size >= logEnough && b.writing.TryLock(): // if not, somebody is at it
		b.drain()
		b.writing.Unlock()
	}
}

// add returns how much is pending now.
func (b *LogBuffer) add(p []byte) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending = append(b.pending, p...)
	switch {
	case b.timer == nil:
		return logAtMost + 1
	case !b.running:
		b.running = true
		b.timer.Reset(logDelay)
	}
	return len(b.pending)
}

func (b *LogBuffer) flush() {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.drain()
}

// drain writes what is pending. The caller holds writing.
func (b *LogBuffer) drain() {
	b.mu.Lock()
	full := b.pending
	b.pending = b.spare[:0]
	if b.running = false; b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	if len(full) > 0 {
		_, _ = b.out.Write(full) // there is nowhere left to complain
	}
	if b.spare = full; cap(full) > logSpareSize {
		b.spare = nil
	}
}
