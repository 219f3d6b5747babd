package mongostore

import (
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// expiryGrace is how long the server keeps what has expired by its clock, which
// may be ahead of ours. Nothing relies on the deletion: every read asks for
// documents that have not expired.
const expiryGrace = 5 * time.Minute

// indexed is a collection with the indexes that its queries need.
type indexed struct {
	collection *mongo.Collection
	indexes    []mongo.IndexModel
}

// schema returns every collection that is found by more than its _id.
func (s *Store) schema() []indexed {
	expiry := index("expires_at").expiring()
	return []indexed{
		{s.users, models(
			index("username_key").unique(), index("username_skeleton").unique(), index("email_key").unique().sparse(),
			index("tenant", "username_key"), index("tenant", "email_key"),
		)},
		{s.sessions, models(index("user_id", "-created_at", "-_id"), expiry)},
		{s.tokens, models(index("hash"), index("user_id"), expiry)},
		{s.revocations, models(index("raised_at"), expiry)},
		{s.counters, models(expiry)},
		{s.ruleHits, models(expiry)}, // found by the day that its _id begins with
		{s.jobs, models(index("next_at", "_id"))},
		{s.audits, models(
			index("user_id", "-_id"), index("user_id", "event", "-_id"),
			index("tenant", "-_id"), index("tenant", "event", "-_id"), index("event", "-_id"), expiry,
		)},
	}
}

// indexModel is an index to be created, in the making.
type indexModel struct {
	keys bson.D
	opts *options.IndexOptionsBuilder
}

// index returns an index by fields, descending where "-" precedes the name.
func index(fields ...string) indexModel {
	var keys bson.D
	for _, f := range fields {
		if name, descending := strings.CutPrefix(f, "-"); descending {
			keys = append(keys, elem(name, -1))
		} else {
			keys = append(keys, elem(name, 1))
		}
	}
	return indexModel{keys, options.Index()}
}

func (m indexModel) unique() indexModel { m.opts.SetUnique(true); return m }

// sparse leaves documents without the field out.
func (m indexModel) sparse() indexModel { m.opts.SetSparse(true); return m }

func (m indexModel) expiring() indexModel {
	m.opts.SetExpireAfterSeconds(int32(expiryGrace / time.Second))
	return m
}

func models(ms ...indexModel) []mongo.IndexModel {
	var models []mongo.IndexModel
	for _, m := range ms {
		models = append(models, mongo.IndexModel{Keys: m.keys, Options: m.opts})
	}
	return models
}
