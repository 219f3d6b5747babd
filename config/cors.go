package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// CORS is which pages of other origins may read answers (Fetch standard).
type CORS struct {
	Origins     []string      `yaml:"origins" format:"web_origin" doc:"origins whose pages may read the answers, as browsers send them, or * alone; none: CORS is off, and preflights are requests like others"`
	Methods     []string      `yaml:"methods" format:"method" default:"GET,HEAD,POST,PUT,PATCH,DELETE" doc:"methods that they may use; the policy decides all the same"`
	Headers     []string      `yaml:"headers" format:"field_name" default:"Authorization,Content-Type,X-CSRF-Token" doc:"header fields that they may send"`
	Expose      []string      `yaml:"expose" format:"field_name" default:"X-Request-Id,X-Gateway-Error,Retry-After,RateLimit,RateLimit-Policy,WWW-Authenticate" doc:"header fields of answers that they may read"`
	Credentials bool          `yaml:"credentials" default:"false" doc:"whether the browser's cookies may be sent along; access tokens need it not"`
	MaxAge      time.Duration `yaml:"max_age" default:"10m" min:"0s" max:"24h" doc:"how long browsers may remember the answer to a preflight"`
}

// HSTS is what browsers are told about coming back (RFC 6797).
type HSTS struct {
	MaxAge            time.Duration `yaml:"max_age" default:"30d" min:"0s" max:"730d" doc:"how long they keep to https, said on the gateway's own answers over TLS; 0s says nothing"`
	IncludeSubdomains bool          `yaml:"include_subdomains" default:"false" doc:"whether that goes for the names below, too"`
}

func checkCORS(c CORS, path string, wrong complain) {
	if !slices.Contains(c.Origins, "*") {
		return
	}
	if len(c.Origins) > 1 {
		wrong(path+".origins", "* is every origin; others beside it mean nothing")
	}
	if c.Credentials {
		wrong(path+".credentials", "must be false: credentials for any origin would hand every page its visitors' answers", path+".origins")
	}
}

// checkCORSIsOn wants origins where anything else of a cors is given: without them it
// would mean nothing, and nobody would notice.
func (d *decoder) checkCORSIsOn(c *Config) {
	all := map[string]CORS{"identity.cors": c.Identity.CORS}
	for i, r := range c.Routes {
		all[fmt.Sprintf("routes[%d].cors", i)] = r.CORS
	}
	for path, cors := range all {
		if len(cors.Origins) > 0 {
			continue
		}
		for _, name := range names(keysOf(reflect.TypeFor[CORS]())) {
			if _, given := d.places[join(path, name)]; given && name != "origins" {
				d.complain(join(path, name), "means nothing without origins", join(path, "origins"))
			}
		}
	}
}

// What browsers send: no default port, no upper case, nothing behind the host.
const webOriginPattern = `\*|[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:[1-9][0-9]{0,4})?`

func parseWebOrigin(text, _ string) (any, error) {
	if text == "null" {
		return nil, errors.New("is the origin of sandboxed pages of anybody")
	}
	if !regexp.MustCompile(whole(webOriginPattern)).MatchString(text) {
		return nil, errForm
	}
	for scheme, port := range map[string]string{"http://": ":80", "https://": ":443"} {
		if strings.HasPrefix(text, scheme) && strings.HasSuffix(text, port) {
			return nil, fmt.Errorf("has the port that browsers leave out; write %s", strings.TrimSuffix(text, port))
		}
	}
	return text, nil
}
