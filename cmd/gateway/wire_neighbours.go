package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"portcullis/config"
	"portcullis/gateway"
)

// neighbours are what requests are counted, traced and logged with, beside the
// store. Each may be nil.
type neighbours struct {
	limits    *gateway.SharedLimits
	tracing   *gateway.Tracing
	decisions *gateway.DecisionLog
}

func openNeighbours(ctx context.Context, cfg *config.Config, log *slog.Logger, metrics prometheus.Registerer) (*neighbours, error) {
	n := &neighbours{}
	var limits, tracing, decisions error
	n.limits, limits = openSharedLimits(cfg, log, metrics)
	n.tracing, tracing = openTracing(ctx, cfg, log, metrics)
	n.decisions, decisions = openDecisions(cfg, log, metrics)
	if err := errors.Join(limits, tracing, decisions); err != nil {
		n.close(log)
		return nil, err
	}
	return n, nil
}

func (n *neighbours) configure(gc *gateway.Config) {
	gc.SharedLimits, gc.Tracing, gc.Decisions = n.limits, n.tracing, n.decisions
}

// start runs what goes on beside serving, until ctx ends.
func (n *neighbours) start(ctx context.Context, run *errgroup.Group) {
	run.Go(func() error { writeDecisions(ctx, n.decisions); return nil })
}

// close comes after the last request.
func (n *neighbours) close(log *slog.Logger) {
	closeTracing(n.tracing, log)
	closeShared(n.limits, log)
}
