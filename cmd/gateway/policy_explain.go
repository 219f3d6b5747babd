package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/policy"
)

func newPolicyExplain(s *shared) *cobra.Command {
	file, anonymous := "", false
	var roles []string
	cmd := &cobra.Command{
		Use:   "explain METHOD PATH",
		Short: "Say why a request is allowed or denied, and what would allow it",
		Long: `Say why the policy allows or denies a request: the rule that decides, the g lines that make the caller what
they are, the rules that came near and the part of each that failed, and the smallest change that would allow it.
The caller has a valid token and the roles that are given, or none. PATH is decoded and without query, as in the
policy file. The exit status is 0 if the request is allowed and 1 if it is denied.`,
		Example: `  gateway policy explain --role user GET /tasks/9
  gateway policy explain --role user --role auditor DELETE /auth/users/7 --output json
  gateway policy explain --anonymous GET /tasks --policy candidate.csv`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var named []string
			if file != "" {
				named = []string{file}
			}
			file, err := s.policyFile(named)
			if err != nil {
				return err
			}
			p, err := policy.Load(file)
			if err != nil {
				return err
			}
			e := p.Explain(policy.Caller{Authenticated: !anonymous, Roles: roles}, args[0], args[1])
			err = s.print(e, func(w io.Writer) { fmt.Fprint(w, e) })
			return reported(err, e.Effect != policy.Allow)
		},
	}
	cmd.Flags().StringArrayVar(&roles, "role", nil, "a role of the caller, without role:; may be repeated")
	cmd.Flags().BoolVar(&anonymous, "anonymous", false, "the caller has no token")
	cmd.Flags().StringVar(&file, "policy", "", "the policy file, if not that of the configuration")
	cmd.MarkFlagsMutuallyExclusive("role", "anonymous")
	return cmd
}
