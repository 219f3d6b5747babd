// Package upstream is the bundled task manager: a small, real service of the
// kind that stands behind the gateway.
//
// Of the gateway it knows only what arrives: a signed statement of who is
// calling, in the header X-Identity-Assertion, and the public keys that statement
// is checked against. It believes nothing else that a request says about its sender.
package upstream

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Limits of what a task holds, in characters (Unicode code points).
const (
	maxTitle       = 200
	maxDescription = 10_000
)

// Task is something its owner wants done, as stored and as shown to clients.
type Task struct {
	ID          string     `json:"id"`    // UUIDv7, canonical text form: later tasks sort after earlier ones
	Owner       string     `json:"owner"` // the subject of the assertion it was created with
	Tenant      string     `json:"tenant"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Done        bool       `json:"done"`
	CreatedAt   time.Time  `json:"created_at"` // times are UTC, in whole milliseconds
	UpdatedAt   time.Time  `json:"updated_at"`
	CompletedAt *time.Time `json:"completed_at"` // nil unless Done
}

// Draft is what a client says of a task that does not exist yet.
type Draft struct {
	Title       string
	Description string
}

// Change is what a client wants different. Nil leaves a field as it is.
type Change struct {
	Title       *string
	Description *string
	Done        *bool
}

// newTask gives a checked draft an identity and an owner.
func newTask(d Draft, who Identity, now time.Time) (Task, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Task{}, fmt.Errorf("making a task ID: %w", err)
	}
	now = storedTime(now)
	return Task{
		ID:          id.String(),
		Owner:       who.Subject,
		Tenant:      who.Tenant,
		Title:       d.Title,
		Description: d.Description,
		CreatedAt:   now,
		UpdatedAt:   now,
	}, nil
}

// apply changes the task. A change that asks for what is so already changes
// nothing, UpdatedAt included: completing a task twice keeps the first time.
func (c Change) apply(t *Task, now time.Time) {
	now = storedTime(now)
	changed := false
	if c.Title != nil && *c.Title != t.Title {
		t.Title, changed = *c.Title, true
	}
	if c.Description != nil && *c.Description != t.Description {
		t.Description, changed = *c.Description, true
	}
	if c.Done != nil && *c.Done != t.Done {
		t.Done, t.CompletedAt, changed = *c.Done, nil, true
		if t.Done {
			t.CompletedAt = &now
		}
	}
	if changed {
		t.UpdatedAt = now
	}
}

// storedTime cuts a time to what every store keeps, so that the answer to a
// write equals the answer to the read after it.
func storedTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// checkTitle returns the title without surrounding space, or what is wrong with it.
func checkTitle(s string) (title, problem string) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return "", "must not be empty"
	case utf8.RuneCountInString(s) > maxTitle:
		return "", fmt.Sprintf("must not be longer than %d characters", maxTitle)
	case strings.ContainsFunc(s, unicode.IsControl):
		return "", "must not contain control characters"
	}
	return s, ""
}

// checkDescription returns what is wrong with a description, or "". Line breaks
// and tabs are text; other control characters are refused because databases
// differ in what they make of them.
func checkDescription(s string) (problem string) {
	control := func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\n\r", r) }
	switch {
	case utf8.RuneCountInString(s) > maxDescription:
		return fmt.Sprintf("must not be longer than %d characters", maxDescription)
	case strings.ContainsFunc(s, control):
		return "must not contain control characters other than tab and line breaks"
	}
	return ""
}

// isTaskID reports whether s is a UUID in its canonical text form. The other
// spellings that UUID parsers take would be second names for one task.
func isTaskID(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s
}
