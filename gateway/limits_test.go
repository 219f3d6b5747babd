package gateway

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestAHeaderThatIsTooLargeIs431(t *testing.T) {
	e := startGateway(t)
	for name, raw := range map[string]string{
		"one field":              get("/public/x", "X-Large: "+strings.Repeat("x", 17<<10)),
		"many fields":            get("/public/x", strings.Split(strings.Repeat("X: y\n", 4<<10), "\n")[:4<<10]...),
		"target":                 get("/public/" + strings.Repeat("x", 17<<10)),
		"a line that has no end": "GET /public/x HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 20<<10),
	} {
		t.Run(name, func(t *testing.T) {
			all := answers(t, "GET", e.talk(raw+smuggled))
			if len(all) != 1 || all[0].StatusCode != 431 || all[0].Header.Get(fieldGatewayError) != string(codeHeaderTooLarge) || !all[0].Close {
				t.Errorf("%v", all)
			}
			if seen := e.requests(); len(seen) != 0 {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}

// A connection on which nothing comes any more ends, without an answer that nobody has
// asked for.
func TestAnIdleConnectionEnds(t *testing.T) {
	const idle = 200 * time.Millisecond
	e := startGatewayAs(t, func(c *Config) { c.IdleTimeout = idle })
	conn := e.dialTCP()
	start := time.Now()
	ask(t, conn, get("/public/x"))
	if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil || time.Since(start) < idle {
		t.Errorf("%q, %v after %v", rest, err, time.Since(start))
	}
}
