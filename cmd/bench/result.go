//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Result is what a run of the benchmark has found, as it is kept in a file.
type Result struct {
	Date     string  `json:"date"`
	Machine  Machine `json:"machine"`
	Rounds   int     `json:"rounds"`
	Duration string  `json:"duration"` // of each measurement
	Note     string  `json:"note,omitempty"`
	Rows     []*Row  `json:"rows"`
}

// Machine says where it was found, as far as it matters.
type Machine struct {
	Processors int    `json:"processors"`
	Model      string `json:"model"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Nginx      string `json:"nginx"`
	HAProxy    string `json:"haproxy"`
	// Apart is how far from each other two of the processors were, in nanoseconds,
	// before each round of each case; see apart.
	Apart []float64 `json:"apart_ns,omitempty"`
}

// String is the machine in words.
func (m Machine) String() string {
	processors := fmt.Sprintf("%d processors (%s)", m.Processors, m.Model)
	if s, ok := spreadOf(m.Apart); ok {
		processors += fmt.Sprintf(" that are %.0f ns apart [%.0f–%.0f]", s.median, s.low, s.high)
	}
	return fmt.Sprintf("%s, Linux %s, %s, nginx %s, HAProxy %s", processors, m.Kernel, strings.Replace(m.Go, "go", "Go ", 1), m.Nginx, m.HAProxy)
}

// Row is what was found of one server in one case: a value of each round.
type Row struct {
	Case    string               `json:"case"`
	Name    string               `json:"name"`
	Figures map[figure][]float64 `json:"figures,omitempty"`
	Failure string               `json:"failure,omitempty"` // then there are no figures
}

// figure names what is measured. The names are those of the file.
type figure string

const (
	cpu        figure = "cpu_us_per_request"           // user and system, at saturation
	throughput figure = "requests_per_second"          // at saturation
	halfCPU    figure = "cpu_us_per_request_half_load" // at the rate below
	rate       figure = "rate"                         // half the saturation of the slowest of the case
	p50        figure = "p50_ms"                       // at that rate
	p99        figure = "p99_ms"                       // likewise
	memory     figure = "memory_mb"                    // proportional set size after the load
	startup    figure = "start_ms"                     // until ready
	idleMemory figure = "idle_memory_mb"
	perConn    figure = "kb_per_idle_connection"
	logins     figure = "logins_per_second"
)

func (row *Row) add(f figure, v float64) {
	if row.Figures == nil {
		row.Figures = map[figure][]float64{}
	}
	row.Figures[f] = append(row.Figures[f], v)
}

func (r *Result) row(name, of string) *Row {
	for _, row := range r.Rows {
		if row.Case == of && row.Name == name {
			return row
		}
	}
	return nil
}

// spread is the median of the rounds, the least and the greatest.
type spread struct{ median, low, high float64 }

// spreadOf returns false for no values.
func spreadOf(values []float64) (spread, bool) {
	if len(values) == 0 {
		return spread{}, false
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := sorted[len(sorted)/2]
	if len(sorted)%2 == 0 {
		middle = (middle + sorted[len(sorted)/2-1]) / 2
	}
	return spread{middle, sorted[0], sorted[len(sorted)-1]}, true
}

// ratio compares round with round, because what disturbs a machine for a while
// disturbs both.
func ratio(a, b []float64) (spread, bool) {
	var all []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			all = append(all, a[i]/b[i])
		}
	}
	return spreadOf(all)
}

func readResult(file string) (*Result, error) {
	text, err := os.ReadFile(file) //nolint:gosec // whoever runs this names it
	if err != nil {
		return nil, err
	}
	r := &Result{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

func (r *Result) write(file string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644) //nolint:gosec // to be read by everybody
}
