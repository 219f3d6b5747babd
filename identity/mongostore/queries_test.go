package mongostore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// query is the shape of a query: which fields it compares, not with what.
type query struct {
	collection string
	equal      []string // fields compared with $eq
	other      []string // fields compared otherwise
	sort       bson.D
}

func (q query) String() string {
	return fmt.Sprintf("%s: equal %v, other %v, sort %v", q.collection, q.equal, q.other, q.sort)
}

// queries are the shapes that a client's commands had.
type queries struct {
	mu   sync.Mutex
	seen map[string]query
}

func (qs *queries) record(_ context.Context, e *event.CommandStartedEvent) {
	collection, _ := e.Command.Lookup(e.CommandName).StringValueOK()
	var filters []bson.Raw
	var sort bson.D
	switch e.CommandName {
	case "find":
		filters = append(filters, e.Command.Lookup("filter").Document())
	case "findAndModify":
		filters = append(filters, e.Command.Lookup("query").Document())
	case "update", "delete":
		statements, _ := e.Command.Lookup(e.CommandName + "s").Array().Values()
		for _, s := range statements {
			filters = append(filters, s.Document().Lookup("q").Document())
		}
	}
	if doc, ok := e.Command.Lookup("sort").DocumentOK(); ok {
		_ = bson.Unmarshal(doc, &sort)
	}
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if qs.seen == nil {
		qs.seen = map[string]query{}
	}
	for _, filter := range filters {
		q := query{collection: collection, sort: sort}
		fields, _ := filter.Elements()
		for _, f := range fields {
			operator := ""
			if doc, ok := f.Value().DocumentOK(); ok {
				first, _ := doc.IndexErr(0)
				operator = first.Key()
			}
			if operator == "$eq" {
				q.equal = append(q.equal, f.Key())
			} else {
				q.other = append(q.other, f.Key())
			}
			if !strings.HasPrefix(operator, "$") || strings.Contains(operator, "regex") || strings.HasPrefix(f.Key(), "$") {
				q.other = append(q.other, "without an explicit operator, or with a pattern")
			}
		}
		qs.seen[q.String()] = q
	}
}

// check fails the test for every query that no index of s serves.
func (qs *queries) check(t *testing.T, s *Store) {
	t.Helper()
	if len(qs.seen) == 0 {
		t.Error("no query was seen")
	}
	indexes := map[string][]bson.D{}
	for _, c := range []*mongo.Collection{s.users, s.administrators, s.sessions, s.tokens, s.revocations, s.counters, s.jobs, s.audits, s.ruleHits} {
		indexes[c.Name()] = []bson.D{{elem("_id", 1)}}
		specs, err := c.Indexes().ListSpecifications(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range specs {
			var keys bson.D
			if err := bson.Unmarshal(spec.KeysDocument, &keys); err != nil {
				t.Fatal(err)
			}
			indexes[c.Name()] = append(indexes[c.Name()], keys)
		}
	}
	for _, q := range qs.seen {
		if slices.Contains(q.other, "without an explicit operator, or with a pattern") {
			t.Errorf("query compares with something else than a plain operator: %v", q)
		}
		if !slices.ContainsFunc(indexes[q.collection], q.servedBy) {
			t.Errorf("no index serves the query %v", q)
		}
	}
}

// servedBy says whether a walk along an index finds what the query asks for, in
// its order, without passing more than a few documents that it does not ask for.
func (q query) servedBy(index bson.D) bool {
	matched := 0
	for matched < len(index) && slices.Contains(q.equal, index[matched].Key) {
		matched++
	}
	identifying := []string{"_id", "hash", "username_key", "username_skeleton", "email_key"}
	if matched > 0 && slices.Contains(identifying, index[0].Key) {
		return true
	}
	wanted := q.equal
	if slices.Contains(wanted, "user_id") { // users have one tenant
		wanted = slices.DeleteFunc(slices.Clone(wanted), func(f string) bool { return f == "tenant" })
	}
	if matched < len(wanted) {
		return false
	}
	rest := index[matched:]
	if len(q.sort) > 0 {
		if len(rest) < len(q.sort) {
			return false
		}
		for i, by := range q.sort {
			if rest[i].Key != by.Key || direction(rest[i])*direction(by) != direction(rest[0])*direction(q.sort[0]) {
				return false
			}
		}
		return true
	}
	// Nearly every document has yet to expire: that alone selects nothing.
	selective := slices.DeleteFunc(slices.Clone(q.other), func(f string) bool { return f == "expires_at" || f == "ends_at" })
	if matched == 0 && len(selective) == 0 {
		return index[0].Key == "expires_at"
	}
	return matched > 0 || slices.Contains(selective, rest[0].Key)
}

// direction is 1 or -1, in whatever type a server returns it.
func direction(e bson.E) int {
	switch v := e.Value.(type) {
	case int32:
		return int(v)
	case int64:
		return int(v)
	case float64:
		return int(v)
	case int:
		return v
	}
	return 0
}
