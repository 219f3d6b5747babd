package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/policy"
)

func newPolicyPromote(s *shared) *cobra.Command {
	p := &promotion{shared: s}
	cmd := &cobra.Command{
		Use:   "promote",
		Short: "Put the shadow policy in the place of the policy, when nobody objects",
		Long: `Put the candidate (policy.shadow) in the place of the policy (policy.file), with its tests if it has some of its own.
The old files stay as .bak; the running gateway takes the new ones over by itself, and the command waits until it has.
It is refused if the gateway would refuse the policy, if the gateway has compared another file or nothing yet, and
while there are disagreements that nobody has acknowledged.
The exit status is 0 when the gateway runs the candidate, 1 if that is refused, and 2 if it could not be found out.`,
		Example: `  gateway policy promote
  gateway policy promote --acknowledge 5f0c1d2e3a4b --acknowledge 0123456789ab
  gateway policy promote --acknowledge all --admin http://127.0.0.1:8081`,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{statusOfErrors: "2"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, err := p.run(cmd.Context())
			if err != nil {
				return err
			}
			err = s.print(result, func(w io.Writer) { result.write(w) })
			return reported(err, !result.Promoted)
		},
	}
	cmd.Flags().StringArrayVar(&p.acknowledge, "acknowledge", nil, "a group of disagreements to acknowledge, or all that there are; may be repeated")
	cmd.Flags().StringVar(&p.admin, "admin", "", "where the gateway listens for operators, if not where the configuration says")
	return cmd
}

// promotion is one run of the command.
type promotion struct {
	*shared
	acknowledge []string
	admin       string
}

// promoted is what came of it.
type promoted struct {
	Promoted  bool                        `json:"promoted"`
	Candidate string                      `json:"candidate"`
	Revision  string                      `json:"revision"`
	Compared  uint64                      `json:"compared"` // requests
	Reasons   []string                    `json:"reasons"`  // why not
	Objecting []gateway.DisagreementGroup `json:"objecting"`
}

func (p *promoted) refuse(format string, args ...any) {
	p.Reasons = append(p.Reasons, fmt.Sprintf(format, args...))
}

func (p *promoted) write(w io.Writer) {
	if p.Promoted {
		fmt.Fprintf(w, "%s is the policy now (revision %s, after %d requests)\n", p.Candidate, p.Revision, p.Compared)
		return
	}
	fmt.Fprintf(w, "%s is not promoted\n", p.Candidate)
	for _, r := range p.Reasons {
		fmt.Fprintf(w, "  %s\n", r)
	}
	for _, g := range p.Objecting {
		would := map[string]string{"would_allow": "would allow", "would_deny": "would deny"}[g.Direction]
		requests := "1 request"
		if g.Count != 1 {
			requests = fmt.Sprintf("%d requests", g.Count)
		}
		fmt.Fprintf(w, "  %s  %s %s, such as %s %s\n      now:  %s\n      then: %s\n",
			g.ID, would, requests, g.Example.Method, g.Example.Path, orNoRule(g.RunningRule), orNoRule(g.CandidateRule))
	}
	if len(p.Objecting) > 0 {
		fmt.Fprintln(w, "  if that is meant: gateway policy promote --acknowledge ID, or --acknowledge all")
	}
}

func orNoRule(rule string) string {
	if rule == "" {
		return "no rule"
	}
	return rule
}

func (p *promotion) run(ctx context.Context) (*promoted, error) {
	cfg, err := p.load()
	if err != nil {
		return nil, err
	}
	if cfg.Policy.Shadow == "" {
		return nil, errors.New("there is no candidate: policy.shadow is not set")
	}
	at, err := newOperator(cfg, p.admin)
	if err != nil {
		return nil, err
	}
	files, err := promotedFiles(cfg)
	if err != nil {
		return nil, err
	}
	result := &promoted{Candidate: cfg.Policy.Shadow, Reasons: []string{}, Objecting: []gateway.DisagreementGroup{}}
	rules, err := files.check(cfg)
	if err != nil {
		result.refuse("the gateway would refuse it: %v", err)
		return result, nil
	}
	result.Revision = rules.Revision()
	report, err := p.report(ctx, at, rules.Revision())
	if err != nil {
		return nil, err
	}
	result.Compared = report.Same + report.WouldAllow + report.WouldDeny
	p.judge(result, report)
	if running, err := policy.Parse(cfg.Policy.File, files[0].old); err == nil {
		if running.Revision() != report.PolicyRevision {
			result.refuse("%s (revision %s) is not what the gateway runs (%s)", cfg.Policy.File, running.Revision(), report.PolicyRevision)
		}
		if problems := rules.CheckOpened(running); len(problems) > 0 {
			result.refuse("the gateway would refuse it: %v", problems)
		}
	}
	if len(result.Reasons)+len(result.Objecting) > 0 {
		return result, nil
	}
	if err := files.replace(); err != nil {
		return nil, err
	}
	return result, p.await(ctx, at, result)
}

