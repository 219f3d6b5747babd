package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/config"
	"portcullis/identity"
	"portcullis/policy"
)

// issuersWait is how long a start or a reload waits for the keys of issuers. One
// that does not answer keeps nobody from starting: its tokens are answered with
// 503 until it does.
const issuersWait = 2 * time.Second

// trusting returns the service with the issuers that the configuration trusts. A
// role that no policy knows would be a mistake that nobody notices.
func trusting(service *identity.Service, federation *identity.Federation, cfg *config.Config, rules *policy.Policy) (*identity.Service, error) {
	if len(cfg.Identity.Issuers) == 0 {
		return service, nil
	}
	all, err := issuerConfigs(cfg, rules)
	if err != nil {
		return nil, err
	}
	issuers, err := federation.Trust(all)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), issuersWait)
	defer cancel()
	issuers.Await(ctx)
	return service.Trusting(issuers), nil
}

// issuerConfigs reads the files that issuers name.
func issuerConfigs(cfg *config.Config, rules *policy.Policy) ([]identity.IssuerConfig, error) {
	var all []identity.IssuerConfig
	for i, is := range cfg.Identity.Issuers {
		for theirs, ours := range is.Roles {
			if !slices.Contains(rules.Roles(), ours) {
				return nil, fmt.Errorf("identity.issuers[%d].roles: %q stands for %q, which is no role of the policy", i, theirs, ours)
			}
		}
		var ca []byte
		if is.CA != "" {
			var err error
			if ca, _, err = readRoots(is.CA); err != nil {
				return nil, fmt.Errorf("identity.issuers[%d].ca: %w", i, err)
			}
		}
		all = append(all, identity.IssuerConfig{
			Name: is.Name, Issuer: is.Issuer, JWKSURL: is.JWKSURL, CA: ca, Audience: is.Audience, Algorithms: is.Algorithms,
			RolesClaim: is.RolesClaim, Roles: is.Roles, UsernameClaim: is.UsernameClaim, EmailClaim: is.EmailClaim,
			Tenant: is.Tenant, ClockSkew: is.ClockSkew, MaxTTL: is.MaxTTL, Refresh: is.Refresh,
		})
	}
	return all, nil
}

// issuerAges tells operators of issuers whose keys can no longer be fetched.
type issuerAges struct{ federation *identity.Federation }

func (issuerAges) desc() *prometheus.Desc {
	return prometheus.NewDesc("portcullis_issuer_keys_age_seconds", "Time since the keys of an issuer were last fetched.", []string{"issuer"}, nil)
}

func (a issuerAges) Describe(to chan<- *prometheus.Desc) { to <- a.desc() }

func (a issuerAges) Collect(to chan<- prometheus.Metric) {
	for name, age := range a.federation.Ages() {
		to <- prometheus.MustNewConstMetric(a.desc(), prometheus.GaugeValue, age.Seconds(), name)
	}
}
