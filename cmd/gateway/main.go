// Command gateway is Portcullis: a reverse proxy that knows who is calling and
// what they may do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], environment{os.Environ(), os.Stdin, os.Stdout, os.Stderr}))
}

// environment is what a command can reach of the process around it.
type environment struct {
	env    []string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// errReported ends a command whose failure was already shown, such as a check
// that found problems.
var errReported = errors.New("reported")

// run is main without the process: it returns the exit status.
func run(ctx context.Context, args []string, env environment) int {
	root := newRoot(env)
	root.SetArgs(args)
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
		return 1
	}
	fmt.Fprintln(env.stderr, "gateway:", visible(err.Error()))
	return errorStatus(cmd)
}

// statusOfErrors is an annotation of commands whose status 1 is an answer, "no",
// so that an error has to be another.
const statusOfErrors = "statusOfErrors"

// errorStatus is the exit status for a command that could not do what it was to.
func errorStatus(cmd *cobra.Command) int {
	for ; cmd != nil; cmd = cmd.Parent() {
		if status, err := strconv.Atoi(cmd.Annotations[statusOfErrors]); err == nil {
			return status
		}
	}
	return 1
}

// shared is what the flags of every command say.
type shared struct {
	environment
	config string // the path of gateway.yaml
	output string // "text" or "json"
}

func newRoot(env environment) *cobra.Command {
	s := &shared{environment: env}
	root := &cobra.Command{
		Use:   "gateway",
		Short: "A reverse proxy that knows who is calling and what they may do",
		Long:  "A reverse proxy that knows who is calling and what they may do.\n\nResults have colours on a terminal, unless NO_COLOR is set.",
		Example: `  gateway serve -c gateway.yaml
  gateway check
  gateway user create ana --email ana@example.com --role admin
  gateway policy test`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if s.output != "text" && s.output != "json" {
				return fmt.Errorf("--output %q: want text or json", s.output)
			}
			return nil
		},
	}
	root.PersistentFlags().StringVarP(&s.config, "config", "c", "gateway.yaml", "the configuration file")
	root.PersistentFlags().StringVar(&s.output, "output", "text", "how results are printed: text or json")
	root.AddCommand(newServe(s), newCheck(s), newPolicy(s), newUser(s), newKeys(s), newConfig(s), newVersion(s), newPasswordWorker(s))
	refuseStrays(root)
	return root
}

// refuseStrays makes commands that only have others below them fail for those that
// they don't have: cobra would show help and call it a success.
func refuseStrays(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.HasSubCommands() && !c.Runnable() {
			c.Args = cobra.NoArgs
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
		refuseStrays(c)
	}
}

func newVersion(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := version()
			return s.print(v, func(w io.Writer) { fmt.Fprintf(w, "portcullis %s (%s)\n", v.Version, v.Go) })
		},
	}
}

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

// version is what the build recorded.
func version() versionInfo {
	v := versionInfo{Version: "devel"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			v.Revision = setting.Value
		}
	}
	return v
}
