package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

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

// text fills the value of a scalar or list from the environment, the file, or
// its default.
func (d *decoder) text(v reflect.Value, k key, node *yaml.Node, path string) {
	if text, at, found := d.fromEnvironment(k, path); found {
		d.places[path] = at
		if !d.wrong[path] {
			d.set(v, k, text, at)
		}
		return
	}
	switch {
	case node != nil && k.shape == list:
		if d.is(node, yaml.SequenceNode, path, "a list") {
			d.list(v, k, node.Content, path)
		}
	case node != nil:
		if text, ok := d.plain(node, k.format, path); ok {
			d.places[path] = d.at(node, path)
			d.set(v, k, text, d.places[path])
		}
	case k.fallback != "":
		d.set(v, k, k.fallback, Problem{})
	case k.required:
		d.complain(path, "is missing")
	}
}

// fromEnvironment returns the text of the variable that sets path, or of the
// file that it names, and what a problem with it begins with.
func (d *decoder) fromEnvironment(k key, path string) (text string, at Problem, found bool) {
	name := variable(path)
	if name == "" {
		return "", Problem{}, false
	}
	text, found = d.env.take(name)
	at = Problem{Variable: name, Key: path}
	if !k.format.secret {
		return text, at, found
	}
	file, named := d.env.take(name + fileSuffix)
	if !named {
		return text, at, found
	}
	at.Variable = name + fileSuffix
	if found {
		d.report(at, "is set beside "+name+"; only one of them can be meant")
		return text, at, true
	}
	content, err := readFile(inDir(file, d.dir), maxSecret)
	if err != nil {
		d.report(at, "its file cannot be read: "+err.Error())
		return "", at, true
	}
	text = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if text == "" {
		d.report(at, "its file is empty")
	}
	return text, at, true
}

// list fills a list from nodes.
func (d *decoder) list(v reflect.Value, k key, nodes []*yaml.Node, path string) {
	var texts []string
	var places []Problem
	for i, n := range nodes {
		at := d.at(n, fmt.Sprintf("%s[%d]", path, i))
		if text, ok := d.plain(n, k.format, at.Key); ok {
			texts, places = append(texts, text), append(places, at)
		}
	}
	d.elements(v, k, texts, places)
	if len(nodes) == 0 && k.required {
		d.complain(path, "must have an element")
	}
}

// set fills a scalar or a list from one text.
func (d *decoder) set(v reflect.Value, k key, text string, at Problem) {
	if k.shape == scalar {
		d.scalar(v, k, text, at)
		return
	}
	var texts []string
	var places []Problem
	for text := range strings.SplitSeq(text, ",") {
		if text = strings.TrimSpace(text); text != "" {
			texts, places = append(texts, text), append(places, at)
		}
	}
	d.elements(v, k, texts, places)
	if len(texts) == 0 && k.required {
		d.complain(at.Key, "must have an element")
	}
}

// elements fills a list.
func (d *decoder) elements(v reflect.Value, k key, texts []string, places []Problem) {
	v.Set(reflect.MakeSlice(v.Type(), len(texts), len(texts)))
	for i, text := range texts {
		if slices.Contains(texts[:i], text) {
			d.report(places[i], "is in the list twice")
			continue
		}
		d.scalar(v.Index(i), k, text, places[i])
	}
}

// scalar fills one value. Where that fails the value stays zero.
func (d *decoder) scalar(v reflect.Value, k key, text string, at Problem) {
	shown := "the value"
	// What stands before an "@" in a URL is a password.
	if !k.format.secret && !strings.Contains(text, "@") {
		shown = fmt.Sprintf("%q", clip(text))
	}
	switch {
	case text == "" && k.empty:
		return
	case text == "":
		d.report(at, "must not be empty")
		return
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		d.report(at, "must not have control characters")
		return
	}
	parsed, err := k.format.parse(text, d.dir)
	switch {
	case errors.Is(err, errForm):
		d.report(at, shown+" is not "+k.format.want)
		return
	case err != nil:
		d.report(at, shown+" "+err.Error())
		return
	}
	value := reflect.ValueOf(parsed)
	if bound, ok := k.bound(k.min); ok && value.Int() < bound {
		d.report(at, shown+" is less than "+k.min)
		return
	}
	if bound, ok := k.bound(k.max); ok && value.Int() > bound {
		d.report(at, shown+" is more than "+k.max)
		return
	}
	v.Set(value.Convert(v.Type()))
}

// bound returns a bound of a number, size or duration.
func (k key) bound(text string) (int64, bool) {
	if text == "" {
		return 0, false
	}
	parsed, err := k.format.parse(text, "")
	if err != nil {
		panic("config: " + k.name + ": bound " + text + ": " + err.Error())
	}
	return reflect.ValueOf(parsed).Int(), true
}

// plain returns the text of a node that must be a plain value of that format.
func (d *decoder) plain(n *yaml.Node, f format, path string) (string, bool) {
	if !d.is(n, yaml.ScalarNode, path, f.want) {
		return "", false
	}
	if slices.Contains(f.tags, n.ShortTag()) {
		return n.Value, true
	}
	message := "must be " + f.want
	if _, err := f.parse(n.Value, ""); err == nil && slices.Contains(f.tags, tagString) {
		message += ", in quotes"
	}
	d.report(d.at(n, path), message)
	return "", false
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

// clip shortens what a message quotes.
func clip(text string) string {
	const most = 64
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
