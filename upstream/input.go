package upstream

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

const (
	maxBodyBytes     = 64 << 10
	defaultPageLimit = 20
	maxPageLimit     = 100
)

// readBody reads a JSON body whole.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := checkMediaType(r.Header); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &failure{code: codeTooLarge}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &failure{code: codeRequestTimeout, cause: err}
	case err != nil:
		return nil, &failure{code: codeInvalidJSON, detail: "The body did not arrive whole.", cause: err}
	}
	return body, nil
}

func checkMediaType(h http.Header) error {
	fields := h.Values("Content-Type")
	if len(fields) != 1 || len(h.Values("Content-Encoding")) > 0 {
		return &failure{code: codeMediaType}
	}
	mediaType, params, err := mime.ParseMediaType(fields[0])
	charset, named := params["charset"]
	if err != nil || mediaType != "application/json" || named && !strings.EqualFold(charset, "utf-8") {
		return &failure{code: codeMediaType}
	}
	return nil
}

// decodeDraft reads the body of a creation.
func decodeDraft(body []byte) (Draft, error) {
	o, err := decodeObject(body, "title", "description")
	if err != nil {
		return Draft{}, err
	}
	title, description := o.text("title"), o.text("description")
	if _, sent := o.values["title"]; !sent {
		o.wrong("title", "is missing")
	}
	c := Change{Title: title, Description: description}
	o.check(&c)
	if err := o.err(); err != nil {
		return Draft{}, err
	}
	d := Draft{Title: *c.Title}
	if c.Description != nil {
		d.Description = *c.Description
	}
	return d, nil
}

// decodeChange reads the body of an update.
func decodeChange(body []byte) (Change, error) {
	o, err := decodeObject(body, "title", "description", "done")
	if err != nil {
		return Change{}, err
	}
	if len(o.values) == 0 {
		return Change{}, invalidField("body", "must have at least one of: title, description, done")
	}
	c := Change{Title: o.text("title"), Description: o.text("description"), Done: o.flag("done")}
	o.check(&c)
	return c, o.err()
}

// object is a JSON object whose members are all known and all scalars.
type object struct {
	values   map[string]json.Token
	problems []FieldError
}

// decodeObject is strict where encoding/json is lenient: it refuses repeated
// and unknown members, names in another case, ill-formed UTF-8 and UTF-16, and
// anything after the object. As no member of ours is an object or an array,
// nesting ends with the first bracket.
func decodeObject(body []byte, known ...string) (*object, error) {
	switch {
	case !utf8.Valid(body):
		return nil, &failure{code: codeInvalidJSON, detail: "The body is not valid UTF-8."}
	case !json.Valid(body):
		return nil, &failure{code: codeInvalidJSON}
	case hasLoneSurrogate(body):
		return nil, &failure{code: codeInvalidJSON, detail: "The body has an escaped surrogate without its other half."}
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // a number no float can hold is of the wrong type, not an error
	if first, err := dec.Token(); err != nil || first != json.Delim('{') {
		return nil, &failure{code: codeInvalidJSON, cause: err}
	}
	o := &object{values: make(map[string]json.Token)}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, &failure{code: codeInvalidJSON, cause: err}
		}
		field, _ := name.(string)
		if !slices.Contains(known, field) {
			return nil, invalidField("body", "must have no members but: "+strings.Join(known, ", "))
		}
		if _, again := o.values[field]; again {
			return nil, invalidField(field, "must not be given twice")
		}
		value, err := dec.Token()
		if err != nil {
			return nil, &failure{code: codeInvalidJSON, cause: err}
		}
		if _, nested := value.(json.Delim); nested {
			return nil, invalidField(field, "must not be an object or an array")
		}
		o.values[field] = value
	}
	return o, nil
}

func (o *object) wrong(field, message string) {
	o.problems = append(o.problems, FieldError{field, message})
}

func (o *object) err() error {
	if len(o.problems) == 0 {
		return nil
	}
	return &failure{code: codeValidationFailed, fields: o.problems}
}

// text returns a member that must be a string, nil if it is absent.
func (o *object) text(field string) *string {
	value, sent := o.values[field]
	s, ok := value.(string)
	if !ok {
		if sent {
			o.wrong(field, "must be a string")
		}
		return nil
	}
	return &s
}

