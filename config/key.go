package config

import (
	"net/netip"
	"net/url"
	"reflect"
	"slices"
)

// shape is how the value of a key is put together.
type shape int

const (
	scalar   shape = iota // one text
	list                  // a list of texts
	section               // a mapping with fixed keys
	sections              // a list of sections
	named                 // a mapping from names to sections
	pairs                 // a mapping from texts to texts
)

// key describes one key of gateway.yaml, from the tags of a struct field.
type key struct {
	name     string
	doc      string
	field    int // index in the struct
	shape    shape
	fallback string // default, as text; of a list, separated by commas
	required bool
	empty    bool
	min, max string
	format   format // scalar, list, and the values of pairs
	keys     []key  // section, sections and named
}

// keysOf describes the keys of a section.
func keysOf(t reflect.Type) []key {
	keys := make([]key, t.NumField())
	for i := range keys {
		f := t.Field(i)
		k := key{
			name:     f.Tag.Get("yaml"),
			doc:      f.Tag.Get("doc"),
			field:    i,
			fallback: f.Tag.Get("default"),
			required: f.Tag.Get("required") == "true",
			min:      f.Tag.Get("min"),
			max:      f.Tag.Get("max"),
		}
		isText := f.Type.Kind() == reflect.String || f.Type == reflect.TypeFor[Secret]()
		k.empty = f.Tag.Get("empty") == "true" || isText && k.fallback == "" && !k.required
		switch t := f.Type; {
		case t.Kind() == reflect.Slice && isSection(t.Elem()):
			k.shape, k.keys = sections, keysOf(t.Elem())
		case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.String:
			k.shape, k.format = pairs, formatOf(t.Elem(), f.Tag)
		case t.Kind() == reflect.Map:
			k.shape, k.keys = named, keysOf(t.Elem())
		case t.Kind() == reflect.Slice:
			k.shape, k.format = list, formatOf(t.Elem(), f.Tag)
		case isSection(t):
			k.shape, k.keys = section, keysOf(t)
		default:
			k.shape, k.format = scalar, formatOf(t, f.Tag)
		}
		keys[i] = k
	}
	return keys
}

// isSection tells the structs that are sections from those that hold one value.
func isSection(t reflect.Type) bool {
	values := []reflect.Type{reflect.TypeFor[netip.Prefix](), reflect.TypeFor[url.URL](), reflect.TypeFor[Secret](), reflect.TypeFor[Store]()}
	return t.Kind() == reflect.Struct && !slices.Contains(values, t)
}

// mustBeGiven reports whether a file without the key lacks something.
func (k key) mustBeGiven() bool {
	switch k.shape {
	case section:
		return slices.ContainsFunc(k.keys, key.mustBeGiven)
	case scalar, list:
		return k.required && k.fallback == ""
	}
	return false
}

func names(keys []key) []string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = k.name
	}
	return all
}
