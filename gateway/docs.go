package gateway

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	swaggerui "github.com/swaggo/files/v2"
	"gopkg.in/yaml.v3"
)

//go:embed web
var web embed.FS

// docs is what people read and click on: the API description, the page to try it
// on, and the pages that mailed links lead to.
type docs struct {
	description []byte
	pages       map[string]staticFile // by path below the prefix
}

// staticFile is a static file with what a browser may do with it.
type staticFile struct {
	mediaType string
	policy    string // Content-Security-Policy
	body      func() ([]byte, error)
	cacheable bool
}

// The Swagger UI styles elements from its script; everything else comes from here.
const uiPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func newDocs(cfg StateConfig) (*docs, error) {
	d := &docs{pages: map[string]staticFile{}}
	var err error
	if d.description, err = describe(cfg); err != nil {
		return nil, err
	}
	for path, file := range map[string]string{"/docs": "web/docs.html", "/docs/start.js": "web/start.js", "/reset": "web/reset.html", "/verify": "web/verify.html"} {
		body, err := web.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("page %s: %w", path, err)
		}
		p := staticFile{mediaType: "text/html; charset=utf-8", policy: inlinePolicy(body), body: func() ([]byte, error) { return body, nil }}
		switch {
		case strings.HasSuffix(file, ".js"):
			p.mediaType, p.policy = "text/javascript; charset=utf-8", uiPolicy
		case path == "/docs":
			p.policy = uiPolicy
		}
		d.pages[path] = p
	}
	for file, mediaType := range map[string]string{"swagger-ui.css": "text/css; charset=utf-8", "swagger-ui-bundle.js": "text/javascript; charset=utf-8", "favicon-32x32.png": "image/png"} {
		if _, err := fs.Stat(swaggerui.FS, file); err != nil {
			return nil, fmt.Errorf("the API page's %s: %w", file, err)
		}
		// 1.5 MB that most gateways are never asked for, and one copy for all who ask.
		body := sync.OnceValues(func() ([]byte, error) { return fs.ReadFile(swaggerui.FS, file) })
		d.pages["/docs/"+file] = staticFile{mediaType: mediaType, policy: uiPolicy, body: body, cacheable: true}
	}
	return d, nil
}

// inlinePolicy allows a page exactly the script it has inside.
func inlinePolicy(html []byte) string {
	script := regexp.MustCompile(`(?s)<script>(.*)</script>`).FindSubmatch(html)
	if script == nil {
		return "default-src 'none'; frame-ancestors 'none'"
	}
	sum := sha256.Sum256(script[1])
	return "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
		"script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (d *docs) endpoints() []endpoint {
	all := []endpoint{
		{"GET", "/openapi.json", false, func(_ context.Context, c *call) error {
			c.answer.Header.SetContentType("application/json")
			c.answer.SetBodyRaw(d.description)
			return nil
		}},
		{"GET", jwksPath, false, getJWKS},
	}
	for path, p := range d.pages {
		all = append(all, endpoint{"GET", path, false, func(_ context.Context, c *call) error {
			body, err := p.body()
			if err != nil {
				return fmt.Errorf("page %s: %w", path, err)
			}
			h := &c.answer.Header
			h.SetContentType(p.mediaType)
			h.Set("Content-Security-Policy", p.policy)
			h.Set("Referrer-Policy", "no-referrer") // mailed links carry tokens
			if p.cacheable {
				h.Set("Cache-Control", "public, max-age=86400")
			}
			c.answer.SetStatusCode(http.StatusOK)
			c.answer.SetBodyRaw(body)
			return nil
		}})
	}
	return all
}

// describe merges the gateway's description with those of the upstreams.
func describe(cfg StateConfig) ([]byte, error) {
	source, err := web.ReadFile("web/openapi.yaml")
	if err != nil {
		return nil, fmt.Errorf("the API description: %w", err)
	}
	doc, err := parseDescription(source)
	if err != nil {
		return nil, fmt.Errorf("the API description: %w", err)
	}
	paths := map[string]any{}
	for path, item := range object(doc, "paths") {
		if path != jwksPath {
			path = cfg.Prefix + path
		}
		paths[path] = item
	}
	doc["paths"] = paths
	flow := object(object(object(object(object(doc, "components"), "securitySchemes"), "oauth2"), "flows"), "password")
	flow["tokenUrl"], flow["refreshUrl"] = cfg.Prefix+"/login", cfg.Prefix+"/refresh"

	var errs []error
	for _, u := range cfg.Upstreams {
		if len(u.OpenAPI) == 0 {
			continue
		}
		other, err := parseDescription(u.OpenAPI)
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream %s: its API description: %w", u.Name, err))
			continue
		}
		other["paths"] = routedPaths(cfg.Routes, u.Name, object(other, "paths"))
		refusable(object(other, "paths"))
		errs = append(errs,
			merge(u.Name, paths, object(other, "paths")),
			merge(u.Name, object(object(doc, "components"), "schemas"), object(object(other, "components"), "schemas")),
			merge(u.Name, object(object(doc, "components"), "parameters"), object(object(other, "components"), "parameters")),
			merge(u.Name, object(object(doc, "components"), "responses"), object(object(other, "components"), "responses")))
		if tags, ok := other["tags"].([]any); ok {
			own, _ := doc["tags"].([]any)
			doc["tags"] = append(own, tags...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	b, err := json.Marshal(doc, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encoding the API description: %w", err)
	}
	return b, nil
}

// parseDescription reads YAML or JSON.
func parseDescription(source []byte) (map[string]any, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(source, &doc); err != nil {
		return nil, err
	}
	if version, _ := doc["openapi"].(string); !strings.HasPrefix(version, "3.1") {
		return nil, errors.New("must say openapi: 3.1")
	}
	return doc, nil
}

// refusable adds to each operation of an upstream that the gateway may refuse it.
func refusable(paths map[string]any) {
	for path := range paths {
		for _, method := range []string{"get", "put", "post", "delete", "options", "head", "patch"} {
			responses := object(object(object(paths, path), method), "responses")
			if _, ok := responses["default"]; !ok {
				responses["default"] = map[string]any{"$ref": "#/components/responses/Problem"}
			}
		}
	}
}

// merge adds what from has to into; two of one name are an error, because which
// of them counted would be chance.
func merge(upstream string, into, from map[string]any) error {
	for name, v := range from {
		if _, taken := into[name]; taken {
			return fmt.Errorf("upstream %s: its API description defines %s, which is taken", upstream, name)
		}
		into[name] = v
	}
	return nil
}

// object returns a member that is an object; an empty one if it is not.
func object(m map[string]any, name string) map[string]any {
	if o, ok := m[name].(map[string]any); ok {
		return o
	}
	return map[string]any{}
}
