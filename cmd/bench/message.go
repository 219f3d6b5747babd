//go:build linux

package main

import (
	"bytes"
	"errors"
	"strconv"
)

// message follows one HTTP/1.1 message after another on a connection, as far as
// this needs to: where they end, and how their first line begins.
type message struct {
	head []byte // of a message whose head is not there as a whole
	left int    // of the body; valid once the head is there
	body bool   // the head is there
}

// next takes p, which was received, and reports whether a message has ended with
// it. first is its first line, once, when its head is there. What follows the end
// of a message is an error: nobody here sends ahead.
func (m *message) next(p []byte) (first []byte, done bool, err error) {
	if !m.body {
		if len(m.head) > 0 {
			m.head = append(m.head, p...)
			p = m.head
		}
		end := bytes.Index(p, []byte("\r\n\r\n"))
		if end < 0 {
			if len(m.head) == 0 {
				m.head = append(m.head, p...)
			}
			return nil, false, nil
		}
		if m.left, err = contentLength(p[:end+2]); err != nil {
			return nil, false, err
		}
		first, _, _ = bytes.Cut(p, []byte("\r\n"))
		p = p[end+4:]
		m.body, m.head = true, m.head[:0]
	}
	if len(p) > m.left {
		return nil, false, errors.New("more than a message")
	}
	m.left -= len(p)
	if m.left == 0 {
		m.body = false
		return first, true, nil
	}
	return first, false, nil
}

// contentLength finds the length of a message's body. One that is framed in
// another way is an error, because no side of the measurement sends one.
func contentLength(head []byte) (int, error) {
	const name = "content-length:"
	length := 0
	for line := range bytes.Lines(head) {
		switch {
		case len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)):
			n, err := strconv.Atoi(string(bytes.TrimSpace(line[len(name):])))
			if err != nil {
				return 0, err
			}
			length = n
		case len(line) > 18 && bytes.EqualFold(line[:18], []byte("transfer-encoding:")):
			return 0, errors.New("a message without Content-Length")
		}
	}
	return length, nil
}
