package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"portcullis/identity"
)

// maxImportLine bounds a line of an import, in bytes.
const maxImportLine = 64 << 10

// importedUser is a line of an import.
type importedUser struct {
	Username      string   `json:"username"`
	Email         string   `json:"email"`
	PasswordHash  string   `json:"password_hash"`
	EmailVerified bool     `json:"email_verified"`
	Roles         []string `json:"roles"`
	Tenant        string   `json:"tenant"`
}

// importReport is what came of an import.
type importReport struct {
	Imported int             `json:"imported"`
	Failed   int             `json:"failed"`
	Problems []importProblem `json:"problems"`
}

type importProblem struct {
	Line    int    `json:"line"`
	Problem string `json:"problem"` // never the hash
}

func newUserImport(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Take over accounts from another system, with their password hashes",
		Long: `Take over accounts from another system, with their password hashes; "-" is standard input.

Each line is a JSON object: username, email, password_hash, and optionally email_verified, roles, tenant.
Hashes may be bcrypt ($2a$, $2b$, $2y$), $argon2id$, or passlib's $bcrypt-sha256$ and $pbkdf2…$. Each is replaced
by one of the configured kind when its owner next logs in. Nobody is sent a mail.

A line that cannot be taken over is reported and the others are; the exit status is 1 then. An import can be
repeated: accounts that are there already are reported and stay as they are.`,
		Example: `  gateway user import users.jsonl
  {"username":"ana","email":"ana@example.com","password_hash":"$2b$12$…"}`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := s.stdin
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("reading the import: %w", err)
				}
				defer func() { _ = f.Close() }() // it was only read
				in = f
			}
			return s.withAccounts(cmd.Context(), func(ctx context.Context, service *identity.Service) error {
				report, err := s.importUsers(ctx, service, in)
				printed := s.print(report, func(w io.Writer) {
					for _, p := range report.Problems {
						fmt.Fprintf(w, "line %d: %s\n", p.Line, p.Problem)
					}
					fmt.Fprintf(w, "%d imported, %d failed\n", report.Imported, report.Failed)
				})
				return reported(errors.Join(err, printed), report.Failed > 0)
			})
		},
	}
}

// importUsers goes on after a line that is wrong, and ends when the store does not
// answer.
func (s *shared) importUsers(ctx context.Context, service *identity.Service, in io.Reader) (importReport, error) {
	report := importReport{Problems: []importProblem{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxImportLine)
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		err := importUser(ctx, service, lines.Bytes())
		switch {
		case err == nil:
			report.Imported++
		case errors.Is(err, identity.ErrUnavailable) || ctx.Err() != nil:
			return report, fmt.Errorf("line %d: %w", n, err)
		default:
			report.Failed++
			report.Problems = append(report.Problems, importProblem{n, err.Error()})
		}
		s.progress(n)
	}
	if err := lines.Err(); err != nil {
		return report, fmt.Errorf("reading the import: %w", err)
	}
	return report, nil
}

func importUser(ctx context.Context, service *identity.Service, line []byte) error {
	var u importedUser
	if err := json.Unmarshal(line, &u, json.RejectUnknownMembers(true)); err != nil {
		return errors.New("not a JSON object of the expected form") // the cause may quote the hash
	}
	if u.PasswordHash == "" {
		return errors.New("password_hash is missing")
	}
	_, err := service.CreateUser(ctx, identity.NewUser{
		Username: u.Username, Email: u.Email, PasswordHash: u.PasswordHash,
		Roles: u.Roles, Tenant: u.Tenant, EmailVerified: u.EmailVerified, Quiet: true,
	}, identity.Client{})
	return err
}

// progress shows a person that long work moves.
func (s *shared) progress(n int) {
	f, ok := s.stderr.(*os.File)
	if ok && n%1000 == 0 && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(f, "\r%d lines", n)
	}
}
