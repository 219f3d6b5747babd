package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

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
			d.places[at.Key] = at
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

// clip shortens what a message quotes.
func clip(text string) string {
	const most = 64
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
