package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/identity"
	"portcullis/identity/boltstore"
	"portcullis/policy"
)

// parseDays reads a number of days such as 30d.
func parseDays(text string) (int, error) {
	digits, ok := strings.CutSuffix(text, "d")
	days, err := strconv.Atoi(digits)
	if !ok || err != nil || days < 1 || days > 10_000 {
		return 0, fmt.Errorf("%q is not a number of days such as 30d", text)
	}
	return days, nil
}

// usage finds out how often rules have decided in the last days: from the store, or
// from the gateway that has it open.
func (s *shared) usage(ctx context.Context, cfg *config.Config, days int) (policy.Usage, error) {
	sum, err := storedHits(ctx, cfg, days)
	if errors.Is(err, boltstore.ErrInUse) {
		sum, err = s.askedHits(ctx, cfg, days)
	}
	if err != nil {
		return policy.Usage{}, fmt.Errorf("finding out what rules were used: %w", err)
	}
	if sum.First == "" {
		return policy.Usage{}, fmt.Errorf("nothing is known of the last %d days: no gateway has stored what its rules were used for", days)
	}
	return policy.Usage{Since: sum.First, Hits: func(rule string) int64 { return sum.Counts[policy.RuleID(rule)] }}, nil
}

func storedHits(ctx context.Context, cfg *config.Config, days int) (sum identity.RuleHitSum, err error) {
	store, err := openStore(ctx, cfg.Identity.Store)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	now := time.Now()
	return store.SumRuleHits(ctx, gateway.FirstDay(now, days), now)
}

func (s *shared) askedHits(ctx context.Context, cfg *config.Config, days int) (identity.RuleHitSum, error) {
	at, err := newOperator(cfg, "")
	if err != nil {
		return identity.RuleHitSum{}, err
	}
	var report gateway.HitsReport
	err = at.get(ctx, "/policy/hits?days="+strconv.Itoa(days), &report)
	return identity.RuleHitSum{First: report.Since, Counts: report.Days}, err
}

// unused is what lint says of rules that decide nothing.
type unused struct {
	problems policy.Problems
	diff     string
}

func (s *shared) unusedRules(ctx context.Context, window, file string, source []byte) (unused, error) {
	days, err := parseDays(window)
	if err != nil {
		return unused{}, err
	}
	cfg, err := s.load()
	if err != nil {
		return unused{}, err
	}
	u, err := s.usage(ctx, cfg, days)
	if err != nil {
		return unused{}, err
	}
	problems, diff, err := u.Unused(file, source)
	return unused{problems, diff}, err
}

// suggest prints the tighter policy.
func (u unused) suggest(w io.Writer) {
	if u.diff != "" {
		fmt.Fprintf(w, "\nwithout the rules that allow what nobody did:\n\n%s", u.diff)
	}
}
