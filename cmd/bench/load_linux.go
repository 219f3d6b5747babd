package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// load is a number of clients, each on a connection of its own that is kept open.
// Anything but an answer 200 is an error that ends the run: a proxy that refuses
// is fast, and its figures mean nothing.
type load struct {
	*poller
	clients  []*client
	requests [][]byte // sent in turn
	next     int
	buf      []byte
	idle     []*client
	done     int
	now      time.Time
	latency  []time.Duration // of requests answered; nil: not wanted
}

// client is one connection.
type client struct {
	fd      int
	busy    bool
	due     time.Time // when its request should have been sent
	request []byte    // what is left to send of it
	answer  message
}

// newLoad connects n clients to addr.
func newLoad(addr string, n int, requests [][]byte) (*load, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	l := &load{poller: p, requests: requests, buf: make([]byte, 256<<10)}
	if l.clients, err = dialClients(p, addr, n); err != nil {
		l.close()
		return nil, err
	}
	l.idle = append(l.idle, l.clients...)
	return l, nil
}

// dialClients connects n clients to addr and has p watch them. They are to be hung
// up also when it fails.
func dialClients(p *poller, addr string, n int) (all []*client, err error) {
	for i := range n {
		fd, err := dialRaw(addr)
		if err != nil {
			return all, err
		}
		all = append(all, &client{fd: fd})
		if err := p.add(fd, i, edges); err != nil {
			return all, err
		}
	}
	return all, nil
}

// hangUp ends clients and their poller.
func hangUp(p *poller, all []*client) {
	for _, c := range all {
		_ = syscall.Close(c.fd) // the other side finds out
	}
	p.close()
}

func (l *load) close() { hangUp(l.poller, l.clients) }

// closed keeps every client busy for d and returns how many requests were
// answered, and how long that took. Requests under way stay so.
func (l *load) closed(ctx context.Context, d time.Duration) (int, time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin, before := time.Now(), l.done
	for end := begin.Add(d); ; {
		l.now = time.Now()
		if !l.now.Before(end) || ctx.Err() != nil {
			return l.done - before, l.now.Sub(begin), ctx.Err()
		}
		for _, c := range l.idle {
			if err := l.send(c, l.now); err != nil {
				return 0, 0, err
			}
		}
		l.idle = l.idle[:0]
		if err := l.turn(min(end.Sub(l.now), time.Second)); err != nil {
			return 0, 0, err
		}
	}
}

// settle waits until no request is under way.
func (l *load) settle(ctx context.Context) error {
	for end := time.Now().Add(patience); len(l.idle) < len(l.clients); {
		if l.now = time.Now(); l.now.After(end) || ctx.Err() != nil {
			return fmt.Errorf("%d requests were not answered within %v", len(l.clients)-len(l.idle), patience)
		}
		if err := l.turn(100 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

const patience = 10 * time.Second

// open sends rate requests per second for d, at times that are drawn before and
// do not depend on how the answers come (Poisson arrivals, the same for everyone).
// A request that finds no idle client waits for one, and that counts: a latency
// is from when the request should have been sent to the end of its answer. It
// returns the latencies, sorted.
func (l *load) open(ctx context.Context, d time.Duration, rate float64) ([]time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := l.settle(ctx); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same arrivals each time, on purpose
	l.latency = make([]time.Duration, 0, int(rate*d.Seconds()*1.2)+100)
	defer func() { l.latency = nil }()
	begin := time.Now()
	due, end := begin, begin.Add(d)
	for {
		due = due.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		if due.After(end) {
			break
		}
		for {
			l.now = time.Now()
			wait := due.Sub(l.now)
			if wait <= 0 && len(l.idle) > 0 {
				break
			}
			if ctx.Err() != nil || l.now.After(end.Add(patience)) {
				return nil, fmt.Errorf("cannot keep up with %.0f requests/s", rate)
			}
			if len(l.idle) == 0 {
				wait = 100 * time.Millisecond
			}
			if err := l.turn(wait); err != nil {
				return nil, err
			}
		}
		c := l.idle[0]
		l.idle = l.idle[1:]
		if err := l.send(c, due); err != nil {
			return nil, err
		}
	}
	if err := l.settle(ctx); err != nil {
		return nil, err
	}
	got := l.latency
	slices.Sort(got)
	return got, nil
}

// turn waits for at most d and does what can be done.
func (l *load) turn(d time.Duration) error {
	events, err := l.wait(d)
	if err != nil {
		return err
	}
	if len(events) > 0 {
		l.now = time.Now()
	}
	for i := range events {
		c := l.clients[events[i].Fd]
		if err := l.move(c); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) send(c *client, due time.Time) error {
	c.busy, c.due, c.request = true, due, l.requests[l.next]
	if l.next++; l.next == len(l.requests) {
		l.next = 0
	}
	return c.write()
}

func (c *client) write() error {
	for len(c.request) > 0 {
		n, err := syscall.Write(c.fd, c.request)
		if again(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("sending a request: %w", err)
		}
		c.request = c.request[n:]
	}
	return nil
}

// move does what can be done on a client's connection.
func (l *load) move(c *client) error {
	if err := c.write(); err != nil {
		return err
	}
	for {
		n, err := syscall.Read(c.fd, l.buf)
		if again(err) {
			return nil
		}
		if err != nil || n == 0 {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("receiving an answer: %w", err)
		}
		if !c.busy {
			return fmt.Errorf("an answer that nobody has asked for: %.60q", l.buf[:n])
		}
		first, done, err := c.answer.next(l.buf[:n])
		if err != nil {
			return fmt.Errorf("receiving an answer: %w: %.60q", err, l.buf[:n])
		}
		if first != nil && !bytes.HasPrefix(first, []byte("HTTP/1.1 200")) {
			return fmt.Errorf("a request was answered %q", first)
		}
		if done {
			if len(c.request) > 0 {
				return fmt.Errorf("an answer before the request was sent: %q", first)
			}
			c.busy = false
			l.done++
			if l.latency != nil {
				l.latency = append(l.latency, l.now.Sub(c.due))
			}
			l.idle = append(l.idle, c)
		}
		if n < len(l.buf) {
			return nil // the next edge tells of more
		}
	}
}

// quantile returns the q-quantile of sorted latencies.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
