package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"portcullis/policy"
)

// logFlag is where a command reads decisions.
type logFlag struct{ files []string }

func (l *logFlag) register(cmd *cobra.Command, use string) {
	cmd.Flags().StringArrayVar(&l.files, "log", nil, use+"; - is standard input; may be repeated")
}

var errNoLog = errors.New("there is no decision log: name one with --log, or configure policy.decision_log.file")

// logFiles are the logs that were named, or else that of the configuration with
// the full files that were put aside, the oldest first.
func (s *shared) logFiles(named []string) ([]string, error) {
	if len(named) > 0 {
		return named, nil
	}
	cfg, err := s.load()
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", errNoLog, err)
	}
	log := cfg.Policy.DecisionLog
	if log.File == "" {
		return nil, errNoLog
	}
	files := []string{log.File}
	for i := 1; i <= log.Keep; i++ {
		aside := fmt.Sprintf("%s.%d", log.File, i)
		if _, err := os.Stat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		files = append(files, aside)
	}
	slices.Reverse(files)
	return files, nil
}

// records reads decision logs one after the other. Lines that hold no record are
// yielded as problems; any other error is the last.
func (s *shared) records(files []string) iter.Seq2[policy.Record, error] {
	return func(yield func(policy.Record, error) bool) {
		for _, name := range files {
			var problem policy.Problem
			for r, err := range s.recordsOf(name) {
				if !yield(r, err) || err != nil && !errors.As(err, &problem) {
					return
				}
			}
		}
	}
}

func (s *shared) recordsOf(name string) iter.Seq2[policy.Record, error] {
	if name == "-" {
		return policy.ReadRecords("standard input", s.stdin)
	}
	return func(yield func(policy.Record, error) bool) {
		file, err := os.Open(name)
		if err != nil {
			yield(policy.Record{}, fmt.Errorf("reading decisions: %w", err))
			return
		}
		defer func() { _ = file.Close() }() // it was only read
		policy.ReadRecords(name, file)(yield)
	}
}

// badLines keeps what is wrong with logs: all of it is counted, and some shown.
type badLines struct {
	Count int      `json:"count"`
	First []string `json:"first,omitempty"`
}

// note keeps a problem with a line; false if err is another one.
func (b *badLines) note(err error) bool {
	var p policy.Problem
	if !errors.As(err, &p) {
		return false
	}
	const shown = 5
	if b.Count++; len(b.First) < shown {
		b.First = append(b.First, p.String())
	}
	return true
}

func (b *badLines) show(w io.Writer) {
	for _, line := range b.First {
		fmt.Fprintln(w, line)
	}
	if n := b.Count - len(b.First); n > 0 {
		fmt.Fprintf(w, "and %d more lines that hold no record\n", n)
	}
}
