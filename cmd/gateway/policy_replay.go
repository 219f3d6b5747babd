package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/policy"
)

// replayed is what `policy replay` prints.
type replayed struct {
	policy.Replayed
	BadLines badLines `json:"bad_lines,omitzero"`
}

func newPolicyReplay(s *shared) *cobra.Command {
	var log logFlag
	cmd := &cobra.Command{
		Use:   "replay [CANDIDATE]",
		Short: "Say which real decisions a policy would make otherwise",
		Long: `Ask a policy, by default that of the configuration, again what a decision log has, and say which decisions would
flip: for whom, how often, and by which rules. Allowed requests may be logged in part only (policy.decision_log), so
that what is lost is found by its share.
The exit status is 0 if nothing flips, 1 if something does, and 2 if the log cannot be read, or lines of it are no records.`,
		Example: `  gateway policy replay candidate.csv
  zcat decisions.jsonl.*.gz | gateway policy replay --log - candidate.csv --output json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			result, err := s.replay(args, log.files)
			if err != nil {
				return err
			}
			err = s.print(result, func(w io.Writer) { fmt.Fprint(w, result.Replayed) })
			if err == nil && result.BadLines.Count > 0 {
				result.BadLines.show(s.stderr)
				return fmt.Errorf("%d lines of the log hold no record, and were passed over", result.BadLines.Count)
			}
			return reported(err, result.Flipped > 0)
		},
	}
	log.register(cmd, "the decisions, if not in the log of the configuration")
	return cmd
}

func (s *shared) replay(args, logs []string) (*replayed, error) {
	file, err := s.policyFile(args)
	if err != nil {
		return nil, err
	}
	candidate, err := policy.Load(file)
	if err != nil {
		return nil, err
	}
	if logs, err = s.logFiles(logs); err != nil {
		return nil, err
	}
	replay, result := policy.NewReplay(candidate), new(replayed)
	for r, err := range s.records(logs) {
		switch {
		case err == nil:
			replay.Ask(r)
		case !result.BadLines.note(err):
			return nil, err
		}
	}
	result.Replayed = replay.Result()
	return result, nil
}
