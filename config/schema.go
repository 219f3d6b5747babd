package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Schema returns the JSON Schema (draft 2020-12) of gateway.yaml, for editors.
// It knows the form of each value, not the rules that take more than one value.
func Schema() []byte {
	root := sectionSchema(keysOf(reflect.TypeFor[Config]()))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "gateway.yaml of Portcullis"
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	return append(text, '\n')
}

type object = map[string]any

func sectionSchema(keys []key) object {
	properties := object{}
	var required []string
	for _, k := range keys {
		properties[k.name] = k.schema()
		if k.mustBeGiven() {
			required = append(required, k.name)
		}
	}
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		s["required"] = required
	}
	return s
}

func (k key) schema() object {
	var s object
	switch k.shape {
	case section:
		return sectionSchema(k.keys)
	case sections:
		s = object{"type": "array", "items": sectionSchema(k.keys)}
	case named:
		s = object{
			"type":                 "object",
			"propertyNames":        object{"pattern": whole(namePattern)},
			"additionalProperties": sectionSchema(k.keys),
		}
	case pairs:
		s = object{"type": "object", "propertyNames": object{"minLength": 1}, "additionalProperties": k.textSchema()}
	case list:
		s = object{"type": "array", "items": k.textSchema(), "uniqueItems": true}
		if k.required {
			s["minItems"] = 1
		}
		if k.fallback != "" {
			s["default"] = strings.Split(k.fallback, ",")
		}
	case scalar:
		s = k.textSchema()
		if k.fallback != "" {
			s["default"] = k.plain(k.fallback)
		}
	}
	s["description"] = k.doc
	return s
}

// textSchema returns the schema of a scalar or of an element of a list.
func (k key) textSchema() object {
	f := k.format
	switch f.tags[0] {
	case tagBool:
		return object{"type": "boolean"}
	case tagFloat:
		return object{"type": "number", "minimum": 0, "maximum": 1}
	case tagInt:
		s := object{"type": "integer"}
		if k.min != "" {
			s["minimum"] = k.plain(k.min)
		}
		if k.max != "" {
			s["maximum"] = k.plain(k.max)
		}
		return s
	}
	if f.enum != nil {
		return object{"enum": f.enum}
	}
	pattern := f.pattern
	if k.empty {
		pattern += "|"
	}
	return object{"type": "string", "pattern": whole(pattern)}
}

// plain returns a text of a tag as JSON has it.
func (k key) plain(text string) any {
	if tag := k.format.tags[0]; tag == tagBool || tag == tagInt || tag == tagFloat {
		return json.RawMessage(text)
	}
	return text
}

// Table returns the keys of gateway.yaml as a table in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
	tableRows(&b, keysOf(reflect.TypeFor[Config]()), "")
	return b.String()
}

func tableRows(b *strings.Builder, keys []key, path string) {
	for _, k := range keys {
		at := join(path, k.name)
		switch k.shape {
		case section:
			tableRows(b, k.keys, at)
		case sections:
			tableRows(b, k.keys, at+"[]")
		case named:
			tableRows(b, k.keys, at+".NAME")
		case list, scalar, pairs:
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", at, k.typeName(), k.defaultText(), strings.ReplaceAll(k.doc, "|", `\|`))
		}
	}
}

func (k key) typeName() string {
	name := k.format.name
	switch k.shape {
	case list:
		name = "list of " + name + "s"
	case pairs:
		name = "map of texts to " + name + "s"
	}
	switch {
	case k.min != "" && k.max != "":
		return fmt.Sprintf("%s, %s to %s", name, k.min, k.max)
	case k.min != "" && k.min != "0":
		return fmt.Sprintf("%s, at least %s", name, k.min)
	}
	return name
}

func (k key) defaultText() string {
	switch {
	case k.fallback == "" && k.required:
		return "**required**"
	case k.shape == pairs:
		return "`{}`"
	case k.shape == list:
		return "`[" + strings.ReplaceAll(k.fallback, ",", ", ") + "]`"
	case k.fallback == "" && k.empty:
		return "`" + strconv.Quote("") + "`"
	case k.fallback == "":
		return ""
	}
	return "`" + k.fallback + "`"
}
