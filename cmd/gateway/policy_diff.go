package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/policy"
)

func newPolicyDiff(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say which requests a change of policy allows or denies, and to whom",
		Long: `Compare what two policy files mean, not their lines: who gains or loses which methods on which paths, with an
example of each and the rules that decided it before and decide it now. Nothing is left out and nothing is guessed.
The exit status is 0 if both mean the same and 1 if not.`,
		Example: `  gateway policy diff policy/policy.csv candidate.csv
  gateway policy diff <(git show main:policy/policy.csv) policy/policy.csv --output markdown`,
		Args:              cobra.ExactArgs(2),
		PersistentPreRunE: s.checkOutput("text", "json", "markdown"),
		RunE: func(_ *cobra.Command, args []string) error {
			before, err := policy.Load(args[0])
			if err != nil {
				return err
			}
			after, err := policy.Load(args[1])
			if err != nil {
				return err
			}
			d, err := policy.Diff(before, after)
			if err != nil {
				return err
			}
			text := d.String
			if s.output == "markdown" {
				text = d.Markdown
			}
			err = s.print(d, func(w io.Writer) { fmt.Fprint(w, text()) })
			return reported(err, !d.Same())
		},
	}
	s.outputFlag(cmd, "text, json or markdown")
	return cmd
}
