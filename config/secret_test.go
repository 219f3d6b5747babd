package config

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// However a secret gets into an output, it does not get out of it.
func TestSecretsNeverShow(t *testing.T) {
	const text = "hunter2"
	s := NewSecret(text)
	type exported struct{ Password Secret }
	type unexported struct{ password Secret }
	values := map[string]any{
		"the secret itself":   s,
		"a pointer to it":     &s,
		"a field":             exported{s},
		"a field of another":  unexported{s},
		"a pointer to struct": &exported{s},
		"an element":          []Secret{s},
		"an element of a map": map[string]any{"password": s},
		"a store":             Store{MongoDB: s},
		"a configuration":     &Config{Identity: Identity{Store: Store{MongoDB: s}, Mail: Mail{SMTP: SMTP{Password: s}}}},
	}
	for name, v := range values {
		outputs := map[string]string{"Sprint": fmt.Sprint(v)}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x", "%10s", "%.3s", "%T", "%p"} {
			outputs[verb] = fmt.Sprintf(verb, v)
		}
		for encoder, encode := range map[string]func(any) ([]byte, error){"json": json.Marshal, "yaml": yaml.Marshal, "xml": xml.Marshal} {
			out, err := encode(v)
			if err != nil && encoder != "xml" { // which cannot encode maps
				t.Errorf("%s as %s: %v", name, encoder, err)
			}
			outputs[encoder] = string(out)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "v", v, slog.Group("g", "v", v))
		outputs["slog"] = log.String()

		for how, out := range outputs {
			lower := strings.ToLower(out)
			if strings.Contains(lower, text) || strings.Contains(strings.ReplaceAll(lower, " ", ""), fmt.Sprintf("%x", text)) {
				t.Errorf("%s shows with %s: %s", name, how, out)
			}
		}
	}
	if s.Reveal() != text {
		t.Errorf("Reveal returns %q, want %q", s.Reveal(), text)
	}
	if (Secret{}).Reveal() != "" {
		t.Error("the zero Secret reveals something")
	}
	for how, got := range map[string]string{"String": s.String(), "%v": fmt.Sprintf("%v", s), "log": s.LogValue().String()} {
		if got != redacted {
			t.Errorf("%s gives %q, want %q", how, got, redacted)
		}
	}
}
