package policy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Record is one decision as the decision log keeps it: a JSON object on a line
// of its own. Members that a reader does not know are passed over, so that a log
// of a newer gateway can be read by an older one.
type Record struct {
	Time      time.Time     `json:"time"` // RFC 3339
	RequestID string        `json:"request_id"`
	Tenant    string        `json:"tenant,omitempty"`
	Subject   RecordSubject `json:"subject"`
	Method    string        `json:"method"`
	Path      string        `json:"path"`  // decoded and canonical: what was decided on
	Route     string        `json:"route"` // the endpoint's template or the route's path; "" if there is none
	Effect    Effect        `json:"effect"`
	Rule      string        `json:"rule,omitempty"` // that decided, as in Decision.Rule; absent if none matched
	Policy    string        `json:"policy"`         // its revision
}

// RecordSubject is who asked.
type RecordSubject struct {
	UserID        string   `json:"user_id,omitempty"`
	Authenticated bool     `json:"authenticated"`
	Roles         []string `json:"roles"` // without "role:"
}

// Caller is the subject as policies see it.
func (s RecordSubject) Caller() Caller { return Caller{s.Authenticated, s.Roles} }

// Allowed says how the request was decided.
func (r Record) Allowed() bool { return r.Effect == Allow }

// maxRecordBytes bounds a line of a decision log. The longest that the gateway
// writes are a few times as long as the longest header that it accepts.
const maxRecordBytes = 1 << 20

// ReadRecords reads a decision log line by line, in a memory that does not grow
// with the log; name appears in problems. A line that holds no record is
// yielded as a [Problem], and reading goes on behind it. A last line that has no
// end is being written, or was when the log was copied: it is passed over.
// Any other error, of reading itself, is the last.
func ReadRecords(name string, from io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		lines := bufio.NewReaderSize(from, maxRecordBytes)
		for number := 1; ; number++ {
			line, err := lines.ReadSlice('\n')
			tooLong := errors.Is(err, bufio.ErrBufferFull)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = lines.ReadSlice('\n')
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Record{}, fmt.Errorf("%s:%d: %w", name, number, err))
				return
			}
			var r Record
			if tooLong {
				err = fmt.Errorf("longer than %d bytes", maxRecordBytes)
			} else {
				r, err = parseRecord(line)
			}
			if err != nil {
				err = Problem{File: name, Line: number, Severity: Error, Code: "record", Message: "no record of a decision: " + err.Error()}
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func parseRecord(line []byte) (Record, error) {
	if !utf8.Valid(line) {
		return Record{}, errors.New("invalid UTF-8") // which encoding/json would repair
	}
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{}, err
	}
	switch {
	case r.Effect != Allow && r.Effect != Deny:
		return Record{}, fmt.Errorf("the effect is %q", r.Effect)
	case r.Method == "":
		return Record{}, errors.New("there is no method")
	case r.Path == "":
		return Record{}, errors.New("there is no path")
	}
	// The gateway writes none: what it decides on, and who it knows, has a
	// printable name. Terminals obey them.
	for _, text := range append([]string{r.RequestID, r.Tenant, r.Subject.UserID, r.Method, r.Path, r.Route, r.Rule, r.Policy}, r.Subject.Roles...) {
		if strings.ContainsFunc(text, unicode.IsControl) {
			return Record{}, errors.New("control character")
		}
	}
	return r, nil
}
