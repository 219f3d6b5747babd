package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// A decoder fills sections from YAML nodes and the environment, and collects
// what is wrong on the way instead of stopping at it.
type decoder struct {
	file, dir string
	env       *environment
	problems  []Problem
	places    map[string]Problem // by path: where it was given, without a message
	wrong     map[string]bool    // paths that a problem was reported for
}

// report adds a problem.
func (d *decoder) report(at Problem, message string) {
	at.Message = message
	d.problems = append(d.problems, at)
	d.wrong[at.Key] = true
}

// complain adds a problem with the value of a path, at the place where it or
// else the section around it was given. It does nothing if something is wrong
// already with the path, a section around it, or one of the others, because
// then this is likely to be a consequence.
func (d *decoder) complain(path, message string, others ...string) {
	if d.isWrong(path) || slices.ContainsFunc(others, d.isWrong) {
		return
	}
	place, given := d.places[path]
	for p := path; !given && p != ""; place, given = d.places[p] {
		p = parent(p)
	}
	if !given {
		place = Problem{File: d.file}
	}
	place.Key = path
	d.report(place, message)
}

// isWrong reports whether there is a problem with a path or a section around it.
func (d *decoder) isWrong(path string) bool {
	return d.wrong[path] || path != "" && d.isWrong(parent(path))
}

// at is the place of a node of the file.
func (d *decoder) at(n *yaml.Node, path string) Problem {
	return Problem{File: d.file, Line: n.Line, Column: n.Column, Key: path}
}

// section fills a struct. node is nil where the file doesn't have the section,
// which may still get values from the environment.
func (d *decoder) section(v reflect.Value, keys []key, node *yaml.Node, path string) {
	given := d.mapping(node, path, names(keys))
	for _, k := range keys {
		at := join(path, k.name)
		value := given[k.name]
		switch field := v.Field(k.field); k.shape {
		case section:
			d.section(field, k.keys, value, at)
		case sections:
			d.sections(field, k.keys, value, at)
		case named:
			d.named(field, k.keys, value, at)
		case pairs:
			d.pairs(field, k, value, at)
		case list, scalar:
			d.text(field, k, value, at)
		}
	}
}

// sections fills a list of structs.
func (d *decoder) sections(v reflect.Value, keys []key, node *yaml.Node, path string) {
	if node == nil || !d.is(node, yaml.SequenceNode, path, "a list") {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
	for i, element := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.places[at] = d.at(element, at)
		d.section(v.Index(i), keys, element, at)
	}
}

// named fills a map of structs.
func (d *decoder) named(v reflect.Value, keys []key, node *yaml.Node, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	given := d.mapping(node, path, nil)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.section(element, keys, given[name], join(path, name))
		v.SetMapIndex(reflect.ValueOf(name), element)
	}
}

// pairs fills a map of texts.
func (d *decoder) pairs(v reflect.Value, k key, node *yaml.Node, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	if node == nil || !d.is(node, yaml.MappingNode, path, "a section") {
		return
	}
	for i := 0; i < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		at := d.at(value, join(path, clip(name.Value)))
		switch {
		case name.Kind != yaml.ScalarNode:
			at.Key = path
			d.report(at, "has a key that is not a text")
		case name.Value == "":
			d.report(at, "must have a name before it")
		case v.MapIndex(reflect.ValueOf(name.Value)).IsValid():
			d.report(at, "is given twice")
		default:
			if text, ok := d.plain(value, k.format, at.Key); ok {
				element := reflect.New(v.Type().Elem()).Elem()
				d.scalar(element, k, text, at)
				v.SetMapIndex(reflect.ValueOf(name.Value), element)
			}
		}
	}
}

// mapping returns the values of a mapping by key. Keys must be among known; nil
// stands for any name.
func (d *decoder) mapping(node *yaml.Node, path string, known []string) map[string]*yaml.Node {
	if node == nil || !d.is(node, yaml.MappingNode, path, "a section") {
		return nil
	}
	values := make(map[string]*yaml.Node, len(node.Content)/2)
	for i := 0; i < len(node.Content); i += 2 {
		k, v := node.Content[i], node.Content[i+1]
		at := d.at(k, join(path, clip(k.Value)))
		switch {
		case k.Kind != yaml.ScalarNode:
			at.Key = path
			d.report(at, "has a key that is not a word")
		case values[k.Value] != nil:
			d.report(at, fmt.Sprintf("is given twice, first on line %d", d.places[at.Key].Line))
		case known != nil && !slices.Contains(known, k.Value):
			d.report(at, "unknown key"+didYouMean(k.Value, known))
		case known == nil && !regexp.MustCompile(whole(namePattern)).MatchString(k.Value):
			d.report(at, "a name must begin with a letter and consist of a-z, 0-9 and -")
		default:
			values[k.Value], d.places[at.Key] = v, at
		}
	}
	return values
}

// is reports whether a node is of that kind, and a problem if not.
func (d *decoder) is(n *yaml.Node, kind yaml.Kind, path, want string) bool {
	at := d.at(n, path)
	switch {
	case n.Kind == yaml.AliasNode:
		d.report(at, "is an alias, which is not supported: write the value here too")
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		d.report(at, "has no value; it must be "+want)
	case n.Kind != kind:
		is := map[yaml.Kind]string{yaml.ScalarNode: "a plain value", yaml.SequenceNode: "a list", yaml.MappingNode: "a section"}[n.Kind]
		d.report(at, "must be "+want+", not "+is)
	default:
		return true
	}
	return false
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// parent returns the path of the section or list around path.
func parent(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}
