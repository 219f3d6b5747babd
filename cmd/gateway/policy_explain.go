package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portcullis/gateway"
	"portcullis/identity"
	"portcullis/policy"
)

// explainFlags are who is asking, and where to look it up.
type explainFlags struct {
	file, user, requestID string
	anonymous             bool
	roles                 []string
	log                   logFlag
}

func newPolicyExplain(s *shared) *cobra.Command {
	var flags explainFlags
	cmd := &cobra.Command{
		Use:   "explain [METHOD PATH]",
		Short: "Say why a request is allowed or denied, and what would allow it",
		Long: `Say why the policy allows or denies a request: the rule that decides, the g lines that make the caller what
they are, the rules that came near and the part of each that failed, and the smallest change that would allow it.
The caller has a valid token and the roles that are given, or none; or is a user of the store; or, with --request-id,
whoever sent the request, which is then found in the decision log. PATH is what a client would type, and is shown
decoded, as the policy sees it. The exit status is 0 if the request is allowed and 1 if it is denied.`,
		Example: `  gateway policy explain --role user GET /tasks/9
  gateway policy explain --user ana DELETE /auth/users/7
  gateway policy explain --request-id 0198c0de-77aa-7000-8000-5a5a5a5a5a5a
  gateway policy explain --anonymous GET /tasks --policy candidate.csv --output json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if flags.requestID != "" {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := s.explain(cmd, args, flags)
			if err != nil {
				return err
			}
			err = s.print(e, func(w io.Writer) { fmt.Fprint(w, e) })
			return reported(err, e.Effect != policy.Allow)
		},
	}
	cmd.Flags().StringArrayVar(&flags.roles, "role", nil, "a role of the caller, without role:; may be repeated")
	cmd.Flags().BoolVar(&flags.anonymous, "anonymous", false, "the caller has no token")
	cmd.Flags().StringVar(&flags.user, "user", "", "the caller is this user, with the roles that the store has")
	cmd.Flags().StringVar(&flags.requestID, "request-id", "", "explain the decision about this request")
	cmd.Flags().StringVar(&flags.file, "policy", "", "the policy file, if not that of the configuration")
	flags.log.register(cmd, "where to look for the request, if not in the log of the configuration")
	cmd.MarkFlagsMutuallyExclusive("role", "anonymous", "user", "request-id")
	return cmd
}

// explained is an explanation with what the policy does not know itself.
type explained struct {
	User     *userInfo      `json:"user,omitempty"`
	Logged   *policy.Record `json:"logged,omitempty"`
	Target   string         `json:"target"`              // the path as it was given
	ServedBy string         `json:"served_by,omitempty"` // absent: nothing, if the configuration was read
	Revision string         `json:"policy"`              // of the policy that is explained
	policy.Explanation

	configured bool
}

func (s *shared) explain(cmd *cobra.Command, args []string, flags explainFlags) (*explained, error) {
	var named []string
	if flags.file != "" {
		named = []string{flags.file}
	}
	file, around, err := s.surroundings(cmd, named, false)
	if err != nil {
		return nil, err
	}
	rules, err := policy.Load(file)
	if err != nil {
		return nil, err
	}
	e := &explained{Revision: rules.Revision(), configured: around.Served != nil}
	caller := policy.Caller{Authenticated: !flags.anonymous, Roles: flags.roles}
	if flags.user != "" {
		if e.User, err = s.user(cmd.Context(), flags.user); err != nil {
			return nil, err
		}
		caller.Roles = e.User.Roles
	}
	if flags.requestID != "" {
		if e.Logged, err = s.logged(flags); err != nil {
			return nil, err
		}
		// It was decided on, so it is canonical, and it is decoded already.
		e.Target = e.Logged.Path
		e.Explanation = rules.Explain(e.Logged.Subject.Caller(), e.Logged.Method, e.Logged.Path)
	} else {
		e.Target = args[1]
		e.Explanation = explainTarget(rules, caller, args[0], args[1])
	}
	if by, ok := around.ServedBy(e.Method, e.Path); ok {
		e.ServedBy = by.String()
	}
	return e, nil
}

// explainTarget explains a request whose path is as a client sent it.
func explainTarget(rules *policy.Policy, caller policy.Caller, method, target string) policy.Explanation {
	target, _, _ = strings.Cut(target, "?")
	path, err := gateway.CanonicalPath(target)
	if err == nil {
		return rules.Explain(caller, method, path)
	}
	// The gateway refuses it before it asks the policy, which might see no harm.
	e := rules.Explain(caller, method, "")
	e.Path, e.NotCanonical = target, err.Error()
	return e
}

func (s *shared) user(ctx context.Context, name string) (*userInfo, error) {
	var info userInfo
	err := s.withAccounts(ctx, func(ctx context.Context, service *identity.Service) error {
		u, err := userByName(ctx, service, name)
		info = newUserInfo(u)
		return err
	})
	return &info, err
}

// logged finds the last decision about a request.
func (s *shared) logged(flags explainFlags) (*policy.Record, error) {
	logs, err := s.logFiles(flags.log.files)
	if err != nil {
		return nil, err
	}
	var last *policy.Record
	var bad badLines
	for r, err := range s.records(logs) {
		switch {
		case err == nil && r.RequestID == flags.requestID:
			if last == nil || last.Allowed() || !r.Allowed() { // of two paths, the one that was refused
				last = &r
			}
		case err != nil && !bad.note(err):
			return nil, err
		}
	}
	if last == nil {
		bad.show(s.stderr)
		return nil, fmt.Errorf("no decision about the request %s in %s; of allowed requests a part may be logged only",
			flags.requestID, strings.Join(logs, ", "))
	}
	return last, nil
}

// String explains in words.
func (e *explained) String() string {
	var b strings.Builder
	if r := e.Logged; r != nil {
		fmt.Fprintf(&b, "%s: %s %s of %s got %s\n", r.Time.Format(time.RFC3339), r.Method, r.Path, cmp.Or(r.Subject.UserID, "a stranger"), r.Effect)
		fmt.Fprintf(&b, "  by %s\n", cmp.Or(r.Rule, "no rule"))
		if r.Policy != e.Revision {
			fmt.Fprintf(&b, "  that was policy %s, and this is what %s says:\n", r.Policy, e.Revision)
		}
	}
	if u := e.User; u != nil {
		fmt.Fprintf(&b, "%s has %s\n", u.Username, cmp.Or(strings.Join(u.Roles, ", "), "no roles"))
		if !u.Active {
			b.WriteString("  and is disabled: whatever the policy says, the answer is 401\n")
		}
	}
	if e.Target != e.Path {
		fmt.Fprintf(&b, "%s is decided on as %s\n", e.Target, e.Path)
	}
	switch {
	case !e.configured || e.NotCanonical != "":
	case e.ServedBy != "":
		fmt.Fprintf(&b, "it is for %s\n", e.ServedBy)
	default:
		b.WriteString("nothing serves it: where the policy allows it, the answer is 404\n")
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	return b.String() + e.Explanation.String()
}
