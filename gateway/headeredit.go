package gateway

import (
	"bytes"
	"fmt"
	"strings"
)

// HeaderEdit is a change of a message's header: what is removed, and what is put in
// the place of any field of its name.
type HeaderEdit struct {
	Set    []Field
	Remove []string // names
}

// Field is a header field.
type Field struct{ Name, Value string }

// requestEdit is a HeaderEdit of requests that was found good.
type requestEdit struct {
	drop [][]byte // folded names
	add  []byte   // field lines
}

// newRequestEdit refuses what is not the operator's to say: the names of classOf,
// in any spelling that a server may fold into them.
func newRequestEdit(h HeaderEdit) (*requestEdit, error) {
	names, lines, err := h.check(func(name string) bool {
		var buf [longestClassified]byte
		switch classOf(fold(&buf, []byte(name))) {
		case classEndToEnd, classCookie, classCSRFToken:
			return false
		}
		return true
	})
	if err != nil || len(names) == 0 {
		return nil, err
	}
	e := &requestEdit{add: lines}
	for _, n := range names {
		e.drop = append(e.drop, foldName([]byte(n)))
	}
	return e, nil
}

// apply edits field lines. A name is dropped in every spelling: whoever removes a
// field means that the upstream must not get it.
func (e *requestEdit) apply(lines []byte) []byte {
	kept := lines[:0]
	for rest := lines; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n') + 1
		line := rest[:end]
		rest = rest[end:]
		if !e.drops(line[:bytes.IndexByte(line, ':')]) {
			kept = append(kept, line...)
		}
	}
	return append(kept, e.add...)
}

func (e *requestEdit) drops(name []byte) bool {
	for _, n := range e.drop {
		if sameFolded(name, n) {
			return true
		}
	}
	return false
}

// newAnswerEdit returns nil if nothing is to be changed.
func newAnswerEdit(h HeaderEdit, w *rewriting) (*answerEdit, error) {
	names, lines, err := h.check(func(name string) bool {
		folded := string(foldName([]byte(name)))
		switch folded {
		case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer",
			"transfer-encoding", "upgrade", "content-length":
			return true
		}
		return reservedResponseField([]byte(name))
	})
	if err != nil || len(names) == 0 && w == nil {
		return nil, err
	}
	e := &answerEdit{add: lines, rewriting: w}
	for _, n := range names {
		e.drop = append(e.drop, strings.ToLower(n))
	}
	return e, nil
}

// check returns the names to drop and the lines to add.
func (h HeaderEdit) check(reserved func(name string) bool) (names []string, lines []byte, err error) {
	names = append(names, h.Remove...)
	for _, f := range h.Set {
		names = append(names, f.Name)
		if strings.ContainsFunc(f.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, nil, fmt.Errorf("header field %s: a control character in its value", f.Name)
		}
		lines = appendField(lines, f.Name, strings.Trim(f.Value, " \t"))
	}
	seen := map[string]bool{}
	for _, name := range names {
		folded := string(foldName([]byte(name)))
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f || !tokenByte(byte(r)) }):
			return nil, nil, fmt.Errorf("header field %q: not a name (RFC 9110 §5.1)", name)
		case reserved(name):
			return nil, nil, fmt.Errorf("header field %s: is the gateway's to say, or about the connection", name)
		case seen[folded]:
			return nil, nil, fmt.Errorf("header field %s: named twice", name)
		}
		seen[folded] = true
	}
	return names, lines, nil
}

// foldName is fold for a name of any length.
func foldName(name []byte) []byte {
	folded := make([]byte, len(name))
	for i, c := range name {
		folded[i] = foldByte(c)
	}
	return folded
}

func sameFolded(name, folded []byte) bool {
	if len(name) != len(folded) {
		return false
	}
	for i, c := range name {
		if foldByte(c) != folded[i] {
			return false
		}
	}
	return true
}
