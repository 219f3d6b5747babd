package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/valyala/fasthttp"

	"portcullis/identity"
)

// code is the stable public name of a refusal. Clients match on it; it never
// changes its meaning.
type code string

const (
	codeMalformedRequest   code = "malformed_request"
	codePathNotCanonical   code = "path_not_canonical"
	codeInvalidJSON        code = "invalid_json"
	codeValidationFailed   code = "validation_failed"
	codeResetTokenInvalid  code = "one_time_token_invalid"
	codeUnauthenticated    code = "unauthenticated"
	codeInvalidToken       code = "invalid_token"
	codeInvalidCredentials code = "invalid_credentials"
	codeInvalidRefresh     code = "invalid_refresh_token"
	codeForbidden          code = "forbidden"
	codeCSRFFailed         code = "csrf_failed"
	codeAccountDisabled    code = "account_disabled"
	codeForeignAccount     code = "foreign_account"
	codeRoleNotAllowed     code = "role_not_allowed"
	codeRegistrationClosed code = "registration_closed"
	codeNotFound           code = "not_found"
	codeMethodNotAllowed   code = "method_not_allowed"
	codeRequestTimeout     code = "request_timeout"
	codeUsernameTaken      code = "username_taken"
	codeEmailTaken         code = "email_taken"
	codeLastAdministrator  code = "last_administrator"
	codeBodyTooLarge       code = "body_too_large"
	codeUnsupportedMedia   code = "unsupported_media_type"
	codeTooManyRequests    code = "too_many_requests"
	codeHeaderTooLarge     code = "header_too_large"
	codeInternal           code = "internal_error"
	codeMethodUnknown      code = "method_unknown"
	codeUpstreamUnreach    code = "upstream_unreachable"
	codeUpstreamMalformed  code = "upstream_malformed"
	codeOverloaded         code = "overloaded"
	codeStoreUnavailable   code = "store_unavailable"
	codeIssuerUnavailable  code = "issuer_unavailable"
	codeNoTarget           code = "no_healthy_target"
	codeUpstreamTimeout    code = "upstream_timeout"
)

// problemType is one row of the table of refusals.
type problemType struct {
	code   code
	status int
	detail string // for the client, unless the refusal knows better
}

// problemTypes is the one table of everything the gateway refuses with. The
// documentation prints it, and a test holds the two together.
func problemTypes() []problemType {
	return []problemType{
		{codeMalformedRequest, 400, "The request is malformed or can be read in two ways."},
		{codePathNotCanonical, 400, "The path is not in its one canonical spelling: no empty or dot segments, no backslash or semicolon, upper-case percent-encoding and only where it is needed."},
		{codeInvalidJSON, 400, "The body is not the JSON object that is expected here: see the API description."},
		{codeValidationFailed, 400, "Some fields are not acceptable: see errors."},
		{codeResetTokenInvalid, 400, "The token is unknown, used or expired: request a new one."},
		{codeUnauthenticated, 401, "Sign in first: this needs an access token."},
		{codeInvalidToken, 401, "The access token is not valid (any more): refresh it or sign in again."},
		{codeInvalidCredentials, 401, "Username or password is wrong."},
		{codeInvalidRefresh, 401, "The refresh token is not valid (any more): sign in again."},
		{codeForbidden, 403, "The policy does not allow this to you."},
		{codeCSRFFailed, 403, "Another site may have sent this: with cookies, it takes an allowed Origin and, to change something, X-CSRF-Token."},
		{codeAccountDisabled, 403, "The account is disabled: ask an administrator."},
		{codeForeignAccount, 403, "Another issuer keeps the account: what is asked for is done there."},
		{codeRoleNotAllowed, 403, "Only an administrator may give that."},
		{codeRegistrationClosed, 403, "Registration is closed: ask an administrator for an account."},
		{codeNotFound, 404, "There is nothing here."},
		{codeMethodNotAllowed, 405, "The resource does not have this method: see Allow."},
		{codeRequestTimeout, 408, "The request did not arrive in time."},
		{codeUsernameTaken, 409, "The username, or one that looks like it, is taken."},
		{codeEmailTaken, 409, "The e-mail address is taken."},
		{codeLastAdministrator, 409, "This is the last administrator: make somebody else one first."},
		{codeBodyTooLarge, 413, "The body is larger than is accepted here."},
		{codeUnsupportedMedia, 415, "The body must be application/json, without a Content-Encoding."},
		{codeTooManyRequests, 429, "Too many attempts: wait as long as Retry-After says."},
		{codeHeaderTooLarge, 431, "The request's header is larger than is accepted."},
		{codeInternal, 500, "Something went wrong here. The request id leads to the cause in our log."},
		{codeMethodUnknown, 501, "The method is not known."},
		{codeUpstreamUnreach, 502, "The service behind this could not be reached."},
		{codeUpstreamMalformed, 502, "The service behind this gave no proper answer."},
		{codeOverloaded, 503, "Too much is going on: try again as Retry-After says."},
		{codeStoreUnavailable, 503, "Accounts are not available for the moment: try again as Retry-After says."},
		{codeIssuerUnavailable, 503, "The keys of the token's issuer cannot be had for the moment: try again as Retry-After says."},
		{codeNoTarget, 503, "No instance of the service behind this is healthy: try again as Retry-After says."},
		{codeUpstreamTimeout, 504, "The service behind this did not answer in time."},
	}
}

func (c code) row() problemType {
	for _, row := range problemTypes() {
		if row.code == c {
			return row
		}
	}
	return problemType{code: codeInternal, status: 500}
}

