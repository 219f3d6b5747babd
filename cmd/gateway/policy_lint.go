package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/identity"
	"portcullis/policy"
)

func newPolicyLint(s *shared) *cobra.Command {
	strict, users, hits := false, false, ""
	cmd := &cobra.Command{
		Use:   "lint [FILE]",
		Short: "Report what is wrong or hardly meant in a policy file",
		Long: `Report what is wrong or hardly meant in a policy file, by default that of the configuration, which is then also
held against the routes and the gateway's own endpoints. With FILE, that takes -c. With --users, the store is asked
which roles there are users for.
The exit status is 1 if there are errors or, with --strict, warnings.`,
		Example: `  gateway policy lint
  gateway policy lint --users
  gateway policy lint --hits 30d
  gateway policy lint candidate.csv -c gateway.yaml --strict --output json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, around, err := s.surroundings(cmd, args, users)
			if err != nil {
				return err
			}
			source, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("reading the policy: %w", err)
			}
			problems := around.Lint(file, source)
			var dead unused
			if hits != "" && !slices.ContainsFunc(problems, func(p policy.Problem) bool { return p.Severity == policy.Error }) {
				if dead, err = s.unusedRules(cmd.Context(), hits, file, source); err != nil {
					return err
				}
				problems = append(problems, dead.problems...)
			}
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
				dead.suggest(w)
			})
			return reported(err, failed)
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "let warnings fail, too")
	cmd.Flags().BoolVar(&users, "users", false, "ask the store which roles users have")
	cmd.Flags().StringVar(&hits, "hits", "", "name the rules that have decided nothing in so many days, such as 30d, and suggest the policy without them")
	return cmd
}

// surroundings is the policy file that a command is about and what is known of
// the world around it. With a file of its own a command needs no configuration,
// and gets one if it is named.
func (s *shared) surroundings(cmd *cobra.Command, args []string, users bool) (file string, around policy.Surroundings, err error) {
	if len(args) > 0 && !users && !cmd.Flags().Changed("config") {
		return args[0], around, nil
	}
	cfg, err := s.load()
	if err != nil {
		return "", around, err
	}
	if file = cfg.Policy.File; len(args) > 0 {
		file = args[0]
	}
	if around.Served, err = served(cfg); err != nil {
		return "", around, err
	}
	around.Granted = slices.Concat(cfg.Identity.DefaultRoles, cfg.Identity.AdminRoles)
	for _, issuer := range cfg.Identity.Issuers {
		around.Granted = slices.AppendSeq(around.Granted, maps.Values(issuer.Roles))
	}
	slices.Sort(around.Granted)
	around.Reserved = []string{serviceConfig(cfg.Identity).SuperRole}
	if users {
		around.Users, err = s.population(cmd.Context())
	}
	return file, around, err
}

// served lists what a gateway with this configuration answers.
func served(cfg *config.Config) ([]policy.Served, error) {
	endpoints, err := gateway.Endpoints(cfg.Identity.Prefix)
	if err != nil {
		return nil, err
	}
	var all []policy.Served
	for _, r := range routeConfigs(cfg) {
		s := policy.Served{What: "route", Path: r.Path, Prefix: true, Upstream: r.Upstream, Rewrite: r.Rewrite}
		for _, target := range cfg.Upstreams[r.Upstream].Targets {
			s.Targets = append(s.Targets, target.Host)
		}
		all = append(all, s)
	}
	if cfg.ForwardAuth.Proxy != "none" { // what is behind the proxy that asks is not ours to know
		all = append(all, policy.Served{What: "front proxy", Path: "/", Prefix: true})
	}
	for _, e := range endpoints {
		methods := []string{e.Method}
		if e.Method == "GET" {
			methods = append(methods, "HEAD")
		}
		all = append(all, policy.Served{What: "endpoint", Path: e.Path, Methods: methods})
	}
	return all, nil
}

// population counts the active users of the store by their roles.
func (s *shared) population(ctx context.Context) (*policy.Population, error) {
	users := new(policy.Population)
	err := s.withAccounts(ctx, func(ctx context.Context, service *identity.Service) error {
		for cursor := ""; ; {
			page, next, err := service.Users(ctx, nil, "", cursor, 500)
			if err != nil {
				return err
			}
			for _, u := range page {
				if u.Active {
					users.Add(u.Username, policy.Caller{Authenticated: true, Roles: u.Roles})
				}
			}
			if cursor = next; cursor == "" {
				return nil
			}
		}
	})
	return users, err
}
