package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func newPolicy(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check and try out the policy",
		Long: `Check and try out the policy. The exit status of these commands is made for CI: 0 if all is well or nothing
differs, 1 if there is something to be seen, 2 if the question could not be answered.`,
		Annotations: map[string]string{statusOfErrors: "2"},
		Example: `  gateway policy lint
  gateway policy test --output json
  gateway policy explain --role user GET /tasks/9
  gateway policy diff policy/policy.csv candidate.csv`,
	}
	cmd.AddCommand(newPolicyLint(s), newPolicyTest(s), newPolicyExplain(s), newPolicyDiff(s), newPolicyMatrix(s), newPolicyReplay(s), newPolicyPromote(s))
	return cmd
}

// policyFile is the file named by the arguments, or else by the configuration.
func (s *shared) policyFile(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	cfg, err := s.load()
	if err != nil {
		return "", err
	}
	return cfg.Policy.File, nil
}

// outputFlag gives a command more forms of output than all have.
func (s *shared) outputFlag(cmd *cobra.Command, forms string) {
	cmd.Flags().StringVar(&s.output, "output", "text", "how the result is printed: "+forms)
}

// checkOutput takes the place of the check that is made for all commands.
func (s *shared) checkOutput(forms ...string) func(*cobra.Command, []string) error {
	return func(*cobra.Command, []string) error {
		if !slices.Contains(forms, s.output) {
			last := len(forms) - 1
			return fmt.Errorf("--output %q: want %s or %s", s.output, strings.Join(forms[:last], ", "), forms[last])
		}
		return nil
	}
}

// reported turns a failure that was shown already into an exit status.
func reported(err error, failed bool) error {
	if err == nil && failed {
		return errReported
	}
	return errors.Join(err)
}
