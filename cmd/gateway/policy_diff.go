package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/policy"
)

func newPolicyDiff(s *shared) *cobra.Command {
	users := false
	var log logFlag
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say which requests a change of policy allows or denies, and to whom",
		Long: `Compare what two policy files mean, not their lines: who gains or loses which methods on which paths, with an
example of each and the rules that decided it before and decide it now. Nothing is left out and nothing is guessed.
With --users or --log, also how many users of the store, or of a decision log, each change is about.
The exit status is 0 if both mean the same and 1 if not.`,
		Example: `  gateway policy diff policy/policy.csv candidate.csv
  gateway policy diff policy/policy.csv candidate.csv --users
  gateway policy diff <(git show main:policy/policy.csv) policy/policy.csv --output markdown`,
		Args:              cobra.ExactArgs(2),
		PersistentPreRunE: s.checkOutput("text", "json", "markdown"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := s.diff(cmd.Context(), args[0], args[1], users, log.files)
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
	cmd.Flags().BoolVar(&users, "users", false, "count the users of the store whom each change affects")
	log.register(cmd, "count the users of a decision log")
	cmd.MarkFlagsMutuallyExclusive("users", "log")
	return cmd
}

func (s *shared) diff(ctx context.Context, before, after string, users bool, logs []string) (policy.Difference, error) {
	was, err := policy.Load(before)
	if err != nil {
		return policy.Difference{}, err
	}
	is, err := policy.Load(after)
	if err != nil {
		return policy.Difference{}, err
	}
	var all *policy.Population
	switch {
	case users:
		all, err = s.population(ctx)
	case len(logs) > 0:
		all, err = s.loggedUsers(logs)
	default:
		return policy.Diff(was, is)
	}
	if err != nil {
		return policy.Difference{}, err
	}
	return policy.DiffFor(was, is, all)
}

// maxLoggedUsers bounds the users of a log that are told apart.
const maxLoggedUsers = 1 << 20

// loggedUsers counts the users of decision logs by the roles that they had first.
func (s *shared) loggedUsers(logs []string) (*policy.Population, error) {
	users, seen := new(policy.Population), make(map[string]bool)
	var bad badLines
	for r, err := range s.records(logs) {
		switch {
		case err != nil && !bad.note(err):
			return nil, err
		case err != nil || r.Subject.UserID == "" || seen[r.Subject.UserID]:
		case len(seen) == maxLoggedUsers:
			return nil, fmt.Errorf("the log has more than %d users", maxLoggedUsers)
		default:
			seen[r.Subject.UserID] = true
			users.Add(r.Subject.UserID, r.Subject.Caller())
		}
	}
	bad.show(s.stderr)
	return users, nil
}
