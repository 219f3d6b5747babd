package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/config"
	"portcullis/gateway"
)

// openTracing returns nil where no spans are to be sent.
func openTracing(ctx context.Context, cfg *config.Config, log *slog.Logger, metrics prometheus.Registerer) (*gateway.Tracing, error) {
	t := cfg.Telemetry
	if t.OTLPEndpoint == "" {
		return nil, nil
	}
	return gateway.NewTracing(ctx, gateway.TracingConfig{
		Endpoint: t.OTLPEndpoint, ServiceName: t.ServiceName, SampleRatio: t.SampleRatio, Version: version().Version,
	}, log, metrics)
}

// closeTracing sends what waits, if the collector takes it soon.
func closeTracing(t *gateway.Tracing, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := t.Close(ctx); err != nil {
		log.Warn("the last spans were not exported", "error", err)
	}
}
