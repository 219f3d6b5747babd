// Package mongostore keeps identities in MongoDB, so that several replicas of
// the gateway share them.
//
// It implements [identity.Store] and relies on nothing but single documents
// being atomic and unique indexes: no transactions, no change streams, no
// pipelines in updates. A standalone server, a replica set, and the servers
// that speak MongoDB's protocol without being it will all do.
package mongostore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"portcullis/identity"
)

const (
	// defaultDatabase is used when the URI names none.
	defaultDatabase = "portcullis"
	// callTimeout bounds each call, the wait for a server included, unless the
	// URI says timeoutMS.
	callTimeout = 2 * time.Second
	// indexTimeout bounds the creation of indexes, which takes long only when
	// there is much data and an index is new.
	indexTimeout = time.Minute
)

// Store is an [identity.Store] in a MongoDB database. Use Open to make one.
type Store struct {
	client  *mongo.Client
	timeout time.Duration // of each call

	users, administrators, sessions, tokens *mongo.Collection
	revocations, counters, jobs, audits     *mongo.Collection
	ruleHits                                *mongo.Collection
}

var _ identity.Store = (*Store)(nil)

// Open connects to the database that the path of the URI names ("portcullis" if
// it names none) and creates the indexes that the store needs; not being able
// to is an error. It returns an error that matches identity.ErrUnavailable
// when no server answers within about two seconds. Credentials in the URI are
// not repeated in errors.
//
// The URI's options are honoured, except that reads always go to the primary:
// a lagging secondary would miss revocations. Writes wait for a majority unless
// the URI says otherwise, and are not repeated by the driver (retryWrites)
// unless it says so, because not every server that speaks the protocol can.
func Open(ctx context.Context, uri string) (*Store, error) {
	opts, err := parse(uri)
	if err != nil {
		return nil, err
	}
	return open(ctx, opts, database(uri))
}

func open(ctx context.Context, opts *options.ClientOptions, database string) (*Store, error) {
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, fmt.Errorf("mongostore: connect: %w", err)
	}
	db := client.Database(database)
	s := &Store{
		client: client, timeout: *opts.Timeout,
		users: db.Collection("users"), administrators: db.Collection("administrators"),
		sessions: db.Collection("sessions"), tokens: db.Collection("tokens"),
		revocations: db.Collection("revocations"), counters: db.Collection("counters"),
		jobs: db.Collection("jobs"), audits: db.Collection("audit"),
		ruleHits: db.Collection("rule_hits"),
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context) error {
	// A server that is away is told apart quickly; indexes may take longer.
	if err := s.Ping(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, indexTimeout)
	defer cancel()
	for _, c := range s.schema() {
		_, err := c.collection.Indexes().CreateMany(ctx, c.indexes)
		if isAnswer(err) {
			// Whatever code the server gives it, this will not pass by waiting.
			return fmt.Errorf("mongostore: create the indexes of %s: %w", c.collection.Name(), err)
		}
		if err != nil {
			return failure("create the indexes of "+c.collection.Name(), err)
		}
	}
	return nil
}

// Ping implements [identity.Store].
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return failure("ping", s.client.Ping(ctx, readpref.Primary()))
}

// Sweep implements [identity.Store]: MongoDB deletes what has expired by itself.
func (s *Store) Sweep(ctx context.Context, _ time.Time) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, failure("sweep", err)
	}
	return 0, nil
}

// Close ends the connections and what watches over them.
func (s *Store) Close() error {
	ctx, cancel := s.bound(context.Background())
	defer cancel()
	if err := s.client.Disconnect(ctx); err != nil && !errors.Is(err, mongo.ErrClientDisconnected) {
		return failure("close", err)
	}
	return nil
}

// bound gives a call its deadline, whatever the caller's.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.timeout)
}

// parse reads a URI and fills in what it leaves open.
func parse(uri string) (*options.ClientOptions, error) {
	// With a second "@" the driver would take part of the password for a host,
	// and name it in errors.
	if strings.Count(uri, "@") > 1 {
		return nil, errors.New(`mongostore: more than one "@" in the URI: percent-encode those in the user, the password and the options`)
	}
	opts := options.Client().ApplyURI(uri)
	if err := opts.Validate(); err != nil {
		return nil, invalid(uri, err)
	}
	if opts.Timeout == nil {
		opts.SetTimeout(callTimeout)
	}
	if opts.ServerSelectionTimeout == nil {
		opts.SetServerSelectionTimeout(*opts.Timeout)
	}
	if opts.RetryWrites == nil {
		opts.SetRetryWrites(false)
	}
	if opts.WriteConcern == nil {
		opts.SetWriteConcern(writeconcern.Majority())
	}
	return opts.SetReadPreference(readpref.Primary()), nil
}

// invalid says what is wrong with a URI, as far as that can be said without
// its secrets: the driver's errors quote what they complain about.
func invalid(uri string, err error) error {
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) { // mongodb+srv
		return failure("look up the servers", err)
	}
	const complaint = "mongostore: not a valid MongoDB URI: "
	scheme, _, _ := strings.Cut(uri, "://")
	if scheme != "mongodb" && scheme != "mongodb+srv" {
		return errors.New(complaint + "the scheme must be mongodb or mongodb+srv")
	}
	_, query, _ := strings.Cut(uri, "?")
	if err = options.Client().ApplyURI("mongodb://localhost/?" + query).Validate(); err == nil {
		return errors.New(complaint + "malformed before the options; reserved characters in the user and the password have to be percent-encoded")
	}
	if lower := strings.ToLower(query); strings.Contains(lower, "password") || strings.Contains(lower, "properties") {
		return errors.New(complaint + "an option is malformed or does not fit the others (which one is withheld, because there are secrets among them)")
	}
	return fmt.Errorf(complaint+"%w", err)
}

// database returns the database that a valid URI names.
func database(uri string) string {
	_, rest, _ := strings.Cut(uri, "://")
	if _, hosts, ok := strings.Cut(rest, "@"); ok {
		rest = hosts
	}
	_, path, _ := strings.Cut(rest, "/")
	path, _, _ = strings.Cut(path, "?")
	if name, err := url.PathUnescape(path); err == nil && name != "" {
		return name
	}
	return defaultDatabase
}
