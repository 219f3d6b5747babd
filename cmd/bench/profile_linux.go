package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/google/pprof/profile"
)

// profiler takes a profile of the gateway in every measurement at saturation. It is
// what the compiler is told of the road, see https://go.dev/doc/pgo.
type profiler struct {
	file  string
	taken []*profile.Profile
}

// begin takes a profile for about as long as a measurement, which whoever calls it
// begins now, and returns a function that waits for it.
func (p *profiler) begin(ctx context.Context, s *running, d time.Duration) (wait func() error) {
	if p == nil || s.admin == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- p.take(ctx, s.admin, d) }()
	return func() error { return <-done }
}

func (p *profiler) take(ctx context.Context, admin string, d time.Duration) error {
	seconds := max(1, int(d.Round(time.Second).Seconds()))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/debug/pprof/profile?seconds="+strconv.Itoa(seconds), nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }() // it was read
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("taking a profile: %s", answer.Status)
	}
	one, err := profile.Parse(answer.Body)
	if err != nil {
		return fmt.Errorf("taking a profile: %w", err)
	}
	p.taken = append(p.taken, one)
	return nil
}

// write writes what was taken as one profile. Where the binary was is nobody's business.
func (p *profiler) write() error {
	all, err := profile.Merge(p.taken)
	if err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	for _, m := range all.Mapping {
		m.File, m.BuildID = "", ""
	}
	all.TimeNanos = 0
	f, err := os.Create(p.file)
	if err != nil {
		return err
	}
	if err := all.Write(f); err != nil {
		_ = f.Close() // the first error is the one
		return err
	}
	return f.Close()
}
