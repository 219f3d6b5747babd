package boltstore

import (
	"fmt"
	"time"
	"unicode/utf8"

	"portcullis/identity"
)

// The records are the identity types with the names that the file uses. A
// change to an identity type that would change the file does not compile here.
type (
	userRecord struct {
		ID               string    `json:"id"`
		Username         string    `json:"username"`
		UsernameKey      string    `json:"username_key"`
		UsernameSkeleton string    `json:"username_skeleton"`
		Email            string    `json:"email,omitempty"`
		EmailKey         string    `json:"email_key,omitempty"`
		EmailVerified    bool      `json:"email_verified,omitempty"`
		PasswordHash     string    `json:"password_hash,omitempty"`
		Roles            []string  `json:"roles,omitempty"`
		Active           bool      `json:"active,omitempty"`
		Tenant           string    `json:"tenant,omitempty"`
		Epoch            int64     `json:"epoch"`
		Version          int64     `json:"version"`
		CreatedAt        time.Time `json:"created_at"`
		UpdatedAt        time.Time `json:"updated_at"`
	}

	sessionRecord struct {
		ID        string    `json:"id"`
		UserID    string    `json:"user_id"`
		Counter   int64     `json:"counter"`
		UserAgent string    `json:"user_agent,omitempty"`
		IP        string    `json:"ip,omitempty"`
		CreatedAt time.Time `json:"created_at"`
		RotatedAt time.Time `json:"rotated_at"`
		ExpiresAt time.Time `json:"expires_at"`
		EndsAt    time.Time `json:"ends_at"`
	}

	tokenRecord struct {
		Purpose   identity.Purpose `json:"purpose"`
		UserID    string           `json:"user_id"`
		Hash      string           `json:"hash"`
		Email     string           `json:"email"`
		ExpiresAt time.Time        `json:"expires_at"`
	}

	revocationRecord struct {
		Kind      identity.RevocationKind `json:"kind"`
		ID        string                  `json:"id"`
		MinEpoch  int64                   `json:"min_epoch,omitempty"`
		ExpiresAt time.Time               `json:"expires_at"`
		RaisedAt  time.Time               `json:"raised_at"` // by the clock that tick reads
	}

	counterRecord struct {
		Key       string    `json:"key"`
		Count     int       `json:"count"`
		ExpiresAt time.Time `json:"expires_at"`
	}

	jobRecord struct {
		ID        string            `json:"id"`
		Kind      string            `json:"kind"`
		Data      map[string]string `json:"data,omitempty"`
		Attempts  int               `json:"attempts"`
		CreatedAt time.Time         `json:"created_at"`
		NextAt    time.Time         `json:"next_at"`
	}

	ruleHitsRecord struct {
		Day       string           `json:"day"`
		Replica   string           `json:"replica"`
		Counts    map[string]int64 `json:"counts,omitempty"`
		ExpiresAt time.Time        `json:"expires_at"`
	}

	auditRecord struct {
		ID        string            `json:"id"`
		At        time.Time         `json:"at"`
		Event     string            `json:"event"`
		Tenant    string            `json:"tenant,omitempty"`
		UserID    string            `json:"user_id,omitempty"`
		ActorID   string            `json:"actor_id,omitempty"`
		SessionID string            `json:"session_id,omitempty"`
		IP        string            `json:"ip,omitempty"`
		RequestID string            `json:"request_id,omitempty"`
		Details   map[string]string `json:"details,omitempty"`
		ExpiresAt time.Time         `json:"expires_at"`
	}
)

var users = table[userRecord]{
	name: "users",
	key:  func(r *userRecord) []byte { return []byte(r.ID) },
	indexes: []index[userRecord]{
		{name: "username", taken: identity.ErrUsernameTaken, key: func(r *userRecord) []byte { return []byte(r.UsernameKey) }},
		{name: "skeleton", taken: identity.ErrUsernameTaken, key: func(r *userRecord) []byte { return []byte(r.UsernameSkeleton) }},
		{name: "email", taken: identity.ErrEmailTaken, key: func(r *userRecord) []byte {
			if r.EmailKey == "" {
				return nil // any number of users can have no address
			}
			return []byte(r.EmailKey)
		}},
		{name: "tenant_username", key: func(r *userRecord) []byte { return append(group(r.Tenant), r.UsernameKey...) }},
		{name: "tenant_email", key: func(r *userRecord) []byte {
			if r.EmailKey == "" {
				return nil
			}
			return append(group(r.Tenant), r.EmailKey...)
		}},
	},
}

