package upstream

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"
)

// FuzzDecodeBody holds the decoders to what they promise of any bytes: what they
// take follows the rules of a task and says the same to encoding/json, and
// what they refuse is refused with a code and without a byte of it.
func FuzzDecodeBody(f *testing.F) {
	for _, c := range badBodies() {
		if len(c.body) < 1000 {
			f.Add([]byte(c.body))
		}
	}
	f.Add([]byte(`{"title":"a","description":"b\n","done":true}`))
	f.Add([]byte(`{"title":"\ud83d\ude00 \\ud800"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		draft, err := decodeDraft(body)
		if checkRefusal(t, err); err == nil {
			checkTaken(t, body, &draft.Title, &draft.Description, nil)
		}
		change, err := decodeChange(body)
		if checkRefusal(t, err); err == nil {
			if change == (Change{}) {
				t.Error("a change of nothing was taken")
			}
			checkTaken(t, body, change.Title, change.Description, change.Done)
		}
	})
}

func checkRefusal(t *testing.T, err error) {
	if err == nil {
		return
	}
	var f *failure
	if !errors.As(err, &f) || problems[f.code].status != 400 {
		t.Fatalf("refused with %v", err)
	}
	for _, e := range f.fields {
		switch e.Field {
		case "title", "description", "done", "body":
		default:
			t.Errorf("field %q is not ours", e.Field)
		}
	}
}

func checkTaken(t *testing.T, body []byte, title, description *string, done *bool) {
	var plain struct {
		Title, Description *string
		Done               *bool
	}
	if err := json.Unmarshal(body, &plain); err != nil {
		t.Fatalf("taken, but not by encoding/json: %v", err)
	}
	if title != nil {
		if n := utf8.RuneCountInString(*title); n < 1 || n > 200 || strings.TrimSpace(*title) != *title || !utf8.ValidString(*title) {
			t.Errorf("title %q was taken", *title)
		}
		if *title != strings.TrimSpace(*plain.Title) {
			t.Errorf("title %q was sent and %q taken", *plain.Title, *title)
		}
	}
	if description != nil && plain.Description != nil && *description != *plain.Description {
		t.Errorf("description %q was sent and %q taken", *plain.Description, *description)
	}
	if done != nil && *done != *plain.Done {
		t.Errorf("done %v was sent and %v taken", *plain.Done, *done)
	}
}

// FuzzDecodeCursor: a cursor is one this service could have given, in its one spelling.
func FuzzDecodeCursor(f *testing.F) {
	f.Add(encodeCursor("01900000-0000-7000-8000-000000000000"))
	f.Add("")
	f.Add("AQ==")
	f.Fuzz(func(t *testing.T, cursor string) {
		id, err := decodeCursor(cursor)
		if err != nil || cursor == "" {
			return
		}
		if u, err := uuid.Parse(id); err != nil || u.Version() != 7 || !isTaskID(id) || encodeCursor(id) != cursor {
			t.Errorf("%q was taken for %q", cursor, id)
		}
	})
}

// FuzzDecodeListing: what is taken of a query is within its bounds.
func FuzzDecodeListing(f *testing.F) {
	f.Add("limit=5&done=true&cursor=AQGQAAAAAHAAgAAAAAAAAAA")
	f.Add("owner=%ff&limit=+1;x")
	f.Fuzz(func(t *testing.T, query string) {
		l, err := decodeListing(query, "cursor", "limit", "done", "owner")
		var fl *failure
		if err != nil && (!errors.As(err, &fl) || len(fl.fields) == 0) {
			t.Fatalf("refused with %v", err)
		}
		if err == nil && (l.page.Limit < 1 || l.page.Limit > maxPageLimit || len(l.owner) > maxNameBytes || !utf8.ValidString(l.owner) ||
			l.page.Before != "" && !isTaskID(l.page.Before)) {
			t.Errorf("%q was taken for %+v", query, l)
		}
	})
}
