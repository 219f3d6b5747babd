package main

import (
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// print writes a result: v for machines, or what text writes for people.
func (s *shared) print(v any, text func(io.Writer)) error {
	if s.output != "json" {
		text(s.stdout)
		return nil
	}
	if err := json.MarshalWrite(s.stdout, v, jsontext.WithIndent("  ")); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	_, err := fmt.Fprintln(s.stdout)
	return err
}