// report asks the gateway what it has seen, and acknowledges what was asked for.
func (p *promotion) report(ctx context.Context, at *operator, revision string) (*gateway.ShadowReport, error) {
	report := new(gateway.ShadowReport)
	if err := at.get(ctx, "/policy/shadow", report); err != nil {
		return nil, err
	}
	ids := p.acknowledge
	if slices.Contains(ids, "all") {
		ids = nil
		for _, g := range report.Groups {
			ids = append(ids, g.ID)
		}
	}
	if len(ids) == 0 || report.CandidateRevision != revision {
		return report, nil
	}
	err := at.post(ctx, "/policy/shadow/acknowledge", gateway.Acknowledgement{CandidateRevision: revision, Groups: ids}, report)
	return report, err
}

// judge says what in a gateway's report speaks against a promotion.
func (p *promotion) judge(result *promoted, report *gateway.ShadowReport) {
	switch {
	case report.Problem != "":
		result.refuse("the gateway does not ask it: %s", report.Problem)
	case report.CandidateRevision != result.Revision:
		result.refuse("its revision is %s, but the gateway has compared %s", result.Revision, report.CandidateRevision)
	case result.Compared == 0 && !slices.Contains(p.acknowledge, "all"):
		result.refuse("the gateway has not compared a single request yet (--acknowledge all, if that is meant)")
	}
	for _, g := range report.Groups {
		if !g.Acknowledged {
			result.Objecting = append(result.Objecting, g)
		}
	}
}

// takeoverWait is how long a gateway may take to take a promoted policy over.
const takeoverWait = 15 * time.Second

// await returns when the gateway runs the candidate.
func (p *promotion) await(ctx context.Context, at *operator, result *promoted) error {
	ctx, cancel := context.WithTimeout(ctx, takeoverWait)
	defer cancel()
	for {
		var ready struct {
			Revision    string `json:"policy_revision"`
			ReloadError string `json:"reload_error"`
		}
		err := at.get(ctx, "/readyz", &ready)
		switch {
		case err == nil && ready.Revision == result.Revision:
			result.Promoted = true
			return nil
		case err == nil && ready.ReloadError != "":
			result.refuse("the files are replaced, but the gateway refuses the reload and keeps the old policy: %s", ready.ReloadError)
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("the files are replaced, but the gateway does not say that it has taken them over"), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// replacement is a file that takes the place of another.
type replacement struct {
	from, to string
	old, new []byte
	mode     fs.FileMode
}

// replacements are the policy and, if the candidate has tests of its own, these.
type replacements []replacement

func promotedFiles(cfg *config.Config) (replacements, error) {
	all := replacements{{from: cfg.Policy.Shadow, to: cfg.Policy.File}}
	if own := policy.SuiteFile(cfg.Policy.Shadow); fileExists(own) {
		all = append(all, replacement{from: own, to: policy.SuiteFile(cfg.Policy.File)})
	}
	for i := range all {
		r := &all[i]
		info, err := os.Lstat(r.to)
		switch {
		case err == nil && !info.Mode().IsRegular():
			return nil, fmt.Errorf("%s is not a file of its own but a link or the like: change it where it comes from", r.to)
		case err == nil:
			r.mode = info.Mode().Perm()
			r.old, err = os.ReadFile(r.to)
		case i > 0 && errors.Is(err, fs.ErrNotExist):
			r.mode, err = 0o644, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading what is to be replaced: %w", err)
		}
		if r.new, err = os.ReadFile(r.from); err != nil {
			return nil, fmt.Errorf("reading the candidate: %w", err)
		}
	}
	return all, nil
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// check makes a policy of what will be the files, and looks at it as a reload does.
func (all replacements) check(cfg *config.Config) (*policy.Policy, error) {
	rules, err := policy.Parse(all[0].from, all[0].new)
	if err != nil {
		return nil, err
	}
	suite := policy.SuiteFile(cfg.Policy.File)
	if len(all) > 1 {
		suite = all[1].from
	}
	if err := testPolicy(rules, suite); err != nil {
		return nil, err
	}
	return rules, checkAdministrators(cfg, rules)
}

// replace puts each file into its place, in one step that others see, and keeps
// what was there. What was checked is written, whatever became of the candidate's
// file. The tests come first: without the new policy they only refuse a reload.
func (all replacements) replace() error {
	for _, r := range slices.Backward(all) {
		if r.old != nil {
			if err := writeWhole(r.to+".bak", r.old, r.mode); err != nil {
				return err
			}
		}
		if err := writeWhole(r.to, r.new, r.mode); err != nil {
			return err
		}
	}
	for _, r := range all {
		if now, err := os.ReadFile(r.from); err != nil || !bytes.Equal(now, r.new) {
			continue // somebody goes on with it
		}
		if err := os.Remove(r.from); err != nil {
			return fmt.Errorf("removing the candidate: %w", err)
		}
	}
	return nil
}

// writeWhole replaces a file by renaming, so that nobody sees half of it.
func writeWhole(name string, content []byte, mode fs.FileMode) error {
	temporary := name + ".tmp"
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(temporary, name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", name, err), os.Remove(temporary))
	}
	return nil
}
