package config

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a text that does not show itself: however it is printed, encoded
// or logged, what comes out is "[redacted]".
type Secret struct {
	// Behind a pointer, because fmt prints what it finds in the unexported
	// fields of other people's structs without asking its methods.
	text *string
}

const redacted = "[redacted]"

// NewSecret returns a Secret that holds text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text itself, "" for the zero Secret.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// Format writes "[redacted]" for every verb and flag.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "[redacted]"; the encoders of JSON, YAML and XML use it.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
