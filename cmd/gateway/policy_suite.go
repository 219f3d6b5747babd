package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/spf13/cobra"

	"portcullis/policy"
)

// testFlags are what `policy test` can be told.
type testFlags struct {
	suite, run, junit string
	cover             bool
	coverMin          float64
}

// testResult is what it prints: the report, with the coverage if that is wanted.
type testResult struct {
	policy.Report
	Coverage *policy.Coverage `json:"coverage,omitempty"`
}

func newPolicyTest(s *shared) *cobra.Command {
	var flags testFlags
	cmd := &cobra.Command{
		Use:   "test [FILE]",
		Short: "Hold a policy against its tests",
		Long: `Hold a policy, by default that of the configuration, against the expectations in policy.test.yaml beside it.
With --cover, also say which lines of the policy no test uses.
The exit status is 1 if an expectation is not met, or less than --cover-min percent of the lines are covered.`,
		Example: `  gateway policy test
  gateway policy test --run 'tasks|users'
  gateway policy test --cover-min 90 --junit policy.xml
  gateway policy test candidate.csv --suite policy/policy.test.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if flags.coverMin < 0 || flags.coverMin > 100 {
				return fmt.Errorf("--cover-min %v: want a percentage", flags.coverMin)
			}
			file, err := s.policyFile(args)
			if err != nil {
				return err
			}
			result, err := flags.test(file)
			if err != nil {
				return err
			}
			err = s.print(result, func(w io.Writer) {
				fmt.Fprint(w, result.Report)
				if result.Coverage != nil {
					fmt.Fprint(w, result.Coverage)
				}
			})
			return reported(err, result.Failed > 0 || result.Coverage != nil && !result.Coverage.Reaches(flags.coverMin))
		},
	}
	cmd.Flags().StringVar(&flags.suite, "suite", "", "the tests, if not beside the policy")
	cmd.Flags().StringVar(&flags.run, "run", "", "run only tests whose name matches this regular expression")
	cmd.Flags().StringVar(&flags.junit, "junit", "", "also write a JUnit report to this file")
	cmd.Flags().BoolVar(&flags.cover, "cover", false, "say which lines of the policy no test uses")
	cmd.Flags().Float64Var(&flags.coverMin, "cover-min", 0, "fail if less of the policy is covered, in percent")
	return cmd
}

func (f testFlags) test(file string) (testResult, error) {
	rules, err := policy.Load(file)
	if err != nil {
		return testResult{}, err
	}
	if f.suite == "" {
		f.suite = policy.SuiteFile(file)
	}
	suite, err := policy.LoadSuite(f.suite)
	if err != nil {
		return testResult{}, err
	}
	if f.run != "" {
		names, err := regexp.Compile(f.run)
		if err != nil {
			return testResult{}, fmt.Errorf("--run: %w", err)
		}
		if suite = suite.Only(names); suite == nil {
			return testResult{}, fmt.Errorf("--run %s: no test of %s has such a name", f.run, f.suite)
		}
	}
	result := testResult{}
	if result.Report, err = suite.Run(rules); err != nil {
		return testResult{}, err
	}
	if f.cover || f.coverMin > 0 {
		c := result.Report.Coverage(rules)
		result.Coverage = &c
	}
	if f.junit == "" {
		return result, nil
	}
	to, err := os.Create(f.junit)
	if err != nil {
		return testResult{}, err
	}
	return result, errors.Join(result.Report.JUnit(to), to.Close())
}
