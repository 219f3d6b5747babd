package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"portcullis/policy"
)

func newPolicy(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check and try out the policy",
		Long: `Check and try out the policy. The exit status of these commands is made for CI: 0 if all is well or nothing
differs, 1 if there is something to be seen, 2 if the question could not be answered.`,
		Annotations: map[string]string{statusOfErrors: "2"},
		// Else a slip in the name of a command would be answered with help and 0.
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Example: `  gateway policy lint
  gateway policy test --output json
  gateway policy explain --role user GET /tasks/9
  gateway policy diff policy/policy.csv candidate.csv`,
	}
	cmd.AddCommand(newPolicyLint(s), newPolicyTest(s), newPolicyExplain(s), newPolicyDiff(s))
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

func newPolicyTest(s *shared) *cobra.Command {
	suiteFile := ""
	cmd := &cobra.Command{
		Use:   "test [FILE]",
		Short: "Hold a policy against its tests",
		Long:  "Hold a policy, by default that of the configuration, against the expectations in policy.test.yaml beside it.\nThe exit status is 1 if one is not met.",
		Example: `  gateway policy test
  gateway policy test candidate.csv --suite policy/policy.test.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := s.policyFile(args)
			if err != nil {
				return err
			}
			if suiteFile == "" {
				suiteFile = policy.SuiteFile(file)
			}
			rules, err := policy.Load(file)
			if err != nil {
				return err
			}
			suite, err := policy.LoadSuite(suiteFile)
			if err != nil {
				return err
			}
			report, err := suite.Run(rules)
			if err != nil {
				return err
			}
			err = s.print(report, func(w io.Writer) { fmt.Fprint(w, report) })
			return reported(err, report.Failed > 0)
		},
	}
	cmd.Flags().StringVar(&suiteFile, "suite", "", "the tests, if not beside the policy")
	return cmd
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
