package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// healthOptions describes the active health check of an upstream's targets.
type healthOptions struct {
	path     string        // asked with GET; "" means no active checks
	interval time.Duration // between two checks; 5 s by default
	timeout  time.Duration // for the head of the answer; 2 s by default
}

func (o *healthOptions) setDefaults() {
	if o.interval <= 0 {
		o.interval = 5 * time.Second
	}
	if o.timeout <= 0 {
		o.timeout = 2 * time.Second
	}
}

// failuresToDown is how many checks in a row have to fail: one lost packet is
// not an outage. A single success brings the target back.
const failuresToDown = 2

// checkHealth asks every target in each interval, on a connection of its own,
// until ctx ends. Targets are taken for healthy until the first answers are in.
func (u *upstream) checkHealth(ctx context.Context, o healthOptions) {
	failures := make([]int, len(u.targets))
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	for {
		var checks sync.WaitGroup
		for i, t := range u.targets {
			checks.Go(func() {
				if err := t.check(ctx, o); err == nil {
					failures[i] = 0
				} else if ctx.Err() == nil {
					failures[i]++
				}
				t.down.Store(failures[i] >= failuresToDown)
			})
		}
		checks.Wait()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// check asks the target once. A 2xx or 3xx answer is health.
func (t *target) check(ctx context.Context, o healthOptions) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	conn, err := t.dial(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // what it interrupts says so
	defer stop()
	status, err := askHealth(conn, o.path, t.addr)
	if err = errors.Join(err, ignoreClosed(conn.Close())); err != nil {
		return fmt.Errorf("health check of %s: %w", t.addr, err)
	}
	if status < 200 || status >= 400 {
		return fmt.Errorf("health check of %s: status %d", t.addr, status)
	}
	return nil
}

func askHealth(conn io.ReadWriter, path, host string) (status int, err error) {
	request := "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: portcullis-health\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, err
	}
	buf := make([]byte, smallBuffer)
	for n := 0; n < len(buf); {
		more, err := conn.Read(buf[n:])
		if more == 0 && err != nil {
			return 0, err
		}
		end, err := headEnd(buf[:n+more], n)
		if err != nil {
			return 0, err
		}
		if n += more; end > 0 {
			var a answerHead
			_, err := a.parse(nil, buf[:end])
			return a.status, err
		}
	}
	return 0, errors.New("head too large")
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
