package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/config"
	"portcullis/gateway"
)

// openDecisions opens the decision log, or returns nil if there is to be none.
func openDecisions(cfg *config.Config, log *slog.Logger, metrics prometheus.Registerer) (*gateway.DecisionLog, error) {
	c := cfg.Policy.DecisionLog
	if c.File == "" {
		return nil, nil
	}
	l, err := gateway.OpenDecisionLog(gateway.DecisionLogConfig{
		File: c.File, MaxBytes: c.MaxBytes, Keep: c.Keep, SampleAllows: c.SampleAllows, Buffer: c.Buffer,
	}, log, metrics)
	if err != nil {
		return nil, fmt.Errorf("opening the decision log: %w", err)
	}
	return l, nil
}

// writeDecisions writes decisions until ctx ends. SIGHUP opens the file anew, for
// those who put it aside themselves.
func writeDecisions(ctx context.Context, l *gateway.DecisionLog) {
	if l == nil {
		return
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	l.Run(ctx, hangup)
}
