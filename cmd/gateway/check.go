package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/identity"
)

// finding is one part of the set-up that was checked.
type finding struct {
	What    string `json:"what"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	Warning string `json:"warning,omitempty"` // of what is no mistake, and hardly meant
}

func newCheck(s *shared) *cobra.Command {
	against := ""
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, the policy with its tests, and the keys",
		Long:  "Check everything that serve and a reload read, without serving: the configuration, the policy with its tests,\nthe API descriptions, the keys. With --against also whether a gateway that runs that policy would refuse the new one,\nbecause it opens to everybody what was closed. The exit status is 1 if anything is wrong; a warning is not.",
		Example: `  gateway check -c gateway.yaml
  gateway check --output json
  gateway check --against <(git show main:policy/policy.csv)`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			findings := s.check(against)
			failed := false
			err := s.print(findings, func(w io.Writer) {
				for _, f := range findings {
					switch {
					case !f.OK:
						fmt.Fprintf(w, "WRONG   %s\n%s\n", f.What, f.Problem)
					case f.Warning != "":
						fmt.Fprintf(w, "warning %s\n%s\n", f.What, f.Warning)
					default:
						fmt.Fprintf(w, "ok      %s\n", f.What)
					}
				}
			})
			for _, f := range findings {
				failed = failed || !f.OK
			}
			return reported(err, failed)
		},
	}
	cmd.Flags().StringVar(&against, "against", "", "the policy file that the gateway runs")
	return cmd
}

func (s *shared) check(against string) []finding {
	var findings []finding
	add := func(what string, err error) {
		f := finding{What: what, OK: err == nil}
		if err != nil {
			f.Problem = err.Error()
		}
		findings = append(findings, f)
	}
	cfg, err := config.Load(s.config, s.env)
	add("configuration "+s.config, err)
	if err != nil {
		return findings
	}
	for _, w := range cfg.Warnings() {
		findings = append(findings, finding{What: w.Key, OK: true, Warning: w.Message})
	}
	rules, err := loadPolicy(cfg)
	if err == nil && against != "" {
		err = checkReload(rules, against)
	}
	add("policy "+cfg.Policy.File, err)
	if len(cfg.Identity.Issuers) > 0 && rules != nil {
		_, err = issuerConfigs(cfg, rules)
		add("issuers", err)
	}
	add("keys "+cfg.Identity.Tokens.Keys, checkKeys(cfg))
	if cfg.TLS.On() {
		_, err = openCerts(cfg.TLS, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		add("certificates", err)
	}
	upstreams, err := upstreamConfigs(cfg)
	add("upstreams", err)
	add("routes", gateway.CheckRoutes(gateway.StateConfig{
		Prefix: cfg.Identity.Prefix, ForwardAuth: forwardAuth(cfg), Upstreams: upstreams, Routes: routeConfigs(cfg),
	}))
	return findings
}

// warn tells of what is allowed in a configuration and hardly meant.
func warn(cfg *config.Config, log *slog.Logger) {
	for _, w := range cfg.Warnings() {
		log.Warn("configuration: " + w.Key + ": " + w.Message)
	}
}

// checkKeys reads the keys but, unlike serve, does not make any.
func checkKeys(cfg *config.Config) error {
	if _, err := os.Stat(cfg.Identity.Tokens.Keys); errors.Is(err, os.ErrNotExist) {
		return nil // made at the first start
	}
	_, err := identity.ReadKeyring(cfg.Identity.Tokens.Keys, identity.Algorithm(cfg.Identity.Tokens.Algorithm))
	return err
}

func newConfig(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "About the configuration file"}
	cmd.AddCommand(&cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of gateway.yaml, for editors",
		Example: `  gateway config schema > gateway.schema.json`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(s.stdout, string(config.Schema()))
			return err
		},
	})
	return cmd
}
