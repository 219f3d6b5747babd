package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"portcullis/policy"
)

func newPolicy(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check and try out the policy",
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

func newPolicyLint(s *shared) *cobra.Command {
	strict := false
	cmd := &cobra.Command{
		Use:   "lint [FILE]",
		Short: "Report what is wrong or hardly meant in a policy file",
		Long:  "Report what is wrong or hardly meant in a policy file, by default that of the configuration.\nThe exit status is 1 if there are errors or, with --strict, warnings.",
		Example: `  gateway policy lint
  gateway policy lint policy/policy.csv --strict --output json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := s.policyFile(args)
			if err != nil {
				return err
			}
			source, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("reading the policy: %w", err)
			}
			problems := policy.Lint(file, source)
			failed := false
			for _, p := range problems {
				failed = failed || p.Severity == policy.Error || strict
			}
			if problems == nil {
				problems = policy.Problems{} // an empty list, not null
			}
			err = s.print(problems, func(w io.Writer) {
				for _, p := range problems {
					fmt.Fprintln(w, p)
				}
				if len(problems) == 0 {
					fmt.Fprintf(w, "%s: nothing to complain about\n", file)
				}
			})
			return reported(err, failed)
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "let warnings fail, too")
	return cmd
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