var sessions = table[sessionRecord]{
	name: "sessions",
	key:  func(r *sessionRecord) []byte { return []byte(r.ID) },
	indexes: []index[sessionRecord]{
		{name: "user", key: func(r *sessionRecord) []byte { return append(group(r.UserID), r.ID...) }},
	},
	expires: (*sessionRecord).over,
}

// over returns the time at which the session ends unless it is refreshed.
func (r *sessionRecord) over() time.Time {
	if r.EndsAt.Before(r.ExpiresAt) {
		return r.EndsAt
	}
	return r.ExpiresAt
}

var tokens = table[tokenRecord]{
	name: "tokens",
	key:  func(r *tokenRecord) []byte { return group(r.UserID, string(r.Purpose)) },
	indexes: []index[tokenRecord]{
		{name: "hash", key: func(r *tokenRecord) []byte {
			return append(group(string(r.Purpose), r.Hash), r.UserID...)
		}},
	},
	expires: func(r *tokenRecord) time.Time { return r.ExpiresAt },
}

var revocations = table[revocationRecord]{
	name: "revocations",
	key:  func(r *revocationRecord) []byte { return group(string(r.Kind), r.ID) },
	indexes: []index[revocationRecord]{
		{name: "raised", key: func(r *revocationRecord) []byte {
			return append(timeKey(r.RaisedAt), group(string(r.Kind), r.ID)...)
		}},
	},
	expires: func(r *revocationRecord) time.Time { return r.ExpiresAt },
}

var counters = table[counterRecord]{
	name:    "counters",
	key:     func(r *counterRecord) []byte { return []byte(r.Key) },
	expires: func(r *counterRecord) time.Time { return r.ExpiresAt },
}

var jobs = table[jobRecord]{
	name: "jobs",
	key:  func(r *jobRecord) []byte { return []byte(r.ID) },
	indexes: []index[jobRecord]{
		{name: "due", key: func(r *jobRecord) []byte { return append(timeKey(r.NextAt), r.ID...) }},
	},
}

// audits has an index for each combination of fields that a query can name;
// see ListAudit.
var audits = table[auditRecord]{
	name: "audit",
	key:  func(r *auditRecord) []byte { return []byte(r.ID) },
	indexes: []index[auditRecord]{
		{name: "user", key: func(r *auditRecord) []byte { return append(group(r.UserID), r.ID...) }},
		{name: "user_event", key: func(r *auditRecord) []byte { return append(group(r.UserID, r.Event), r.ID...) }},
		{name: "event", key: func(r *auditRecord) []byte { return append(group(r.Event), r.ID...) }},
		{name: "tenant", key: func(r *auditRecord) []byte { return append(group(r.Tenant), r.ID...) }},
		{name: "tenant_event", key: func(r *auditRecord) []byte { return append(group(r.Tenant, r.Event), r.ID...) }},
	},
	expires: func(r *auditRecord) time.Time { return r.ExpiresAt },
}

var ruleHits = table[ruleHitsRecord]{
	name:    "rule_hits",
	key:     func(r *ruleHitsRecord) []byte { return []byte(r.Day + "/" + r.Replica) },
	expires: func(r *ruleHitsRecord) time.Time { return r.ExpiresAt },
}

// bucketNames returns the name of every bucket that holds records.
func bucketNames() [][]byte {
	var names [][]byte
	for _, table := range [][][]byte{
		users.names(), {administratorsBucket}, sessions.names(), tokens.names(), revocations.names(),
		counters.names(), jobs.names(), audits.names(), ruleHits.names(),
	} {
		names = append(names, table...)
	}
	return names
}

// named is a value by which records are found.
type named struct{ name, value string }

// required refuses values by which a record could not be found again.
func required(keys ...named) error {
	for _, k := range keys {
		if k.value == "" {
			return fmt.Errorf("%s is empty", k.name)
		}
	}
	return optional(keys...)
}

// optional is required for values that may be empty. JSON would silently
// repair what is not UTF-8, and the index entry would no longer belong to the
// record.
func optional(keys ...named) error {
	for _, k := range keys {
		if !utf8.ValidString(k.value) {
			return fmt.Errorf("%s is not valid UTF-8", k.name)
		}
	}
	return nil
}
