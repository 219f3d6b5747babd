package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	mongoDefaultDatabase = "tasks"
	mongoCollection      = "tasks"
	// mongoSelectionWait is how long an operation looks for a server that is
	// up. It is under storeTimeout, so that the error says that there was none.
	mongoSelectionWait = 1500 * time.Millisecond
	// mongoOpenWait bounds the start-up: the first contact and the indexes.
	mongoOpenWait  = 15 * time.Second
	mongoCloseWait = 5 * time.Second
)

// MongoStore is a Store in a MongoDB collection, for any number of processes.
// Every operation is one conditional operation on one document, so that a
// standalone server and compatible databases serve as well as a replica set.
type MongoStore struct {
	client *mongo.Client
	tasks  *mongo.Collection
}

var _ Store = (*MongoStore)(nil)

// OpenMongo connects to the server of a mongodb:// or mongodb+srv:// connection
// string and creates the indexes it needs. The database is the one in the
// string's path, or "tasks". A server that cannot be reached is an error.
func OpenMongo(ctx context.Context, uri string) (*MongoStore, error) {
	opts := options.Client().ApplyURI(uri).SetAppName("taskmanager").
		SetServerSelectionTimeout(mongoSelectionWait).SetConnectTimeout(mongoSelectionWait)
	database, err := mongoDatabase(uri)
	if err = errors.Join(err, opts.Validate()); err != nil {
		// The driver's error can hold a piece of the password.
		return nil, errors.New("the MongoDB connection string of the task store is not valid " +
			"(it is not shown because it may hold a password)")
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, fmt.Errorf("preparing the MongoDB client: %w", err)
	}
	s := &MongoStore{client: client, tasks: client.Database(database).Collection(mongoCollection)}

	ctx, cancel := context.WithTimeout(ctx, mongoOpenWait)
	defer cancel()
	_, err = s.tasks.Indexes().CreateMany(ctx, []mongo.IndexModel{
		{Keys: bson.D{{Key: "tenant", Value: 1}, {Key: "owner", Value: 1}, {Key: "_id", Value: -1}}},
		{Keys: bson.D{{Key: "tenant", Value: 1}, {Key: "owner", Value: 1}, {Key: "done", Value: 1}, {Key: "_id", Value: -1}}},
		{Keys: bson.D{{Key: "tenant", Value: 1}, {Key: "_id", Value: -1}}},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("creating the indexes of the task store: %w", err), s.Close())
	}
	return s, nil
}

// mongoDatabase returns the database a connection string names. It does so
// without net/url, which refuses the list of hosts such a string may have.
func mongoDatabase(uri string) (string, error) {
	_, rest, _ := strings.Cut(uri, "://")
	rest, _, _ = strings.Cut(rest, "?")
	_, path, _ := strings.Cut(rest, "/")
	if path == "" {
		return mongoDefaultDatabase, nil
	}
	return url.PathUnescape(path)
}

// Close implements Store.
func (s *MongoStore) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), mongoCloseWait)
	defer cancel()
	if err := s.client.Disconnect(ctx); err != nil {
		return fmt.Errorf("closing the task store: %w", err)
	}
	return nil
}

// mongoTask is a Task as stored.
type mongoTask struct {
	ID          string     `bson:"_id"`
	Owner       string     `bson:"owner"`
	Tenant      string     `bson:"tenant"`
	Title       string     `bson:"title"`
	Description string     `bson:"description"`
	Done        bool       `bson:"done"`
	CreatedAt   time.Time  `bson:"created_at"`
	UpdatedAt   time.Time  `bson:"updated_at"`
	CompletedAt *time.Time `bson:"completed_at"`
}

type mongoDocument struct {
	Task    mongoTask `bson:",inline"`
	Version int64     `bson:"version"` // raised by every update
}

// eq says "equal" explicitly: whatever the value is, it is never taken for an operator.
func eq(field string, value any) bson.E {
	return bson.E{Key: field, Value: bson.D{{Key: "$eq", Value: value}}}
}

