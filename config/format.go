package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
)

// format is a way to write a value as text.
type format struct {
	name string // in the table of keys
	want string // in messages: "must be …", "is not …"
	// pattern matches the whole text, in the common part of the regular
	// expressions of Go and of JSON Schema. It accepts all that parse accepts.
	pattern string
	enum    []string
	tags    []string // YAML tags of the plain values that are taken as this text
	secret  bool     // the text is never shown
	// parse returns a value that can be converted to the type of the field;
	// errForm when the text simply isn't one, another error to say more. Files
	// are relative to dir.
	parse func(text, dir string) (any, error)
}

var errForm = errors.New("not of that form")

const (
	tagString = "!!str"
	tagInt    = "!!int"
	tagBool   = "!!bool"
	tagFloat  = "!!float"
)

// formatOf returns the format of a field or of the elements of a list.
func formatOf(t reflect.Type, tags reflect.StructTag) format {
	var f format
	if enum := tags.Get("enum"); enum != "" {
		f = oneOf(strings.Split(enum, "|"))
	} else if name := tags.Get("format"); name != "" {
		f = textFormat(name)
	} else {
		f = typeFormat(t)
	}
	if t == reflect.TypeFor[slog.Level]() {
		f.parse = parseLevel(f.parse)
	}
	if f.tags == nil {
		f.tags = []string{tagString}
	}
	return f
}

func oneOf(enum []string) format {
	last := len(enum) - 1
	want := strings.Join(enum[:last], ", ") + " or " + enum[last]
	return format{
		name: "`" + strings.Join(enum, "`, `") + "`",
		want: want,
		enum: enum,
		parse: func(text, _ string) (any, error) {
			if !slices.Contains(enum, text) {
				return nil, fmt.Errorf("is not %s%s", want, didYouMean(text, enum))
			}
			return text, nil
		},
	}
}

// typeFormat returns the format of a type that can be written in one way only.
func typeFormat(t reflect.Type) format {
	switch t {
	case reflect.TypeFor[string]():
		return format{name: "text", want: "a text", pattern: `.+`,
			parse: func(text, _ string) (any, error) { return text, nil }}
	case reflect.TypeFor[bool]():
		return format{name: "boolean", want: "true or false", tags: []string{tagBool}, parse: parseBool}
	case reflect.TypeFor[int]():
		return format{name: "integer", want: "a whole number", tags: []string{tagInt}, parse: parseInt}
	case reflect.TypeFor[float64]():
		return format{name: "number, 0 to 1", want: "a number from 0 to 1 such as 0.1", tags: []string{tagFloat, tagInt}, parse: parseRatio}
	case reflect.TypeFor[int64]():
		return format{name: "size", want: "a size such as 512B, 64KiB or 10MiB", pattern: `[0-9]+(B|KiB|MiB|GiB)`, parse: parseSize}
	case reflect.TypeFor[time.Duration]():
		return format{name: "duration", want: "a duration such as 500ms, 15m or 7d",
			pattern: `[0-9]+d(` + durationPart + `)*|(` + durationPart + `)+|0`, parse: parseDuration}
	case reflect.TypeFor[netip.Prefix]():
		return format{name: "network", want: "an address or a network such as 10.0.0.0/8", pattern: `[0-9a-fA-F.:]+(/[0-9]+)?`, parse: parseNetwork}
	case reflect.TypeFor[*url.URL]():
		return format{name: "origin", want: "an origin such as http://127.0.0.1:9001", pattern: `https?://[^/?#@]+`, parse: parseOrigin}
	case reflect.TypeFor[Secret]():
		return format{name: "secret", want: "a text", pattern: `.+`, secret: true,
			parse: func(text, _ string) (any, error) { return NewSecret(text), nil }}
	case reflect.TypeFor[Store]():
		return format{name: "store", want: "file:PATH, mongodb://… or mongodb+srv://…", pattern: `(file:|mongodb(\+srv)?://).+`,
			secret: true, parse: parseStore}
	}
	panic("config: no format for " + t.String())
}

// textFormat returns a format of texts that stay texts.
func textFormat(name string) format {
	switch name {
	case "address":
		return format{name: "address", want: "an address such as :8080 or 127.0.0.1:8081", pattern: `.*:[0-9]+`, parse: parseAddress}
	case "url":
		return format{name: "URL", want: "a URL such as https://auth.example.com", pattern: `https?://[^?#@]+`, parse: parseURL}
	case "link":
		return format{name: "URL", want: "a URL with {token} in it", pattern: `https?://.*\{token\}.*`, parse: parseLink}
	case "path":
		return format{name: "path", want: "a path of whole segments such as /tasks", pattern: `/|(/` + segment + `)+`, parse: parsePath}
	case "file":
		return format{name: "file", want: "the name of a file", pattern: `.+`,
			parse: func(text, dir string) (any, error) { return inDir(text, dir), nil }}
	case "role":
		return format{name: "role", want: "the name of a role such as admin, without role:", pattern: rolePattern, parse: matching(rolePattern)}
	case "host":
		return format{name: "host", want: "a host name or an address", pattern: hostPattern, parse: matching(hostPattern)}
	case "field":
		return format{name: "header field", want: "a header field such as X-Environment: production", pattern: fieldNamePattern + `:.+`, parse: parseField}
	case "field_name":
		return format{name: "name", want: "the name of a header field such as X-Internal", pattern: fieldNamePattern, parse: matching(fieldNamePattern)}
	case "web_origin":
		return format{name: "web origin", want: "an origin such as https://app.example.com, or *", pattern: webOriginPattern, parse: parseWebOrigin}
	case "method":
		return format{name: "method", want: "a method such as GET", pattern: `[A-Z]+`, parse: matching(`[A-Z]+`)}
	case "name":
		return format{name: "name", want: "a name such as per-user", pattern: namePattern, parse: matching(namePattern)}
	case "redis":
		return format{name: "secret", want: "redis://… or rediss://…", pattern: `rediss?://.+`, secret: true,
			parse: func(text, _ string) (any, error) {
				if _, err := matching(`rediss?://.+`)(text, ""); err != nil {
					return nil, errForm
				}
				return NewSecret(text), nil
			}}
	case "mailbox":
		return format{name: "mailbox", want: "an e-mail address such as Portcullis <noreply@example.com>", pattern: `.+@.+`, parse: parseMailbox}
	}
	panic("config: no format " + name)
}

const (
	// segment is one of a canonical path: pchar of RFC 3986 but for ";" and
	// what is percent-encoded.
	segment      = `[A-Za-z0-9._~!$&'()*+,=:@-]+`
	durationPart = `[0-9.]+(ns|us|µs|μs|ms|s|m|h)`
	rolePattern  = `[A-Za-z0-9][A-Za-z0-9_.-]{0,63}`
	hostPattern  = `[A-Za-z0-9.:-]+`
	namePattern  = `[a-z][a-z0-9-]{0,62}`
)

func whole(pattern string) string { return "^(" + pattern + ")$" }
