package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFile bounds gateway.yaml, maxSecret a file that holds a secret, in bytes.
const (
	maxFile   = 1 << 20
	maxSecret = 64 << 10
)

// Load reads the configuration from the file and from the environment, which
// is given as os.Environ returns it and wins over the file.
//
// The key a.b-c.d is set by GATEWAY_A_B_C_D, a list by its elements with commas
// between them; lists of sections are set in the file only. A key that holds a secret is
// also set by the content of the file that GATEWAY_…_FILE names, less a newline
// at its end. Empty variables are set, to an empty text.
//
// An error that matches *Error lists everything that is wrong; any other
// means that the file could not be read.
func Load(path string, env []string) (*Config, error) {
	text, err := readFile(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return decode(path, text, env)
}

// readFile reads a regular file of at most limit bytes; another kind of file
// could keep it waiting for ever.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is larger than %d KiB", path, limit>>10)
	}
	return text, err
}

func decode(path string, text []byte, env []string) (*Config, error) {
	d := &decoder{
		file:   path,
		dir:    filepath.Dir(path),
		env:    newEnvironment(env),
		places: map[string]Problem{},
		wrong:  map[string]bool{},
	}
	root, problem := document(path, text)
	if problem != nil {
		return nil, &Error{[]Problem{*problem}}
	}
	c := new(Config)
	d.section(reflect.ValueOf(c).Elem(), keysOf(reflect.TypeFor[Config]()), root, "")
	d.problems = append(d.problems, d.env.unknown()...)
	inherit(c)
	check(c, d.complain)
	d.checkCORSIsOn(c)
	if len(d.problems) > 0 {
		sortProblems(d.problems)
		return nil, &Error{d.problems}
	}
	return c, nil
}

// inherit gives routes the values that they have from elsewhere.
func inherit(c *Config) {
	for i := range c.Routes {
		r := &c.Routes[i]
		if r.MaxBody == 0 {
			r.MaxBody = c.Limits.Body
		}
		if r.HeaderTimeout == 0 {
			r.HeaderTimeout = c.Upstreams[r.Upstream].HeaderTimeout
		}
		if r.IdleTimeout == 0 {
			r.IdleTimeout = c.Upstreams[r.Upstream].IdleTimeout
		}
		if r.BodyTimeout == 0 {
			r.BodyTimeout = c.Upstreams[r.Upstream].BodyTimeout
		}
	}
}

// document parses a file of one YAML document and returns its content.
func document(file string, text []byte) (*yaml.Node, *Problem) {
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && doc.Content[0].ShortTag() == "!!null" {
		return nil, &Problem{File: file, Message: "is empty"}
	}
	if err == nil {
		err = decoder.Decode(&second)
	}
	switch {
	case errors.Is(err, io.EOF):
		return doc.Content[0], nil
	case err == nil:
		return nil, &Problem{File: file, Line: second.Line, Column: second.Column, Message: "a second document; the file must hold one"}
	default:
		return nil, syntaxProblem(file, text, err)
	}
}

// syntaxProblem finds the place of a YAML error, which is known only from its text.
func syntaxProblem(file string, text []byte, err error) *Problem {
	for i, line := range bytes.Split(text, []byte("\n")) {
		if indent := bytes.TrimLeft(line, " "); len(indent) > 0 && indent[0] == '\t' {
			return &Problem{File: file, Line: i + 1, Column: len(line) - len(indent) + 1, Message: "a tab where YAML wants spaces"}
		}
	}
	p := &Problem{File: file, Message: strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := regexp.MustCompile(`^line ([0-9]+): `).FindStringSubmatch(p.Message); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		p.Message = p.Message[len(m[0]):]
	}
	where := ""
	// This is of the parser, which counts from 0 and names the line on which
	// what it could not finish begins; other errors are of the scanner.
	if strings.HasPrefix(p.Message, "did not find expected ") {
		p.Line++
		where = " in what begins here"
	}
	p.Message = "is not YAML" + where + ": " + p.Message
	return p
}
