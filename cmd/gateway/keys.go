package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"portcullis/config"
	"portcullis/gateway"
	"portcullis/identity"
)

// rotationDelay is how long a new key is published before it signs: longer than
// common verifiers keep the keys they know.
const rotationDelay = time.Hour

func newKeys(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "About the signing keys",
		Long: `About the signing keys. The name of a key's file begins with the time from which it signs; of those of one
algorithm the latest that has come signs. A key is published before that, and verifies until the last that it signed
has expired. Running gateways see within seconds what changes in the directory of keys.

The files named secret and TIME-secret are symmetric: what authenticates refresh tokens, and the tokens of HS256, is
derived from them. An old one is needed as long as refresh tokens live.`,
	}
	cmd.AddCommand(newKeysList(s), newKeysRotate(s), newKeysPrune(s), newKeysWithdraw(s))
	return cmd
}

// keysOf is what the configuration says about keys.
func keysOf(cfg *config.Config) (dir string, alg identity.Algorithm, valid identity.Lifetimes) {
	t := cfg.Identity.Tokens
	return t.Keys, identity.Algorithm(t.Algorithm), identity.Lifetimes{Access: t.AccessTTL, Refresh: t.RefreshTTL}
}

func newKeysList(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys and their states, those that sign first",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			dir, alg, valid := keysOf(cfg)
			keys, err := identity.ReadKeyring(dir, alg)
			if err != nil {
				return err
			}
			return s.printKeys(keys.Keys(time.Now(), valid))
		},
	}
}

func newKeysRotate(s *shared) *cobra.Command {
	delay, secret := rotationDelay, false
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make a new key, which is published now and signs later",
		Long: fmt.Sprintf(`Make a new key of the configured algorithm. It is published now and signs after a delay, so that verifiers know it
before they meet it: they may keep what they know for %v, and some do for longer. The old key verifies until the last
that it signed has expired, and is retired then; "gateway keys prune" deletes its file.

With --secret, and always with HS256, there is a new secret too: refresh tokens of the old one are good until they expire.`, gateway.JWKSMaxAge),
		Example: `  gateway keys rotate
  gateway keys rotate --delay 0s && gateway keys withdraw ID     # when a key was stolen`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			if delay < 0 {
				return fmt.Errorf("--delay %v: must not be negative", delay)
			}
			dir, alg, _ := keysOf(cfg)
			made, err := identity.Rotate(dir, alg, secret, time.Now().Add(delay))
			if err != nil {
				return err
			}
			if delay < gateway.JWKSMaxAge {
				fmt.Fprintf(s.stderr, "gateway: verifiers that do not fetch the keys again when they meet an unknown one will refuse it for up to %v\n", gateway.JWKSMaxAge)
			}
			return s.printKeys(made)
		},
	}
	cmd.Flags().DurationVar(&delay, "delay", delay, "how long after now the key signs")
	cmd.Flags().BoolVar(&secret, "secret", false, "make a new secret, too")
	return cmd
}

func newKeysPrune(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "prune",
		Short: "Delete the files of retired keys",
		Long: `Delete the files of retired keys. What signs, will sign, or has signed something that can still be valid stays, and so
does a key whose file was not named by this program.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			dir, alg, valid := keysOf(cfg)
			pruned, err := identity.Prune(dir, alg, time.Now(), valid)
			if err != nil {
				return err
			}
			return s.printKeys(pruned)
		},
	}
}

func newKeysWithdraw(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "withdraw ID",
		Short: "Delete a key at once: what it signed is refused",
		Long: `Delete a key that others may know. Running gateways refuse what it has signed within seconds; services behind them when
they next fetch the keys. The only key that signs cannot be withdrawn: make another first, with keys rotate --delay 0s.`,
		Example: `  gateway keys withdraw NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			dir, alg, valid := keysOf(cfg)
			gone, err := identity.Withdraw(dir, alg, args[0], time.Now(), valid)
			if err != nil {
				return err
			}
			return s.print(gone, func(w io.Writer) { fmt.Fprintf(w, "deleted %s\n", gone.File) })
		},
	}
}

func (s *shared) printKeys(keys []identity.KeyInfo) error {
	return s.print(keys, func(w io.Writer) {
		for _, k := range keys {
			fmt.Fprintf(w, "%-9s  %-5s  %s  %s", k.State, k.Algorithm, k.ID, k.File)
			switch {
			case k.State == identity.KeyPublished:
				fmt.Fprintf(w, "  signs from %s", k.SignsFrom.Format(time.RFC3339))
			case !k.VerifiesUntil.IsZero():
				fmt.Fprintf(w, "  until %s", k.VerifiesUntil.Format(time.RFC3339))
			}
			fmt.Fprintln(w)
		}
	})
}
