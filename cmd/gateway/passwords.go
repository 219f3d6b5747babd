package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"portcullis/identity"
)

const passwordWorkerName = "password-worker"

// newPasswordWorker is how serve starts this program for its passwords.
func newPasswordWorker(s *shared) *cobra.Command {
	var priority string
	cmd := &cobra.Command{
		Use:    passwordWorkerName,
		Short:  "Hash passwords for a gateway",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if f, ok := s.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				return errors.New("this is how serve hashes passwords, and nothing for a terminal")
			}
			// Whoever stops the gateway with its whole group would stop this, too,
			// while the gateway still answers. It ends when its input does.
			signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			return identity.ServePasswords(s.stdin, s.stdout, identity.Priority(priority))
		},
	}
	cmd.Flags().StringVar(&priority, "priority", string(identity.PriorityIdle), "what it gets of a busy machine: idle or low")
	return cmd
}

// passwordWorker returns what starts such a process. On Linux it is this program
// also when another version has been put in its place.
func passwordWorker() (identity.WorkerCommand, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	if runtime.GOOS == "linux" {
		self = "/proc/self/exe"
	}
	return func(ctx context.Context, p identity.Priority) *exec.Cmd {
		return exec.CommandContext(ctx, self, passwordWorkerName, "--priority="+string(p)) //nolint:gosec // our own program and words
	}, nil
}
