package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"

	"portcullis/upstream"
)

const usage = `Taskmanager is the task manager behind the gateway. It answers requests that
carry an identity assertion which the gateway has signed, and no others.

Usage:

  taskmanager [flags]

Flags, and the environment variables that stand in for those not given:

  -listen ADDRESS   TASKS_LISTEN    where to listen (127.0.0.1:9001)
  -store STORE      TASKS_STORE     where tasks are kept: file:PATH, or a mongodb://
                                    connection string, whose database is "tasks"
                                    unless it names one (file:./data/tasks.db)
  -jwks URL         TASKS_JWKS      the gateway's public keys
                                    (http://localhost:8080/.well-known/jwks.json)
  -issuer ISSUER    TASKS_ISSUER    the issuer assertions must have
                                    (http://localhost:8080)
  -audience NAME    TASKS_AUDIENCE  the audience they must have: this service's
                                    name in the gateway's upstreams (tasks)

A connection string with a password belongs into the environment: the arguments
of a process can be seen by everybody on the machine.

Example:

  TASKS_STORE='mongodb://tasks:secret@db.internal/tasks' \
    taskmanager -listen :9001 -jwks https://gateway.internal/.well-known/jwks.json \
                -issuer https://api.example.com
`

var (
	// errHelp means that help was asked for.
	errHelp = errors.New("help")
	// errUsage means that the program was called wrongly.
	errUsage = errors.New("see taskmanager -h")
)

type options struct {
	listen   string
	store    string
	verifier upstream.VerifierConfig
}

func parseOptions(args []string, getenv func(string) string) (options, error) {
	var o options
	flags := flag.NewFlagSet("taskmanager", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	setting := func(p *string, name, variable, standard string) {
		if v := getenv(variable); v != "" {
			standard = v
		}
		flags.StringVar(p, name, standard, "")
	}
	setting(&o.listen, "listen", "TASKS_LISTEN", "127.0.0.1:9001")
	setting(&o.store, "store", "TASKS_STORE", "file:./data/tasks.db")
	setting(&o.verifier.JWKS, "jwks", "TASKS_JWKS", "http://localhost:8080/.well-known/jwks.json")
	setting(&o.verifier.Issuer, "issuer", "TASKS_ISSUER", "http://localhost:8080")
	setting(&o.verifier.Audience, "audience", "TASKS_AUDIENCE", "tasks")

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return options{}, errHelp
	case err != nil:
		return options{}, fmt.Errorf("%w (%w)", err, errUsage)
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("arguments that are not flags are not understood (%w)", errUsage)
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return options{}, fmt.Errorf("the address to listen on must be host:port or :port (%w)", errUsage)
	}
	return o, nil
}

// openStore opens what a store setting names. The setting is in none of its
// errors, as it may hold a password.
func openStore(ctx context.Context, setting string) (upstream.Store, error) {
	scheme, rest, _ := strings.Cut(setting, ":")
	switch {
	case scheme == "file" && rest != "" && !strings.HasPrefix(rest, "//"):
		return upstream.OpenBolt(rest)
	case scheme == "mongodb", scheme == "mongodb+srv":
		return upstream.OpenMongo(ctx, setting)
	}
	return nil, fmt.Errorf("the store must be file:PATH or a mongodb:// connection string (%w)", errUsage)
}