// flag returns a member that must be true or false, nil if it is absent.
func (o *object) flag(field string) *bool {
	value, sent := o.values[field]
	b, ok := value.(bool)
	if !ok {
		if sent {
			o.wrong(field, "must be true or false")
		}
		return nil
	}
	return &b
}

// check applies the rules of a task to what is given of one.
func (o *object) check(c *Change) {
	if c.Title != nil {
		title, problem := checkTitle(*c.Title)
		if problem != "" {
			o.wrong("title", problem)
		}
		c.Title = &title
	}
	if c.Description != nil {
		if problem := checkDescription(*c.Description); problem != "" {
			o.wrong("description", problem)
		}
	}
}

// hasLoneSurrogate reports whether valid JSON escapes half of a UTF-16 surrogate
// pair, which encoding/json would replace by U+FFFD without a word.
func hasLoneSurrogate(valid []byte) bool {
	unit := func(i int) uint64 { // the \uXXXX at i, or 0
		if i+6 > len(valid) || valid[i] != '\\' || valid[i+1] != 'u' {
			return 0
		}
		u, _ := strconv.ParseUint(string(valid[i+2:i+6]), 16, 16)
		return u
	}
	for i := 0; i < len(valid); i++ {
		if valid[i] != '\\' {
			continue
		}
		switch u := unit(i); {
		case 0xD800 <= u && u < 0xDC00:
			if low := unit(i + 6); low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 11
		case 0xDC00 <= u && u <= 0xDFFF:
			return true
		default:
			i++ // whatever is escaped is no beginning of another escape
		}
	}
	return false
}

// listing is what a query asks for.
type listing struct {
	page  Page
	done  *bool
	owner string // "" is not asked for
}

// decodeListing reads the query of a listing, of which only the known
// parameters may be given, and each once.
func decodeListing(rawQuery string, known ...string) (listing, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return listing{}, invalidField("query", "must be percent-encoded parameters")
	}
	l := listing{page: Page{Limit: defaultPageLimit}}
	var problems []FieldError
	wrong := func(field, message string) { problems = append(problems, FieldError{field, message}) }
	for name, values := range query {
		value := values[0]
		switch {
		case !slices.Contains(known, name):
			wrong("query", "must have no parameters but: "+strings.Join(known, ", "))
		case len(values) > 1:
			wrong(name, "must not be given twice")
		case name == "cursor":
			if l.page.Before, err = decodeCursor(value); err != nil {
				wrong(name, "must be a next_cursor of an earlier page")
			}
		case name == "limit":
			n, err := strconv.Atoi(value)
			if err != nil || strconv.Itoa(n) != value || n < 1 || n > maxPageLimit {
				wrong(name, fmt.Sprintf("must be a number from 1 to %d", maxPageLimit))
			}
			l.page.Limit = n
		case name == "done":
			done := value == "true"
			if !done && value != "false" {
				wrong(name, "must be true or false")
			}
			l.done = &done
		case name == "owner":
			if value == "" || len(value) > maxNameBytes || !utf8.ValidString(value) {
				wrong(name, "must be a user's ID")
			}
			l.owner = value
		}
	}
	if problems != nil {
		slices.SortFunc(problems, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) })
		return listing{}, &failure{code: codeValidationFailed, fields: slices.Compact(problems)}
	}
	return l, nil
}

// cursorVersion begins every cursor, so that a later kind can be told from this one.
const cursorVersion = 1

// encodeCursor makes the cursor that continues a listing after the task with
// that ID. Clients are promised no more than that it can be given back.
func encodeCursor(id string) string {
	u := uuid.MustParse(id)
	return base64.RawURLEncoding.EncodeToString(append([]byte{cursorVersion}, u[:]...))
}

// decodeCursor returns what encodeCursor was given. The empty cursor begins.
func decodeCursor(cursor string) (id string, err error) {
	if cursor == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) != 1+len(uuid.UUID{}) || raw[0] != cursorVersion {
		return "", errors.New("not a cursor")
	}
	u := uuid.UUID(raw[1:])
	// The decoder skips line breaks: compare, so that a cursor has one spelling.
	if id = u.String(); u.Version() != 7 || encodeCursor(id) != cursor {
		return "", errors.New("not a cursor")
	}
	return id, nil
}