func (r Ref) filter() bson.D {
	return bson.D{eq("_id", r.ID), eq("tenant", r.Tenant), eq("owner", r.Owner)}
}

// Create implements Store.
func (s *MongoStore) Create(ctx context.Context, t Task) error {
	_, err := s.tasks.InsertOne(ctx, mongoDocument{Task: mongoTask(t), Version: 1})
	return mongoError("creating a task", err)
}

// Get implements Store.
func (s *MongoStore) Get(ctx context.Context, ref Ref) (Task, error) {
	doc, err := s.get(ctx, ref)
	return Task(doc.Task), mongoError("reading a task", err)
}

func (s *MongoStore) get(ctx context.Context, ref Ref) (doc mongoDocument, err error) {
	err = s.tasks.FindOne(ctx, ref.filter()).Decode(&doc)
	return doc, err
}

// Update implements Store. It stores what it has changed if the document is
// still the one it has read, and starts again otherwise, until the context ends:
// each time somebody else has got through.
func (s *MongoStore) Update(ctx context.Context, ref Ref, modify func(*Task)) (Task, error) {
	const doing = "updating a task"
	for {
		doc, err := s.get(ctx, ref)
		if err != nil {
			return Task{}, mongoError(doing, err)
		}
		t := Task(doc.Task)
		if modify(&t); t == Task(doc.Task) {
			return t, nil
		}
		res, err := s.tasks.ReplaceOne(ctx, append(ref.filter(), eq("version", doc.Version)),
			mongoDocument{Task: mongoTask(t), Version: doc.Version + 1})
		if err != nil {
			return Task{}, mongoError(doing, err)
		}
		if res.MatchedCount == 1 {
			return t, nil
		}
	}
}

// Delete implements Store.
func (s *MongoStore) Delete(ctx context.Context, ref Ref) error {
	res, err := s.tasks.DeleteOne(ctx, ref.filter())
	if err == nil && res.DeletedCount == 0 {
		err = ErrNotFound
	}
	return mongoError("deleting a task", err)
}

// ListByOwner implements Store.
func (s *MongoStore) ListByOwner(ctx context.Context, tenant, owner string, done *bool, p Page) ([]Task, error) {
	filter := bson.D{eq("tenant", tenant), eq("owner", owner)}
	if done != nil {
		filter = append(filter, eq("done", *done))
	}
	return s.list(ctx, filter, p)
}

// ListByTenant implements Store.
func (s *MongoStore) ListByTenant(ctx context.Context, tenant string, p Page) ([]Task, error) {
	return s.list(ctx, bson.D{eq("tenant", tenant)}, p)
}

func (s *MongoStore) list(ctx context.Context, filter bson.D, p Page) ([]Task, error) {
	const doing = "listing tasks"
	if p.Before != "" {
		filter = append(filter, bson.E{Key: "_id", Value: bson.D{{Key: "$lt", Value: p.Before}}})
	}
	found, err := s.tasks.Find(ctx, filter,
		options.Find().SetSort(bson.D{{Key: "_id", Value: -1}}).SetLimit(int64(p.Limit)))
	if err != nil {
		return nil, mongoError(doing, err)
	}
	var docs []mongoDocument
	if err := found.All(ctx, &docs); err != nil {
		return nil, mongoError(doing, err)
	}
	ts := make([]Task, len(docs))
	for i, doc := range docs {
		ts[i] = Task(doc.Task)
	}
	return ts, nil
}

// mongoError names what callers tell apart. A refusal by the server that a
// repetition would meet again is none of it: that is a fault of ours.
func mongoError(doing string, err error) error {
	var answer mongo.ServerError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotFound), errors.Is(err, mongo.ErrNoDocuments):
		return fmt.Errorf("%s: %w", doing, ErrNotFound)
	case mongo.IsDuplicateKeyError(err):
		return fmt.Errorf("%s: %w", doing, ErrExists)
	case errors.As(err, &answer) && !mongo.IsNetworkError(err) && !mongo.IsTimeout(err) && !answer.HasErrorLabel("RetryableWriteError"):
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
}
