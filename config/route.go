package config

import (
	"fmt"
	"strings"
	"time"
)

// Route sends the paths that begin with the segments of Path to an upstream.
// MaxBody and the timeouts but BodyTimeout are never 0 once loaded.
type Route struct {
	Path              string        `yaml:"path" format:"path" required:"true" doc:"prefix of whole segments: /a takes /a and /a/b, not /ab"`
	Upstream          string        `yaml:"upstream" required:"true" doc:"name of the upstream"`
	PassAuthorization bool          `yaml:"pass_authorization" default:"false" doc:"whether the upstream gets the client's Authorization header"`
	MaxBody           int64         `yaml:"max_body" min:"1B" doc:"in place of limits.body"`
	HeaderTimeout     time.Duration `yaml:"header_timeout" min:"10ms" max:"1h" doc:"in place of the upstream's header_timeout"`
	IdleTimeout       time.Duration `yaml:"idle_timeout" min:"1s" max:"1h" doc:"in place of the upstream's idle_timeout, for bodies"`
	BodyTimeout       time.Duration `yaml:"body_timeout" min:"1s" max:"24h" doc:"in place of the upstream's body_timeout"`
	StripPrefix       bool          `yaml:"strip_prefix" default:"false" doc:"whether the upstream gets the path without this prefix; the policy has decided on the whole path"`
	Rewrite           string        `yaml:"rewrite" format:"path" doc:"what the upstream gets in place of this prefix; \"\" keeps it"`
	RequestHeaders    Headers       `yaml:"request_headers"`
	ResponseHeaders   Headers       `yaml:"response_headers"`
	CORS              CORS          `yaml:"cors"`
	RateLimits        []string      `yaml:"rate_limits" format:"name" doc:"names of the limits that hold here"`
}

// Headers is a change of a message's header on its way through.
type Headers struct {
	Set    []string `yaml:"set" format:"field" doc:"header fields to send in place of any of that name; not the gateway's own and not those about the connection"`
	Remove []string `yaml:"remove" format:"field_name" doc:"names of header fields to leave out, in every spelling"`
}

// UpstreamTLS is how the targets of an upstream that are https are spoken to.
type UpstreamTLS struct {
	CA         string `yaml:"ca" format:"file" doc:"certificates to believe, in PEM; \"\" is those of the system"`
	Cert       string `yaml:"cert" format:"file" doc:"the gateway's own certificate for them, in PEM; \"\" shows none"`
	Key        string `yaml:"key" format:"file" doc:"its private key, in PEM"`
	ServerName string `yaml:"server_name" format:"host" doc:"name that their certificates must have; \"\" is the target's host"`
}

// Files returns the names of the files that are given.
func (t UpstreamTLS) Files() []string {
	var files []string
	for _, f := range []string{t.CA, t.Cert, t.Key} {
		if f != "" {
			files = append(files, f)
		}
	}
	return files
}

func checkRewrite(r Route, path string, wrong complain) {
	if r.StripPrefix && r.Rewrite != "" {
		wrong(path+".rewrite", "replaces the prefix that strip_prefix cuts off; only one of them can be meant", path+".strip_prefix")
	}
	if r.StripPrefix && r.Path == "/" {
		wrong(path+".strip_prefix", "has nothing to cut off from /", path+".path")
	}
}

func checkUpstreamTLS(u Upstream, path string, wrong complain) {
	cert, key := path+".tls.cert", path+".tls.key"
	switch {
	case u.TLS.Cert != "" && u.TLS.Key == "":
		wrong(key, "is missing; there is a certificate for it")
	case u.TLS.Cert == "" && u.TLS.Key != "":
		wrong(cert, "is missing; there is a key for it")
	}
	if u.TLS == (UpstreamTLS{}) {
		return
	}
	for i, target := range u.Targets {
		if target != nil && target.Scheme != "https" {
			wrong(fmt.Sprintf("%s.targets[%d]", path, i), "is not https, and there is tls for it", path+".tls")
		}
	}
}

const fieldNamePattern = "[A-Za-z0-9!#$%&'*+.^_`|~-]+"

// parseField accepts "Name: value".
func parseField(text, _ string) (any, error) {
	name, value, found := strings.Cut(text, ":")
	if _, err := matching(fieldNamePattern)(name, ""); err != nil || !found || strings.TrimSpace(value) == "" {
		return nil, errForm
	}
	return text, nil
}
