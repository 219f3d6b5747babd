package main

import (
	"io"

	"github.com/spf13/cobra"

	"portcullis/policy"
)

func newPolicyMatrix(s *shared) *cobra.Command {
	var log logFlag
	cmd := &cobra.Command{
		Use:   "matrix [FILE]",
		Short: "Show who may do what: roles × paths × methods",
		Long: `Show for everybody whom the policy tells apart, and every path that it or the routes tell apart, what they may do
and which rule says so. The policy is that of the configuration; with FILE, the routes are looked at with -c only.
--output html makes a page of its own, which can be kept, mailed, or opened from disk. --log counts the requests of a
decision log in their cells.`,
		Example: `  gateway policy matrix
  gateway policy matrix --output html --log decisions.jsonl >matrix.html
  gateway policy matrix candidate.csv -c gateway.yaml --output csv`,
		Args:              cobra.MaximumNArgs(1),
		PersistentPreRunE: s.checkOutput("text", "json", "csv", "markdown", "html"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := s.matrix(cmd, args, log.files)
			if err != nil {
				return err
			}
			write, ok := map[string]func(io.Writer) error{"text": m.Text, "csv": m.CSV, "markdown": m.Markdown, "html": m.HTML}[s.output]
			if !ok {
				return s.print(m, nil)
			}
			return write(s.stdout)
		},
	}
	s.outputFlag(cmd, "text, json, csv, markdown or html")
	log.register(cmd, "count the requests of a decision log")
	return cmd
}

func (s *shared) matrix(cmd *cobra.Command, args, logs []string) (*policy.Matrix, error) {
	file, around, err := s.surroundings(cmd, args, false)
	if err != nil {
		return nil, err
	}
	rules, err := policy.Load(file)
	if err != nil {
		return nil, err
	}
	m, err := rules.Matrix(around)
	if err != nil {
		return nil, err
	}
	var bad badLines
	for r, err := range s.records(logs) {
		switch {
		case err == nil:
			m.Count(r)
		case !bad.note(err):
			return nil, err
		}
	}
	bad.show(s.stderr)
	return m, nil
}
