//go:build linux

package main

import (
	"context"
	"net/http"
	"os"
	"time"
)

// The cases that are more than the same requests to several servers.

func ourselves() server { return server{kind: portcullis, log: true, algorithm: "EdDSA", rules: 10} }

// isolation measures what logins and requests that are proxied do to each other, and
// what a hash alone does to another proxy.
func isolation(b *bench, c *benchCase) error {
	if err := b.besideLogins(c); err != nil {
		return err
	}
	return b.besideHash(c)
}

// besideLogins measures what is proxied with and without a flood of logins, and the
// logins with and without what is proxied.
func (b *bench) besideLogins(c *benchCase) error {
	us := ourselves()
	us.account = true
	s, err := b.site.start(b.ctx, us)
	if err != nil {
		return err
	}
	defer s.stop()
	requests, err := c.requests(s, entry{tokens: 1})
	if err != nil {
		return err
	}
	without, with, alone := b.row(c, "without"), b.row(c, "with logins"), b.row(c, "logins alone")
	long := *b
	long.duration = 3 * b.duration // there are few logins in a second
	perSecond := 0.0
	for round := range b.rounds {
		b.begin(c.name, round)
		if err := b.saturate(s, without, requests, clients); err != nil {
			return err
		}
		if round == 0 {
			perSecond = slowest([]*Row{without}) / 2
		}
		if err := b.halfLoad(s, without, requests, clients, perSecond); err != nil {
			return err
		}
		f, err := newFlood(b.ctx, s.addr)
		if err != nil {
			return err
		}
		err = f.measure(alone, func() error { return sleep(b.ctx, long.duration) })
		if err == nil {
			err = b.saturate(s, with, requests, clients)
		}
		if err == nil {
			err = f.measure(with, func() error { return long.halfLoad(s, with, requests, clients, perSecond) })
		}
		if failure := f.stop(); failure != nil && err == nil && b.ctx.Err() == nil {
			with.Failure, with.Figures = failure.Error(), nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// idleConnections measures what open connections cost that nothing happens on.
func idleConnections(b *bench, c *benchCase) error {
	const many = 10_000
	for _, kind := range []struct {
		name   string
		server server
	}{{"", ourselves()}, {rowNginx, server{kind: nginx}}, {rowHAProxy, server{kind: haproxy, log: true, algorithm: "HS256"}}} {
		without, with := b.row(c, "without"), b.row(c, "with idle")
		if kind.name != "" {
			without.Name, with.Name = kind.name+", without", kind.name+", with idle"
		}
		err := b.idleOf(kind.server, c, many, without, with)
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) idleOf(of server, c *benchCase, many int, without, with *Row) error {
	for round := range b.rounds {
		b.begin(c.name+", "+with.Name, round)
		s, err := b.site.start(b.ctx, of)
		if err != nil {
			return err
		}
		err = b.idleRound(s, c, of.algorithm != "", many, without, with)
		s.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) idleRound(s *running, c *benchCase, token bool, many int, without, with *Row) error {
	e := entry{}
	if token {
		e.tokens = 1
	}
	requests, err := c.requests(s, e)
	if err != nil {
		return err
	}
	if err := b.saturate(s, without, requests, clients); err != nil {
		return err
	}
	perSecond := slowest([]*Row{without}) / 2
	if err := b.halfLoad(s, without, requests, clients, perSecond); err != nil {
		return err
	}
	before, err := s.memory()
	if err != nil {
		return err
	}
	return b.verdict(with, func() error {
		idle, err := newLoad(s.addr, many, requests)
		if err != nil {
			return err
		}
		defer idle.close()
		// Each has a request answered, a few at a time.
		const hurry = 4000.0
		if _, err := idle.open(b.ctx, time.Duration(float64(many)*1.1/hurry*float64(time.Second)), hurry); err != nil {
			return err
		}
		if err := sleep(b.ctx, time.Second); err != nil {
			return err
		}
		after, err := s.memory()
		if err != nil {
			return err
		}
		with.add(perConn, float64(after-before)/float64(many)/1000)
		return b.halfLoad(s, with, requests, clients, perSecond)
	})
}

// startUp measures the time from the start of the process to "ready", and the
// memory before the first request.
func startUp(b *bench, c *benchCase) error {
	row := b.row(c, rowPortcullis)
	r, dir, err := b.site.prepareGateway(b.ctx, ourselves())
	if err != nil {
		return err
	}
	if err := settle(b.site.gateway); err != nil {
		return err
	}
	for round := range b.rounds + 1 {
		begin := time.Now()
		p, err := startProcess(dir, "portcullis", b.site.gateway, "serve")
		if err != nil {
			return err
		}
		took, err := ready(b.ctx, p, r.admin, begin)
		if err == nil {
			err = sleep(b.ctx, time.Second)
		}
		mem := 0
		if err == nil {
			mem, err = p.memory()
		}
		p.stop()
		if err != nil {
			return err
		}
		if round > 0 { // the first start makes keys and a database
			row.add(startup, took.Seconds()*1e3)
			row.add(idleMemory, float64(mem)/1e6)
		}
	}
	return nil
}

func ready(ctx context.Context, p *process, admin string, begin time.Time) (time.Duration, error) {
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	for time.Since(begin) < patience {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
		if err != nil {
			return 0, err
		}
		if answer, err := client.Do(request); err == nil {
			_ = answer.Body.Close() // the status says it
			if answer.StatusCode == http.StatusOK {
				return time.Since(begin), nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-p.ended:
			return 0, p.failure("has ended")
		case <-time.After(time.Millisecond):
		}
	}
	return 0, p.failure("is not ready")
}

// soak is one long measurement at half load, with the memory in 60 steps.
func soak(b *bench, c *benchCase) error {
	s, err := b.site.start(b.ctx, ourselves())
	if err != nil {
		return err
	}
	defer s.stop()
	requests, err := c.requests(s, entry{tokens: 1000})
	if err != nil {
		return err
	}
	row := b.row(c, rowPortcullis)
	first := *b
	first.duration = min(b.duration, 3*time.Second)
	if err := first.saturate(s, row, requests, clients); err != nil || row.Failure != "" {
		return err
	}
	perSecond := slowest([]*Row{row}) / 2
	row.Figures = nil
	step := *b
	step.duration = b.duration / 60
	for range 60 {
		if err := step.halfLoad(s, row, requests, clients, perSecond); err != nil {
			return err
		}
		mem, err := s.memory()
		if err != nil {
			return err
		}
		row.add(memory, float64(mem)/1e6)
		if info, err := os.Stat(s.log); err == nil && info.Size() > 1<<30 {
			_ = os.Truncate(s.log, 0) // the disk is not what is tested
		}
	}
	return nil
}
