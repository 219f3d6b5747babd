package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
)

// describedProxy stands between a story's client and the gateway and holds every
// answer against the API description that the gateway itself serves, so that the
// one can't drift from the other.
type describedProxy struct {
	*httptest.Server
	gateway string

	mu       sync.Mutex
	describe validator.Validator
	problems []string
	answers  int // that were held against it
}

func newDescribedProxy(gateway string) *describedProxy {
	p := &describedProxy{gateway: gateway}
	target := &url.URL{Scheme: "http", Host: strings.TrimPrefix(gateway, "http://")}
	p.Server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: p.check,
	})
	return p
}

// finish reports what the answers had against their description.
func (p *describedProxy) finish(report func(string)) {
	p.Close()
	for _, problem := range p.problems {
		report(problem)
	}
}

func (p *describedProxy) check(res *http.Response) error {
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.describe == nil && len(p.problems) == 0 {
		if err := p.load(); err != nil {
			p.problems = append(p.problems, err.Error())
		}
	}
	if p.describe == nil {
		return nil // reported
	}
	p.answers++
	if problem := p.validate(res, body); problem != "" {
		p.problems = append(p.problems, problem)
	}
	res.Body = io.NopCloser(bytes.NewReader(body)) // the validator has read it
	return nil
}

// validate returns what is wrong with an answer. A path that is not described
// must be refused, or be one of the pages for people.
func (p *describedProxy) validate(res *http.Response, body []byte) string {
	req := res.Request.Clone(res.Request.Context())
	req.Body = http.NoBody
	ok, errs := p.describe.ValidateHttpResponse(req, res)
	if ok {
		return ""
	}
	var what []string
	for _, e := range errs {
		if e.IsPathMissingError() || e.IsOperationMissingError() {
			page := strings.HasPrefix(res.Header.Get("Content-Type"), "text/")
			problem := res.StatusCode >= 400 && res.Header.Get("Content-Type") == "application/problem+json"
			if page || problem {
				return ""
			}
		}
		what = append(what, e.Message+" "+e.Reason)
		for _, s := range e.SchemaValidationErrors {
			what = append(what, s.FieldPath+": "+s.Reason)
		}
	}
	return fmt.Sprintf("%s %s answered %d against its description: %s\n%s", req.Method, req.URL.Path, res.StatusCode, strings.Join(what, "; "), body)
}

// load gets the description from the gateway.
func (p *describedProxy) load() error {
	res, err := http.Get(p.gateway + "/auth/openapi.json")
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	source, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	doc, err := libopenapi.NewDocument(source)
	if err != nil {
		return fmt.Errorf("the API description does not parse: %w", err)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		return fmt.Errorf("the API description is not usable: %v", errs)
	}
	if ok, invalid := v.ValidateDocument(); !ok {
		return fmt.Errorf("the API description is no valid OpenAPI 3.1: %v", invalid)
	}
	p.describe = v
	return nil
}

// A validator that accepts anything would make every story vain.
func TestDescribedProxyNoticesAnAnswerThatDrifts(t *testing.T) {
	description := `{"openapi":"3.1.0","info":{"title":"t","version":"1"},"paths":{"/me":{"get":{"responses":{"200":{"description":"d",
		"content":{"application/json":{"schema":{"type":"object","required":["id"],"properties":{"id":{"type":"string"}}}}}}}}}}}`
	answer := `{"id":"1"}`
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/auth/openapi.json" {
			_, _ = io.WriteString(w, description)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer gateway.Close()
	for _, tc := range []struct {
		answer, path string
		drifts       bool
	}{
		{`{"id":"1"}`, "/me", false},
		{`{"id":1}`, "/me", true},
		{`{}`, "/me", true},
		{`{"id":"1"}`, "/undescribed", true},
	} {
		answer = tc.answer
		p := newDescribedProxy(gateway.URL)
		res, err := http.Get(p.URL + tc.path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		var problems []string
		p.finish(func(s string) { problems = append(problems, s) })
		if got := len(problems) > 0; got != tc.drifts {
			t.Errorf("%s %s: drift %v, want %v: %v", tc.path, tc.answer, got, tc.drifts, problems)
		}
	}
}
