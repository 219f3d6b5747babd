package upstream

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"gopkg.in/yaml.v3"
)

// readDescription returns openapi.yaml as it is.
func readDescription(t *testing.T) jsonMap {
	t.Helper()
	source, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc jsonMap
	if err := yaml.Unmarshal(source, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDescriptionHasTheRoutesOfTheService(t *testing.T) {
	t.Parallel()
	want, got := map[string][]string{}, map[string][]string{}
	for _, route := range NewHandler(nil, nil, nil).(*api).routes {
		want[route.template] = slices.Sorted(maps.Keys(route.methods))
	}
	for path, item := range readDescription(t)["paths"].(jsonMap) {
		for member := range item.(jsonMap) {
			if member != "parameters" {
				got[path] = append(got[path], strings.ToUpper(member))
			}
		}
		slices.Sort(got[path])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDescriptionCanBeMergedIntoTheGateways(t *testing.T) {
	t.Parallel()
	doc := readDescription(t)
	components := doc["components"].(jsonMap)
	if got := slices.Collect(maps.Keys(components)); !slices.Equal(got, []string{"schemas"}) {
		t.Errorf("components %v, but only schemas are merged", got)
	}
	for name := range components["schemas"].(jsonMap) {
		if !strings.HasPrefix(name, "Task") {
			t.Errorf("the schema %s could be another service's", name)
		}
	}
	for path, item := range doc["paths"].(jsonMap) {
		for method, operation := range item.(jsonMap) {
			if method == "parameters" {
				continue
			}
			// What is said once for the document is lost in the merger.
			if diff := cmp.Diff([]any{jsonMap{"oauth2": []any{}}}, operation.(jsonMap)["security"]); diff != "" {
				t.Errorf("%s %s: security: %s", method, path, diff)
			}
		}
	}
}

func TestAnswersAreAsDescribed(t *testing.T) {
	t.Parallel()
	doc := readDescription(t)
	// What the gateway's document provides.
	components := doc["components"].(jsonMap)
	components["securitySchemes"] = jsonMap{"oauth2": jsonMap{"type": "http", "scheme": "bearer"}}
	components["schemas"].(jsonMap)["Problem"] = jsonMap{
		"type": "object", "required": []any{"type", "title", "status", "detail", "code", "request_id"},
		"properties": jsonMap{"status": jsonMap{"type": "integer"}, "code": jsonMap{"type": "string"}},
	}
	source, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := libopenapi.NewDocument(source)
	if err != nil {
		t.Fatal(err)
	}
	description, errs := validator.NewValidator(parsed)
	if errs != nil {
		t.Fatal(errs)
	}
	if ok, errs := description.ValidateDocument(); !ok {
		t.Fatalf("no valid OpenAPI document: %v", errs)
	}

	s := newService(t)
	ann := s.with("ann", jsonMap{"roles": []string{"admin"}})
	open, done := ann.create("open").ID, ann.create("done").ID
	nobody := user{s, "x"}
	for _, c := range []struct {
		who                user
		method, path, body string
		status             int
	}{
		{ann, "POST", "/tasks", `{"title":"a","description":"b"}`, 201},
		{ann, "POST", "/tasks", `{"title":""}`, 400},
		{ann, "POST", "/tasks", strings.Repeat(" ", maxBodyBytes+1), 413},
		{ann, "POST", "/tasks", "", 415},
		{nobody, "POST", "/tasks", `{"title":"a"}`, 401},
		{ann, "POST", "/tasks/" + done + "/complete", "", 200},
		{s.as("bob"), "POST", "/tasks/" + done + "/complete", "", 404},
		{ann, "PATCH", "/tasks/" + open, `{"title":"b"}`, 200},
		{ann, "PATCH", "/tasks/" + open, `{}`, 400},
		{ann, "PATCH", "/tasks/" + open, "", 415},
		{s.as("bob"), "PATCH", "/tasks/" + open, `{"done":true}`, 404},
		{ann, "GET", "/tasks/" + open, "", 200},
		{ann, "GET", "/tasks/" + done, "", 200},
		{s.as("bob"), "GET", "/tasks/" + done, "", 404},
		{ann, "GET", "/tasks?limit=1", "", 200},
		{ann, "GET", "/tasks?done=true", "", 200},
		{s.as("bob"), "GET", "/tasks", "", 200},
		{ann, "GET", "/tasks?limit=0", "", 400},
		{nobody, "GET", "/tasks", "", 401},
		{ann, "GET", "/admin/tasks?owner=ann&limit=1", "", 200},
		{s.as("bob"), "GET", "/admin/tasks", "", 403},
		{ann, "DELETE", "/tasks/" + open, "", 204},
		{ann, "DELETE", "/tasks/" + open, "", 404},
	} {
		r := c.who.do(c.method, c.path, c.body)
		r.want(t, c.status)
		req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		ok, errs := description.ValidateHttpResponse(req, &http.Response{
			StatusCode: r.status, Header: r.header, Body: io.NopCloser(bytes.NewReader(r.body)), Request: req,
		})
		if !ok {
			t.Errorf("%s %s: %v\n%s", c.method, c.path, errs[0], r.body)
		}
	}
}
