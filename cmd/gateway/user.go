package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"portcullis/identity"
	"portcullis/identity/boltstore"
)

func newUser(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Administer accounts",
		Long: `Administer accounts, as the operator: the policy is not asked.

The embedded store belongs to one process at a time: stop the gateway first, or use its API.`,
		Example: `  gateway user create ana --email ana@example.com --role admin
  gateway user list
  gateway user grant ana admin`,
	}
	cmd.AddCommand(newUserCreate(s), newUserList(s), newUserImport(s), newUserSet(s),
		userChange(s, "grant NAME ROLE...", "Give a user roles", 2, func(u identity.User, roles []string) identity.Change {
			next := slices.Concat(u.Roles, roles)
			return identity.Change{Roles: &next}
		}),
		userChange(s, "revoke NAME ROLE...", "Take roles from a user", 2, func(u identity.User, roles []string) identity.Change {
			next := slices.DeleteFunc(slices.Clone(u.Roles), func(r string) bool { return slices.Contains(roles, r) })
			return identity.Change{Roles: &next}
		}),
		userChange(s, "disable NAME", "Keep a user out; their sessions end", 1, func(identity.User, []string) identity.Change {
			active := false
			return identity.Change{Active: &active}
		}),
		userChange(s, "enable NAME", "Let a disabled user in again", 1, func(identity.User, []string) identity.Change {
			active := true
			return identity.Change{Active: &active}
		}),
		newUserUnlock(s), newUserLogout(s), newUserDelete(s),
	)
	return cmd
}

// userInfo is a user as the commands print them.
type userInfo struct {
	ID       string    `json:"id"`
	Username string    `json:"username"`
	Email    string    `json:"email"`
	Roles    []string  `json:"roles"`
	Active   bool      `json:"is_active"`
	Tenant   string    `json:"tenant"`
	Created  time.Time `json:"created_at"`
}

func newUserInfo(u identity.User) userInfo {
	return userInfo{u.ID, u.Username, u.Email, append([]string{}, u.Roles...), u.Active, u.Tenant, u.CreatedAt}
}

func (u userInfo) line() string {
	state := "active"
	if !u.Active {
		state = "disabled"
	}
	line := fmt.Sprintf("%s  %-20s  %-30s  %-8s  %s", u.ID, u.Username, u.Email, state, strings.Join(u.Roles, ","))
	if u.Tenant != "" {
		line += "  of " + u.Tenant
	}
	return line
}

// withAccounts opens the identity side for one command.
func (s *shared) withAccounts(ctx context.Context, do func(context.Context, *identity.Service) error) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	rules, err := loadPolicy(cfg)
	if err != nil {
		return err
	}
	log := newLogger(cfg, s.stderr)
	a, err := openAccounts(ctx, cfg, rules, log, s.stderr)
	if errors.Is(err, boltstore.ErrInUse) {
		return fmt.Errorf("%w\nstop the gateway first, or use its API as an administrator (%s/users)", err, cfg.Identity.Prefix)
	}
	if err != nil {
		return err
	}
	defer a.close(log)
	return do(ctx, a.service)
}

func newUserCreate(s *shared) *cobra.Command {
	var in identity.NewUser
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create an account; the password is read from standard input",
		Example: `  gateway user create ana --email ana@example.com --role admin
  echo 'correct horse battery' | gateway user create ana --email ana@example.com`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Username = args[0]
			var err error
			if in.Password, err = s.readPassword(); err != nil {
				return err
			}
			return s.withAccounts(cmd.Context(), func(ctx context.Context, service *identity.Service) error {
				u, err := service.CreateUser(ctx, in, identity.Client{})
				if err != nil {
					return err
				}
				info := newUserInfo(u)
				return s.print(info, func(w io.Writer) { fmt.Fprintln(w, info.line()) })
			})
		},
	}
	cmd.Flags().StringVar(&in.Email, "email", "", "the e-mail address")
	cmd.Flags().StringSliceVar(&in.Roles, "role", nil, "a role; may be repeated")
	cmd.Flags().StringVar(&in.Tenant, "tenant", "", "the tenant")
	_ = cmd.MarkFlagRequired("email") // fails for unknown flags only
	return cmd
}

// readPassword reads one line, without showing it on a terminal. It is not a flag,
// because the arguments of a process can be read by others.
func (s *shared) readPassword() (string, error) {
	if f, ok := s.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(s.stderr, "password: ")
		line, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.stderr)
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return string(line), nil
	}
	line, err := bufio.NewReader(io.LimitReader(s.stdin, 4096)).ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", errors.New("no password on standard input")
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func newUserList(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "List users, or those whose name (or, with an @, address) begins so",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			search := strings.Join(args, "")
			return s.withAccounts(cmd.Context(), func(ctx context.Context, service *identity.Service) error {
				infos, cursor := []userInfo{}, ""
				for {
					users, next, err := service.Users(ctx, nil, search, cursor, 500)
					if err != nil {
						return err
					}
					for _, u := range users {
						infos = append(infos, newUserInfo(u))
					}
					if cursor = next; cursor == "" {
						break
					}
				}
				return s.print(infos, func(w io.Writer) {
					for _, info := range infos {
						fmt.Fprintln(w, info.line())
					}
				})
			})
		},
	}
}

// userChange is a command that changes the user named by its first argument.
func userChange(s *shared, use, short string, args int, change func(identity.User, []string) identity.Change) *cobra.Command {
	positional := cobra.ExactArgs(args)
	if args > 1 {
		positional = cobra.MinimumNArgs(args)
	}
	return &cobra.Command{
		Use: use, Short: short, Args: positional,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.withUser(cmd.Context(), args[0], func(ctx context.Context, service *identity.Service, u identity.User) (identity.User, error) {
				return service.UpdateUser(ctx, nil, u.ID, change(u, args[1:]), identity.Client{})
			})
		},
	}
}
