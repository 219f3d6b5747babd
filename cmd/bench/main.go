//go:build linux

// Command bench measures the gateway beside nginx and HAProxy, in one run and
// with the same clients and upstream, so that what counts is how they compare.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	cases, json, compare, svg, readme, from, gateway, note, profile string
	rounds                                                          int
	duration                                                        time.Duration
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.cases, "case", "", "cases to run, with commas between; all but soak if empty")
	f.IntVar(&o.rounds, "rounds", 5, "how often each is measured, in turn")
	f.DurationVar(&o.duration, "duration", 3*time.Second, "how long each measurement takes; the whole of soak")
	f.StringVar(&o.gateway, "gateway", "bin/gateway", "the gateway's binary")
	f.StringVar(&o.json, "json", "", "write the result to this `file`")
	f.StringVar(&o.svg, "svg", "", "write a plot of it to this `file`")
	f.StringVar(&o.readme, "readme", "", "put its table between the marks in this `file`")
	f.StringVar(&o.compare, "compare", "", "say what has changed since the result in this `file`")
	f.StringVar(&o.from, "from", "", "measure nothing, show the result in this `file`")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of the gateway at saturation to this `file`")
	f.StringVar(&o.note, "note", "", "a remark that stays with the result")
	f.Usage = func() {
		fmt.Fprint(stderr, `bench measures the gateway beside nginx and HAProxy.

  bench                                     everything, about 15 minutes
  bench -case get,upload -rounds 3          some of it
  bench -json new.json -compare old.json    keep it, and say what has changed
  bench -case soak -duration 1h             memory over an hour at half load
  bench -from old.json -svg plot.svg        draw a result again

Flags:
`)
		f.PrintDefaults()
		fmt.Fprintln(stderr, "\nCases:")
		for _, c := range cases() {
			fmt.Fprintf(stderr, "  %-11s %s\n", c.name, c.about)
		}
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("what is %q? See bench -help", f.Arg(0))
	}
	if o.rounds < 1 || o.duration < 50*time.Millisecond {
		return nil, errors.New("-rounds must be at least 1, -duration 50ms")
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	switch { // how this program starts itself
	case len(args) == 2 && args[0] == "upstream":
		return serveUpstream(args[1])
	case len(args) == 1 && args[0] == "hash":
		return hashAtIdlePriority()
	}
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	var result *Result
	if o.from != "" {
		result, err = readResult(o.from)
	} else {
		result, err = measure(ctx, o, stderr)
	}
	if err != nil {
		return err
	}
	return o.show(result, stdout)
}

func (o *options) show(result *Result, stdout io.Writer) error {
	result.print(stdout)
	if o.compare != "" {
		earlier, err := readResult(o.compare)
		if err != nil {
			return err
		}
		result.compare(stdout, earlier)
	}
	var errs []error
	if o.json != "" {
		errs = append(errs, result.write(o.json))
	}
	if o.svg != "" {
		errs = append(errs, os.WriteFile(o.svg, result.svg(), 0o644)) //nolint:gosec // to be read by everybody
	}
	if o.readme != "" {
		errs = append(errs, result.intoReadme(o.readme))
	}
	return errors.Join(errs...)
}

// measure runs the cases.
func measure(ctx context.Context, o *options, progress io.Writer) (*Result, error) {
	raiseFileLimit()
	debug.SetGCPercent(1000) // the clients must not pause on their own account
	chosen, err := o.chosen()
	if err != nil {
		return nil, err
	}
	if err := complain(o.gateway); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // best effort: it is in the system's directory for that
	s := &site{dir: dir}
	if s.gateway, err = filepath.Abs(o.gateway); err != nil {
		return nil, err
	}
	if err := s.startUpstream(ctx); err != nil {
		return nil, err
	}
	defer s.service.stop()
	b := &bench{ctx: ctx, site: s, rounds: o.rounds, duration: o.duration, progress: progress, result: &Result{
		Date: time.Now().UTC().Format(time.DateOnly), Machine: machine(ctx), Rounds: o.rounds, Duration: o.duration.String(), Note: o.note,
	}}
	if o.profile != "" {
		b.profiler = &profiler{file: o.profile}
	}
	for _, c := range chosen {
		if err := b.run(c); err != nil {
			return nil, fmt.Errorf("case %s: %w", c.name, err)
		}
	}
	if b.profiler != nil {
		return b.result, b.profiler.write()
	}
	return b.result, nil
}

func (o *options) chosen() ([]*benchCase, error) {
	all := cases()
	if o.cases == "" {
		return slices.DeleteFunc(all, func(c *benchCase) bool { return c.name == "soak" }), nil
	}
	var some []*benchCase
	for name := range strings.SplitSeq(o.cases, ",") {
		i := slices.IndexFunc(all, func(c *benchCase) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no case %q: see bench -help", name)
		}
		some = append(some, all[i])
	}
	return some, nil
}

// complain says what is missing.
func complain(gateway string) error {
	var missing []string
	for _, name := range []string{"nginx", "haproxy"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not installed: %s. On Debian, as root: apt-get install %s", strings.Join(missing, ", "), strings.Join(missing, " "))
	}
	if _, err := os.Stat(gateway); err != nil { //nolint:gosec // whoever runs this names it
		return fmt.Errorf("there is no gateway to measure: make build (%w)", err)
	}
	return nil
}

func machine(ctx context.Context) Machine {
	said := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput() //nolint:gosec // the names are ours
		if err != nil {
			return "unknown"
		}
		return string(out)
	}
	m := Machine{Processors: runtime.NumCPU(), Model: "unknown", Kernel: "unknown", Go: runtime.Version()}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel, _, _ = strings.Cut(strings.TrimSpace(string(text)), "-") // what follows names a build
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, after, _ := strings.Cut(string(text), "model name\t: ")
		m.Model, _, _ = strings.Cut(after, "\n")
	}
	_, m.Nginx, _ = strings.Cut(strings.TrimSpace(said("nginx", "-v")), "nginx/")
	if fields := strings.Fields(said("haproxy", "-v")); len(fields) > 2 {
		m.HAProxy, _, _ = strings.Cut(fields[2], "-")
	}
	return m
}
