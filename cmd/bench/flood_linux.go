package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// flood is 200 clients that log in again and again. One that is refused because
// too many wait tries again much sooner than it is told to. They are in a thread of
// their own and cost as little as the other clients do, or they would be in the way
// of whoever takes the time.
type flood struct {
	*poller
	clients []*client
	request []byte
	buf     []byte
	logins  atomic.Int64
	leave   context.CancelFunc
	ended   chan struct{}
	failure error // once ended
}

const (
	floodClients = 200
	impatience   = 250 * time.Millisecond // on average: they don't keep step
)

func newFlood(ctx context.Context, addr string) (*flood, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	f := &flood{poller: p, buf: make([]byte, 64<<10), ended: make(chan struct{})}
	body := fmt.Sprintf(`{"username":%q,"password":%q}`, accountName, accountPassword)
	f.request = fmt.Appendf(nil, "POST /auth/login HTTP/1.1\r\nHost: api.example.com\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if f.clients, err = dialClients(p, addr, floodClients); err != nil {
		f.close()
		return nil, err
	}
	ctx, f.leave = context.WithCancel(ctx)
	go func() {
		defer close(f.ended)
		defer f.close()
		f.failure = f.run(ctx)
	}()
	return f, nil
}

func (f *flood) close() { hangUp(f.poller, f.clients) }

// run goes on until ctx ends and everybody has an answer: what waits for a worker
// then would be in the way of the next measurement.
func (f *flood) run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var end time.Time // of patience, once ctx has ended
	for {
		now := time.Now()
		busy, wait := 0, 100*time.Millisecond
		if ctx.Err() != nil && end.IsZero() {
			end = now.Add(patience)
		}
		for _, c := range f.clients {
			switch left := c.due.Sub(now); {
			case c.busy:
				busy++
			case !end.IsZero():
			case left > 0:
				wait = min(wait, left)
			default:
				busy++
				c.busy, c.request = true, f.request
				if err := c.write(); err != nil {
					return fmt.Errorf("logging in: %w", err)
				}
			}
		}
		switch {
		case end.IsZero():
		case busy == 0:
			return nil
		case now.After(end):
			return fmt.Errorf("%d logins were not answered within %v", busy, patience)
		}
		events, err := f.wait(wait)
		if err != nil {
			return err
		}
		for i := range events {
			if err := f.move(f.clients[events[i].Fd]); err != nil {
				return fmt.Errorf("logging in: %w", err)
			}
		}
	}
}

// move does what can be done on a client's connection.
func (f *flood) move(c *client) error {
	if err := c.write(); err != nil {
		return err
	}
	n, err := syscall.Read(c.fd, f.buf) // an answer is smaller than the buffer
	switch {
	case again(err):
		return nil
	case err != nil:
		return err
	case n == 0:
		return io.ErrUnexpectedEOF
	}
	first, done, err := c.answer.next(f.buf[:n])
	if err != nil {
		return err
	}
	switch {
	case first == nil:
	case bytes.HasPrefix(first, []byte("HTTP/1.1 200")):
		f.logins.Add(1)
		c.due = time.Now()
	case bytes.HasPrefix(first, []byte("HTTP/1.1 503")):
		c.due = time.Now().Add(impatience/2 + rand.N(impatience)) //nolint:gosec // nothing is secret about it
	default:
		return fmt.Errorf("answered %.300q", f.buf[:n])
	}
	if done {
		c.busy = false
	}
	return nil
}

// measure counts logins while something else is done.
func (f *flood) measure(row *Row, meanwhile func() error) error {
	if err := sleep(context.Background(), time.Second); err != nil { // until the queue is full
		return err
	}
	begin, before := time.Now(), f.logins.Load()
	if err := meanwhile(); err != nil {
		return err
	}
	row.add(logins, float64(f.logins.Load()-before)/time.Since(begin).Seconds())
	return nil
}

// stop ends the flood and returns what went wrong in it.
func (f *flood) stop() error {
	f.leave()
	<-f.ended
	return f.failure
}
