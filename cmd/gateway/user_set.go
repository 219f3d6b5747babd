package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/identity"
)

func newUserSet(s *shared) *cobra.Command {
	var email, tenant string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a user's e-mail address or tenant",
		Long: `Change a user's e-mail address or tenant.

The access tokens that say otherwise are refused from their next request on. A new address is unverified; the running
gateway sends the link that confirms it, and tells the old one.`,
		Example: `  gateway user set ana --email ana@example.org
  gateway user set ana --tenant acme
  gateway user set ana --tenant ""`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var in identity.Change
			if cmd.Flags().Changed("email") {
				in.Email = &email
			}
			if cmd.Flags().Changed("tenant") {
				in.Tenant = &tenant
			}
			if in == (identity.Change{}) {
				return errors.New("nothing to set: give --email or --tenant")
			}
			return s.withUser(cmd.Context(), args[0], func(ctx context.Context, service *identity.Service, u identity.User) (identity.User, error) {
				return service.UpdateUser(ctx, nil, u.ID, in, identity.Client{})
			})
		},
	}
	cmd.Flags().StringVar(&email, "email", "", "the e-mail address")
	cmd.Flags().StringVar(&tenant, "tenant", "", `the tenant; "" is the default one`)
	return cmd
}

func newUserDelete(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a user with their sessions; the audit log keeps what they did",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.withUser(cmd.Context(), args[0], func(ctx context.Context, service *identity.Service, u identity.User) (identity.User, error) {
				return u, service.DeleteUser(ctx, nil, u.ID, identity.Client{})
			})
		},
	}
}

func newUserLogout(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "logout NAME",
		Short: "End every session of a user",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.withUser(cmd.Context(), args[0], func(ctx context.Context, service *identity.Service, u identity.User) (identity.User, error) {
				return u, service.LogoutUser(ctx, nil, u.ID, identity.Client{})
			})
		},
	}
}

func newUserUnlock(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "unlock NAME",
		Short: "Forget a user's failed logins, so that they need not wait",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.withUser(cmd.Context(), args[0], func(ctx context.Context, service *identity.Service, u identity.User) (identity.User, error) {
				return u, service.UnlockUser(ctx, nil, u.ID, identity.Client{})
			})
		},
	}
}

// withUser does something to the user of that name and prints who that was.
func (s *shared) withUser(ctx context.Context, name string, do func(context.Context, *identity.Service, identity.User) (identity.User, error)) error {
	return s.withAccounts(ctx, func(ctx context.Context, service *identity.Service) error {
		u, err := userByName(ctx, service, name)
		if err == nil {
			u, err = do(ctx, service, u)
		}
		if err != nil {
			return err
		}
		info := newUserInfo(u)
		return s.print(info, func(w io.Writer) { fmt.Fprintln(w, info.line()) })
	})
}

func userByName(ctx context.Context, service *identity.Service, name string) (identity.User, error) {
	u, err := service.UserByName(ctx, name)
	if errors.Is(err, identity.ErrNotFound) {
		return identity.User{}, fmt.Errorf("there is no user %q", name)
	}
	return u, err
}
