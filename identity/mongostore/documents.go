package mongostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// elem is a field of a document.
func elem(key string, value any) bson.E { return bson.E{Key: key, Value: value} }

// eq matches a field by value. The operator is written out so that no value,
// whatever it is, can be taken for an operator.
func eq[T string | int64](field string, value T) bson.E {
	return elem(field, bson.D{elem("$eq", value)})
}

// after matches a time that is later than t.
func after(field string, t time.Time) bson.E { return elem(field, bson.D{elem("$gt", t)}) }

// stored returns t as the store keeps times: in UTC, cut to milliseconds.
func stored(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }

// text repairs what is not UTF-8 in text that is kept but not searched for;
// BSON has no other strings.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// findable says whether a document can have all the values as keys.
func findable(keys ...string) bool {
	for _, k := range keys {
		if k == "" || !utf8.ValidString(k) {
			return false
		}
	}
	return true
}

// named is a value by which documents are found.
type named struct{ name, value string }

// required refuses values by which a document could not be found again.
func required(keys ...named) error {
	for _, k := range keys {
		if k.value == "" {
			return inputError(k.name + " is empty")
		}
	}
	return optional(keys...)
}

// optional is required for values that may be empty.
func optional(keys ...named) error {
	for _, k := range keys {
		if !utf8.ValidString(k.value) {
			return inputError(k.name + " is not valid UTF-8")
		}
	}
	return nil
}

// pair is an entry of a map. Maps are kept as lists of pairs, because not every
// server takes any string for the name of a field.
type pair struct {
	Key   string `bson:"k"`
	Value string `bson:"v"`
}

func pairs(m map[string]string) []pair {
	var ps []pair
	for k, v := range m {
		ps = append(ps, pair{text(k), text(v)})
	}
	return ps
}

func unpair(ps []pair) map[string]string {
	if len(ps) == 0 {
		return nil
	}
	m := make(map[string]string, len(ps))
	for _, p := range ps {
		m[p.Key] = p.Value
	}
	return m
}

// compound makes an _id of two parts, such that different parts never make the
// same one.
func compound(kind, id string) string { return fmt.Sprintf("%d:%s:%s", len(kind), kind, id) }

// one returns the document of a result.
func one[D any](r *mongo.SingleResult) (D, error) {
	var d D
	raw, err := r.Raw()
	if err != nil {
		return d, err
	}
	return d, decode(raw, &d)
}

func decode(raw bson.Raw, into any) error {
	if err := bson.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%w: %w", errDocument, err)
	}
	return nil
}

// absent is what a look-up answers that need not be made.
func absent(ctx context.Context, doing string) error {
	if err := ctx.Err(); err != nil {
		return failure(doing, err)
	}
	return failure(doing, identity.ErrNotFound)
}

// find returns the documents that match filter.
func find[D any](ctx context.Context, c *mongo.Collection, filter bson.D, opts ...options.Lister[options.FindOptions]) ([]D, error) {
	if filter == nil {
		filter = bson.D{}
	}
	cursor, err := c.Find(ctx, filter, opts...)
	if err != nil {
		return nil, err
	}
	var raws []bson.Raw
	if err := cursor.All(ctx, &raws); err != nil {
		return nil, err
	}
	docs := make([]D, len(raws))
	for i, raw := range raws {
		if err := decode(raw, &docs[i]); err != nil {
			return nil, err
		}
	}
	return docs, nil
}

// deleteOne deletes the document with that _id; ErrNotFound if there is none.
func (s *Store) deleteOne(ctx context.Context, doing string, c *mongo.Collection, id string) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(id) {
		return absent(ctx, doing)
	}
	for range tries(ctx) {
		r, err := c.DeleteOne(ctx, bson.D{eq("_id", id)})
		if err != nil || r.DeletedCount == 1 {
			return failure(doing, err)
		}
		// FerretDB passes over a document that is being changed at that moment.
		if there, err := exists(ctx, c, eq("_id", id)); err != nil || !there {
			return failure(doing, cmp.Or(err, mongo.ErrNoDocuments))
		}
	}
	return failure(doing, busy(ctx))
}

// exists says whether any document matches filter.
func exists(ctx context.Context, c *mongo.Collection, filter ...bson.E) (bool, error) {
	err := c.FindOne(ctx, bson.D(filter), options.FindOne().SetProjection(bson.D{elem("_id", 1)})).Err()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	return err == nil, err
}
