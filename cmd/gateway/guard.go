package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/policy"
)

// What keeps a policy from being served, at a start and at a reload alike. A
// reload compares the policy with the running one besides: see reload.go.

// loadPolicy reads the policy, holds it against its tests, if it has any, and
// wants somebody to be able to administer under it.
func loadPolicy(cfg *config.Config) (*policy.Policy, error) {
	rules, err := policy.Load(cfg.Policy.File)
	if err != nil {
		return nil, err
	}
	if err := testPolicy(rules, policy.SuiteFile(cfg.Policy.File)); err != nil {
		return nil, err
	}
	if err := checkAdministrators(cfg, rules); err != nil {
		return nil, err
	}
	return rules, nil
}

func testPolicy(rules *policy.Policy, file string) error {
	suite, err := policy.LoadSuite(file)
	if _, missing := os.Lstat(file); errors.Is(missing, os.ErrNotExist) {
		return nil // there are none; a link that leads nowhere is another matter
	}
	if err != nil {
		return err
	}
	report, err := suite.Run(rules)
	if err != nil {
		return err
	}
	if len(report.Failures()) > 0 {
		return fmt.Errorf("the policy fails its tests:\n%v", report)
	}
	return nil
}

// checkAdministrators fails if the policy would lock out every administrator:
// if no one of the configured admin roles alone is allowed what it takes to give
// back a role, which is to find a user and to change them.
func checkAdministrators(cfg *config.Config, rules *policy.Policy) error {
	users := cfg.Identity.Prefix + "/users"
	anyone := users + "/00000000-0000-0000-0000-000000000000"
	var refused []string
	for _, role := range cfg.Identity.AdminRoles {
		missing := ""
		for _, r := range []struct{ method, path string }{{"GET", users}, {"GET", anyone}, {"PATCH", anyone}} {
			d := rules.Decide(policy.Caller{Authenticated: true, Roles: []string{role}}, r.method, r.path)
			if d.Allowed {
				continue
			}
			missing = fmt.Sprintf("%s may not %s %s: ", role, r.method, strings.Replace(r.path, anyone, users+"/:id", 1))
			if d.Rule == "" {
				missing += "no rule allows it"
			} else {
				missing += fmt.Sprintf("%s:%d: %s", d.File, d.Line, d.Rule)
			}
			break
		}
		if missing == "" {
			return nil
		}
		refused = append(refused, missing)
	}
	return fmt.Errorf("%s would lock out every administrator (identity.admin_roles): %s", cfg.Policy.File, strings.Join(refused, "; "))
}

// checkReload fails if a gateway that runs the policy of a file would not take the
// new one over.
func checkReload(rules *policy.Policy, running string) error {
	before, err := policy.Load(running)
	if err != nil {
		return err
	}
	if problems := rules.CheckOpened(before); len(problems) > 0 {
		return problems
	}
	return nil
}

// loadShadow reads the candidate, if there is to be one. What is wrong with it is
// for whoever asks about it: requests are decided without it.
func loadShadow(cfg *config.Config) *gateway.Shadow {
	if cfg.Policy.Shadow == "" {
		return nil
	}
	shadow := &gateway.Shadow{File: cfg.Policy.Shadow}
	var err error
	if shadow.Policy, err = policy.Load(cfg.Policy.Shadow); err != nil {
		shadow.Policy, shadow.Problem = nil, err.Error()
	}
	return shadow
}
