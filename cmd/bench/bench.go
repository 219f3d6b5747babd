//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// bench is one run.
type bench struct {
	ctx      context.Context
	site     *site
	rounds   int
	duration time.Duration
	progress io.Writer
	result   *Result
	profiler *profiler // nil: no profile is taken
}

const clients = 64

// run measures one case: every row in each round, and each round begins with
// another one.
func (b *bench) run(c *benchCase) error {
	if c.special != nil {
		return c.special(b, c)
	}
	if c.clients == 0 {
		c.clients = clients
	}
	started := map[server]*running{}
	defer func() {
		for _, s := range started {
			s.stop()
		}
	}()
	var rows []*Row
	for _, e := range c.rows {
		rows = append(rows, b.row(c, e.name))
		if started[e.server] != nil {
			continue
		}
		s, err := b.site.start(b.ctx, e.server)
		if err != nil {
			return err
		}
		started[e.server] = s
	}
	requests := make([][][]byte, len(rows))
	for i, e := range c.rows {
		var err error
		if requests[i], err = c.requests(started[e.server], e); err != nil {
			return err
		}
	}
	perSecond := 0.0 // of the open loop
	for round := range b.rounds {
		b.begin(c.name, round)
		for i := range rows {
			i = (i + round) % len(rows)
			if err := b.saturate(started[c.rows[i].server], rows[i], requests[i], c.clients); err != nil {
				return err
			}
		}
		if round == 0 {
			perSecond = slowest(rows) / 2
		}
		for i := range rows {
			i = (i + round) % len(rows)
			if err := b.halfLoad(started[c.rows[i].server], rows[i], requests[i], c.clients, perSecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin says that a round does.
func (b *bench) begin(name string, round int) {
	fmt.Fprintf(b.progress, "bench: %s, round %d of %d\n", name, round+1, b.rounds)
	if ns := apart(); ns > 0 {
		b.result.Machine.Apart = append(b.result.Machine.Apart, ns)
	}
}

func (b *bench) row(c *benchCase, name string) *Row {
	r := &Row{Case: c.name, Name: name}
	b.result.Rows = append(b.result.Rows, r)
	return r
}

// slowest is the least throughput of any row, so that half of it is at most half
// of what each can do.
func slowest(rows []*Row) float64 {
	least := 0.0
	for _, r := range rows {
		if all := r.Figures[throughput]; len(all) > 0 && (least == 0 || all[0] < least) {
			least = all[0]
		}
	}
	return least
}

// saturate measures with every client busy. A failure is the row's, which has no
// figures then; an error ends the run.
func (b *bench) saturate(s *running, row *Row, requests [][]byte, clients int) error {
	if row.Failure != "" {
		return nil
	}
	return b.verdict(row, func() error {
		l, err := newLoad(s.addr, clients, requests)
		if err != nil {
			return err
		}
		defer l.close()
		if _, _, err = l.closed(b.ctx, b.warmUp()); err != nil {
			return err
		}
		for l.done < 2*len(requests) { // what is cached for a token has to be there
			if _, _, err = l.closed(b.ctx, b.warmUp()); err != nil {
				return err
			}
		}
		before, err := s.cpu()
		if err != nil {
			return err
		}
		profiled := b.profiler.begin(b.ctx, s, b.duration)
		n, took, err := l.closed(b.ctx, b.duration)
		if err = errors.Join(err, profiled()); err != nil {
			return err
		}
		after, err := s.cpu()
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("no request was answered in %v", took)
		}
		mem, err := s.memory()
		if err != nil {
			return err
		}
		row.add(cpu, float64((after-before).Microseconds())/float64(n))
		row.add(throughput, float64(n)/took.Seconds())
		row.add(memory, float64(mem)/1e6)
		return l.settle(b.ctx)
	})
}

// halfLoad measures at a rate that nobody has trouble with.
func (b *bench) halfLoad(s *running, row *Row, requests [][]byte, clients int, perSecond float64) error {
	if row.Failure != "" || perSecond == 0 {
		return nil
	}
	return b.verdict(row, func() error {
		l, err := newLoad(s.addr, clients, requests)
		if err != nil {
			return err
		}
		defer l.close()
		if _, err = l.open(b.ctx, b.warmUp(), perSecond); err != nil {
			return err
		}
		before, err := s.cpu()
		if err != nil {
			return err
		}
		got, err := l.open(b.ctx, b.duration, perSecond)
		if err != nil {
			return err
		}
		after, err := s.cpu()
		if err != nil {
			return err
		}
		row.add(rate, perSecond)
		row.add(halfCPU, float64((after-before).Microseconds())/float64(max(len(got), 1)))
		row.add(p50, quantile(got, 0.50).Seconds()*1e3)
		row.add(p99, quantile(got, 0.99).Seconds()*1e3)
		return nil
	})
}

// verdict notes a failure in the row, unless the run was stopped.
func (b *bench) verdict(row *Row, measure func() error) error {
	err := measure()
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	if err != nil {
		row.Failure, row.Figures = err.Error(), nil
		fmt.Fprintf(b.progress, "bench: %s, %s: no result: %v\n", row.Case, row.Name, err)
	}
	return nil
}

func (b *bench) warmUp() time.Duration { return max(b.duration/4, 100*time.Millisecond) }
