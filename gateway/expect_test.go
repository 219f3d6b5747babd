package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Who asks before sending a body is told by those who read it: our own endpoints
// say yes, a refusal comes instead of a yes.
func TestExpectContinueAtOurOwnEndpoints(t *testing.T) {
	g := startGateway(t)
	g.token("uma", "user")
	body := `{"username":"uma","password":"correct horse"}`
	for name, tc := range map[string]struct {
		head   string
		first  int
		second int
	}{
		"an endpoint reads":               {"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n", 100, 200},
		"a refusal needs no body":         {"POST /tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n", 401, 0},
		"a refused media type needs none": {"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n", 415, 0},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", g.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, tc.head+"Expect: 100-continue\r\nContent-Length: 45\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(conn)
			line, err := r.ReadString('\n')
			if err != nil || !strings.Contains(line, " "+strconv.Itoa(tc.first)+" ") {
				t.Fatalf("first %q, %v", line, err)
			}
			if tc.second == 0 {
				return
			}
			if _, err := r.ReadString('\n'); err != nil { // the empty line of the 100
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, body); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.StatusCode != tc.second {
				t.Fatalf("%v, %v", res, err)
			}
			_ = res.Body.Close()
		})
	}
}
