package upstream

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
)

// code is the stable name of a failure, for programs to compare.
type code string

const (
	codeAssertionRequired code = "assertion_required"
	codeAssertionInvalid  code = "assertion_invalid"
	codeJWKSUnavailable   code = "jwks_unavailable"
	codeRoleRequired      code = "role_required"
	codeNotFound          code = "not_found"
	codeTaskNotFound      code = "task_not_found"
	codeMethodNotAllowed  code = "method_not_allowed"
	codeMediaType         code = "unsupported_media_type"
	codeTooLarge          code = "body_too_large"
	codeRequestTimeout    code = "request_timeout"
	codeInvalidJSON       code = "invalid_json"
	codeValidationFailed  code = "validation_failed"
	codeStoreUnavailable  code = "store_unavailable"
	codeInternal          code = "internal_error"
)

// problems is the one table of what this service answers when it cannot do what
// it was asked. It is never written to.
var problems = map[code]struct {
	status int
	detail string
}{
	codeAssertionRequired: {http.StatusUnauthorized, "This service answers requests that come through the gateway; this one carries no identity assertion."},
	codeAssertionInvalid:  {http.StatusUnauthorized, "The request's identity assertion is not valid here and now."},
	codeJWKSUnavailable:   {http.StatusServiceUnavailable, "The keys that identity assertions are checked with cannot be had at the moment."},
	codeRoleRequired:      {http.StatusForbidden, "Listing the tasks of others takes the role admin."},
	codeNotFound:          {http.StatusNotFound, "There is nothing at this path."},
	codeTaskNotFound:      {http.StatusNotFound, "You have no task with this ID."},
	codeMethodNotAllowed:  {http.StatusMethodNotAllowed, "This path does not take this method; the Allow header lists those it takes."},
	codeMediaType:         {http.StatusUnsupportedMediaType, "The body must be sent as application/json in UTF-8, without a content encoding."},
	codeTooLarge:          {http.StatusRequestEntityTooLarge, "The body must not be larger than 64 KiB."},
	codeRequestTimeout:    {http.StatusRequestTimeout, "The body did not arrive in time."},
	codeInvalidJSON:       {http.StatusBadRequest, "The body is not one JSON object."},
	codeValidationFailed:  {http.StatusBadRequest, "Something in the request is not as it must be; see errors."},
	codeStoreUnavailable:  {http.StatusServiceUnavailable, "The task store cannot be reached at the moment."},
	codeInternal:          {http.StatusInternalServerError, "Something went wrong on our side."},
}

// FieldError says what is wrong with one part of the input.
type FieldError struct {
	Field   string `json:"field"` // a name of ours, never one the client made up
	Message string `json:"message"`
}

// failure is an error with two faces: code, detail and fields are for the
// client, cause is for the log. None of the client's bytes may be in the former.
type failure struct {
	code   code
	detail string // "" stands for the table's
	fields []FieldError
	allow  string // the Allow header of a 405
	cause  error
}

func (f *failure) Error() string {
	if f.cause != nil {
		return string(f.code) + ": " + f.cause.Error()
	}
	return string(f.code)
}

func (f *failure) Unwrap() error { return f.cause }

func invalidField(field, message string) *failure {
	return &failure{code: codeValidationFailed, fields: []FieldError{{field, message}}}
}

// asFailure decides what a client is told of an error.
func asFailure(err error) *failure {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, ErrNoAssertion):
		return &failure{code: codeAssertionRequired, cause: err}
	case errors.Is(err, ErrKeysUnavailable):
		return &failure{code: codeJWKSUnavailable, cause: err}
	case errors.Is(err, ErrInvalidAssertion):
		return &failure{code: codeAssertionInvalid, cause: err}
	case errors.Is(err, ErrNotFound):
		return &failure{code: codeTaskNotFound}
	case errors.Is(err, ErrUnavailable):
		return &failure{code: codeStoreUnavailable, cause: err}
	}
	return &failure{code: codeInternal, cause: err}
}

// retryAfter is the Retry-After of a 503, in seconds.
const retryAfter = 2

// write answers with the failure as problem details (RFC 9457).
func (f *failure) write(w http.ResponseWriter, requestID string) {
	known := problems[f.code]
	detail := known.detail
	if f.detail != "" {
		detail = f.detail
	}
	h := w.Header()
	switch known.status {
	case http.StatusUnauthorized:
		// RFC 9110 wants a challenge with every 401. No scheme is registered for
		// assertions; what matters is that this one names none a client could
		// answer by itself.
		h.Set("WWW-Authenticate", "Identity-Assertion")
	case http.StatusMethodNotAllowed:
		h.Set("Allow", f.allow)
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	writeBody(w, known.status, "application/problem+json", struct {
		Type      string       `json:"type"`
		Title     string       `json:"title"`
		Status    int          `json:"status"`
		Detail    string       `json:"detail"`
		Code      code         `json:"code"`
		RequestID string       `json:"request_id"`
		Errors    []FieldError `json:"errors,omitempty"`
	}{"about:blank", http.StatusText(known.status), known.status, detail, f.code, requestID, f.fields})
}

// writeBody sends v as the whole answer. The values sent here always encode; a
// failure to send means that the other side has gone.
func writeBody(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // becomes a logged 500
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