// RefusalTable is everything the gateway refuses with, as a Markdown table for the
// README.
func RefusalTable() string {
	var b strings.Builder
	b.WriteString("| status | code | meaning |\n|---:|---|---|\n")
	for _, row := range problemTypes() {
		fmt.Fprintf(&b, "| %d | `%s` | %s |\n", row.status, row.code, row.detail)
	}
	return b.String()
}

// refusal is an error with its two faces: what the client is told, and the cause
// for the log.
type refusal struct {
	code       code
	detail     string // for the client; "" for the table's
	fields     []fieldProblem
	retryAfter time.Duration // for 429 and 503
	allow      string        // for 405
	setCookie  []string      // values of Set-Cookie fields
	cause      error         // for the log alone
	close      bool          // the connection cannot be trusted any further
}

type fieldProblem struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (r *refusal) Error() string {
	if r.cause == nil {
		return string(r.code)
	}
	return string(r.code) + ": " + r.cause.Error()
}

func (r *refusal) Unwrap() error { return r.cause }

func refuse(c code, cause error) *refusal { return &refusal{code: c, cause: cause} }

// problem is RFC 9457's problem details object with our members.
type problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail"`
	Code      code           `json:"code"`
	RequestID string         `json:"request_id"`
	Errors    []fieldProblem `json:"errors,omitempty"`
}

// defaultRetryAfter is the wait that a 503 asks for when nobody knows better.
const defaultRetryAfter = 2 * time.Second

// writeRefusal is the one place where an error becomes bytes. It writes nothing
// that it was not given for the client.
func writeRefusal(answer *fasthttp.Response, r *refusal, requestID string) int {
	row := r.code.row()
	detail := r.detail
	if detail == "" {
		detail = row.detail
	}
	body, err := json.Marshal(problem{
		Type: "about:blank", Title: http.StatusText(row.status), Status: row.status,
		Detail: detail, Code: row.code, RequestID: requestID, Errors: r.fields,
	})
	if err != nil { // only strings and ints: cannot happen
		body = nil
	}
	ending := r.close || answer.ConnectionClose() // decided before; Reset forgets it
	answer.Reset()
	h := &answer.Header
	answer.SetStatusCode(row.status)
	guard(h)
	h.SetContentType("application/problem+json")
	h.Set(fieldGatewayError, string(row.code))
	h.Set(fieldRequestID, requestID)
	switch row.status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", challenge(r))
	case http.StatusMethodNotAllowed:
		h.Set("Allow", r.allow)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		wait := r.retryAfter
		if wait <= 0 {
			wait = defaultRetryAfter
		}
		h.Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	}
	for _, cookie := range r.setCookie {
		h.Add("Set-Cookie", cookie)
	}
	if ending {
		answer.SetConnectionClose()
	}
	answer.SetBody(body)
	return row.status
}

// challenge follows RFC 6750 §3: no error code for a request without credentials.
func challenge(r *refusal) string {
	if r.code == codeInvalidToken {
		return `Bearer error="invalid_token"`
	}
	return "Bearer"
}

// asRefusal gives every error of the rooms below its public face.
func asRefusal(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	if fields := fieldProblems(err); len(fields) > 0 {
		return &refusal{code: codeValidationFailed, fields: fields, cause: err}
	}
	var throttled *identity.ThrottledError
	if errors.As(err, &throttled) {
		return &refusal{code: codeTooManyRequests, retryAfter: throttled.RetryAfter, cause: err}
	}
	for _, m := range []struct {
		err  error
		code code
	}{
		// Not knowing comes first: a joined error may also hold a miss.
		{identity.ErrUnavailable, codeStoreUnavailable},
		{identity.ErrRevocationsStale, codeStoreUnavailable},
		{identity.ErrIssuerUnavailable, codeIssuerUnavailable},
		{identity.ErrBusy, codeOverloaded},
		{identity.ErrForeignAccount, codeForeignAccount},
		{identity.ErrTokenReused, codeInvalidRefresh},
		{identity.ErrTokenExpired, codeInvalidToken},
		{identity.ErrTokenRevoked, codeInvalidToken},
		{identity.ErrTokenInvalid, codeInvalidToken},
		{identity.ErrTokenUsed, codeResetTokenInvalid},
		{identity.ErrBadCredentials, codeInvalidCredentials},
		{identity.ErrDisabled, codeAccountDisabled},
		{identity.ErrRegistrationClosed, codeRegistrationClosed},
		{identity.ErrRoleNotAllowed, codeRoleNotAllowed},
		{identity.ErrUsernameTaken, codeUsernameTaken},
		{identity.ErrEmailTaken, codeEmailTaken},
		{identity.ErrLastAdministrator, codeLastAdministrator},
		{identity.ErrNotFound, codeNotFound},
	} {
		if errors.Is(err, m.err) {
			return refuse(m.code, err)
		}
	}
	return refuse(codeInternal, err)
}

// fieldProblems collects the problems with single fields from a joined error.
func fieldProblems(err error) []fieldProblem {
	var field *identity.FieldError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []fieldProblem
		for _, e := range joined.Unwrap() {
			all = append(all, fieldProblems(e)...)
		}
		return all
	}
	if errors.As(err, &field) {
		return []fieldProblem{{field.Field, field.Message}}
	}
	return nil
}

// errPanic is a mistake of ours. What follows it on its connection is not to be trusted.
var errPanic = errors.New("panic")

// caught is the error of do, which a panic is made to be, too.
func caught(do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = recovered(v, debug.Stack())
		}
	}()
	return do()
}

// recovered is the error of a panic.
func recovered(v any, stack []byte) error { return fmt.Errorf("%w: %v\n%s", errPanic, v, stack) }
