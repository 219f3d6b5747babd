package main

import (
	"context"
	"errors"
	"fmt"

	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"portcullis/config"
	"portcullis/gateway"
)

func newServe(s *shared) *cobra.Command {
	var createAdmin bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until it gets SIGINT or SIGTERM: it is not ready any more, goes on for
drain_delay, and then answers what is under way. A second signal ends it at once.

SIGHUP, or a changed configuration or policy file, is a reload: if anything about the new
files is wrong, the old configuration stays and the log says why.`,
		Example: `  gateway serve -c gateway.yaml
  GATEWAY_IDENTITY_STORE=mongodb://127.0.0.1:27017/portcullis gateway serve`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), s, createAdmin) },
	}
	cmd.Flags().BoolVar(&createAdmin, "create-admin", false, "if there is no administrator yet, create one and print the password once")
	return cmd
}

// serve wires the gateway and runs it until ctx ends.
func serve(ctx context.Context, s *shared, createAdmin bool) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	stderr := gateway.NewLogBuffer(s.stderr)
	defer stderr.Close()
	log := newLogger(cfg, stderr)
	warn(cfg, log)
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	rules, err := loadPolicy(cfg)
	if err != nil {
		return err
	}
	accounts, err := openAccounts(ctx, cfg, rules, log, stderr)
	if err != nil {
		return err
	}
	defer accounts.close(log)
	worker, err := passwordWorker()
	if err != nil {
		return err
	}
	accounts.hasher.Isolate(worker)
	accounts.register(metrics)
	state, err := buildState(cfg, accounts, rules)
	if err != nil {
		return err
	}
	neighbours, err := openNeighbours(ctx, cfg, log, metrics)
	if err != nil {
		return err
	}
	defer neighbours.close(log)
	edge, err := openEdge(cfg, log, metrics)
	if err != nil {
		return err
	}
	gc := gatewayConfig(cfg, log, stderr, metrics)
	gc.Hits = accounts.store
	neighbours.configure(&gc)
	edge.configure(cfg, &gc)
	g := gateway.New(gc, state)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var run errgroup.Group
	accounts.start(background, &run)
	neighbours.start(background, &run)
	run.Go(func() error { g.RunHits(background); return nil })
	run.Go(func() error {
		(&reloader{shared: s, running: cfg, accounts: accounts, gateway: g, log: log}).follow(background)
		return nil
	})
	operators, err := serveOperators(cfg, g.AdminHandler(metrics), log, &run)
	if err != nil {
		return errors.Join(err, edge.Close())
	}
	edge.start(background, &run)
	failed := make(chan error, 1)
	run.Go(func() error {
		err := g.Serve(edge)
		failed <- err
		return err
	})
	var admin *credentials
	if createAdmin { // hashing takes a moment: whoever waits for the first answer has it by now
		if admin, err = accounts.firstAdministrator(ctx, cfg); err != nil {
			log.Error("there is no administrator", "error", err)
		}
	}
	s.welcome(cfg, admin)
	log.Info("serving", "listen", edge.Addr().String(), "admin", cfg.Admin.Listen, "policy", cfg.Policy.File, "version", version().Version)
	debug.FreeOSMemory() // what the start needed would be kept for minutes

	select {
	case <-ctx.Done():
	case err := <-failed:
		stop()
		return errors.Join(fmt.Errorf("serving: %w", err), closeServer(operators), edge.stopRedirect(), run.Wait())
	}
	err = drain(context.WithoutCancel(ctx), cfg, g, log)
	stop()
	err = errors.Join(err, closeServer(operators), edge.stopRedirect(), run.Wait())
	log.Info("stopped")
	return err
}

// gatewayConfig is what needs no more than the configuration.
func gatewayConfig(cfg *config.Config, log *slog.Logger, records *gateway.LogBuffer, metrics prometheus.Registerer) gateway.Config {
	return gateway.Config{
		HeaderBytes:   int(cfg.Limits.HeaderBytes),
		HeaderTimeout: cfg.Limits.HeaderTimeout,
		IdleTimeout:   cfg.Limits.IdleTimeout,
		Connections:   cfg.Limits.Connections,
		Log:           log,
		AccessLog:     gateway.NewAccessLog(records, cfg.Log.Format == "json"),
		Metrics:       metrics,
	}
}

// drain loses no request: first nobody new is sent here, then what is under way is
// answered.
func drain(ctx context.Context, cfg *config.Config, g *gateway.Gateway, log *slog.Logger) error {
	log.Info("draining", "delay", cfg.DrainDelay.String(), "timeout", cfg.ShutdownTimeout.String())
	g.Drain()
	time.Sleep(cfg.DrainDelay) // a second signal ends the process
	ctx, cancel := context.WithTimeout(ctx, cfg.ShutdownTimeout)
	defer cancel()
	if err := g.Shutdown(ctx); err != nil {
		return fmt.Errorf("what was under way was cut: %w", err)
	}
	return nil
}

// serveOperators listens where they are to be answered; nil if nowhere.
func serveOperators(cfg *config.Config, handler http.Handler, log *slog.Logger, run *errgroup.Group) (*http.Server, error) {
	if cfg.Admin.Listen == "" {
		return nil, nil
	}
	ln, err := net.Listen("tcp", cfg.Admin.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening for operators: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	run.Go(func() error { return ignoreClosed(server.Serve(ln)) })
	return server, nil
}

func closeServer(server *http.Server) error {
	if server == nil {
		return nil
	}
	return server.Close()
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// welcome tells whoever started the gateway where to go.
func (s *shared) welcome(cfg *config.Config, admin *credentials) {
	host, port, _ := net.SplitHostPort(cfg.Listen)
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	scheme := "http://"
	if cfg.TLS.On() {
		scheme = "https://"
	}
	at := scheme + net.JoinHostPort(host, port)
	var b strings.Builder
	fmt.Fprintf(&b, "\nPortcullis is at   %s\n", at)
	fmt.Fprintf(&b, "try the API at     %s%s/docs\n", at, cfg.Identity.Prefix)
	if cfg.Admin.Listen != "" {
		fmt.Fprintf(&b, "for operators      http://%s/readyz\n", cfg.Admin.Listen)
	}
	if admin != nil {
		fmt.Fprintf(&b, "\nThe first administrator was created. This is shown once:\n  username   %s\n  password   %s\n", admin.username, admin.password)
	}
	fmt.Fprintln(s.stdout, b.String())
}
