package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// Records of requests are written many at a time. When the gateway is told to
// stop, none may be missing, and what else was logged stands in its place.
func TestNoRecordIsLostAtTheEnd(t *testing.T) {
	dir, addr, log := t.TempDir(), freeAddr(t), &lockedBuffer{}
	env := append(os.Environ(), "GATEWAY_LISTEN="+addr, "GATEWAY_ADMIN_LISTEN=", "GATEWAY_LOG_FORMAT=json",
		"GATEWAY_IDENTITY_STORE=file:"+filepath.Join(dir, "identity.db"), "GATEWAY_IDENTITY_TOKENS_KEYS="+filepath.Join(dir, "keys"))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		ended <- run(ctx, []string{"serve", "-c", "../../gateway.yaml"}, environment{env, strings.NewReader(""), &lockedBuffer{}, log})
	}()
	waitFor(t, log, `serving`)
	const requests = 50
	for range requests {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/.well-known/jwks.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Timeout: patience}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	stop()
	if status := <-ended; status != 0 {
		t.Errorf("status %d", status)
	}
	var messages []string
	for line := range strings.Lines(log.String()) {
		var record struct {
			Message string `json:"msg"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Errorf("%v: %q", err, line)
		}
		messages = append(messages, record.Message)
	}
	want := "serving" + strings.Repeat(" request", requests) + " draining stopped"
	if got := strings.Join(messages, " "); got != want {
		t.Errorf("logged: %s", got)
	}
}
