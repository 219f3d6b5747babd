package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// startEchoing starts a gateway in front of an upstream that answers with what it was asked.
func startEchoing(t *testing.T, adjust func(*Config), before func(*http.Request)) *testGateway {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before(r)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, r.Header.Get("X-User-Name"), body)
	}))
	t.Cleanup(upstream.Close)
	at, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	return startGatewayAs(t, adjust, func(c *StateConfig) { c.Upstreams[0].Targets = []*url.URL{at} })
}

// Memory is used again by other requests as soon as one is over: nobody gets an answer,
// an identity or a record that is another's, on whichever road, however many come at once.
func TestNobodyGetsWhatIsAnothers(t *testing.T) {
	log := &lockedLog{}
	e := startEchoing(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
		c.AccessLog = NewAccessLog(NewLogBuffer(log), false)
	}, func(*http.Request) {})
	const callers, rounds = 6, 40
	var all sync.WaitGroup
	for i := range callers {
		name := fmt.Sprintf("user%d", i)
		token := "Authorization: Bearer " + e.token(name, "user")
		all.Go(func() {
			conn, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			in := bufio.NewReader(conn)
			for n := range rounds {
				var raw strings.Builder
				var want []string
				for k := range 1 + n%4 {
					target := fmt.Sprintf("/tasks/%s/%d.%d?%s", name, n, k, strings.Repeat("q", n*k))
					switch (n + k) % 5 {
					case 0: // by the server
						raw.WriteString("\r\n" + get(target, token))
						want = append(want, fmt.Sprintf("200 GET %s %s ", target, name))
					case 1:
						body := strings.Repeat(name, 1+n)
						fmt.Fprintf(&raw, "POST %s HTTP/1.1\r\nHost: h\r\n%s\r\nContent-Length: %d\r\n\r\n%s", target, token, len(body), body)
						want = append(want, fmt.Sprintf("200 POST %s %s %s", target, name, body))
					case 2:
						raw.WriteString(get(target))
						want = append(want, "401 ")
					default:
						raw.WriteString(get(target, token))
						want = append(want, fmt.Sprintf("200 GET %s %s ", target, name))
					}
				}
				if _, err := io.WriteString(conn, raw.String()); err != nil {
					t.Error(err)
					return
				}
				for _, want := range want {
					res, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Error(err)
						return
					}
					body, err := io.ReadAll(res.Body)
					if got := fmt.Sprintf("%d %s", res.StatusCode, body); err != nil || got != want && !strings.HasPrefix(got, "401 {") || got[:3] != want[:3] {
						t.Errorf("%s: %q, %v; want %q", name, got, err, want)
						return
					}
				}
			}
		})
	}
	all.Wait()
	records := 0
	waitUntil(t, func() bool {
		records = strings.Count(log.String(), "msg=request")
		return records >= callers*rounds*5/2
	})
	if records != callers*rounds*5/2 {
		t.Errorf("%d records of %d requests", records, callers*rounds*5/2)
	}
	ids := map[string]string{} // of users, by name
	for line := range strings.Lines(log.String()) {
		_, path, _ := strings.Cut(line, " path=/tasks/")
		name, _, ok := strings.Cut(path, "/")
		_, id, known := strings.Cut(line, "user_id=")
		if id, _, _ = strings.Cut(id, " "); !ok || !known {
			continue
		}
		if ids[name] == "" {
			ids[name] = id
		} else if ids[name] != id {
			t.Errorf("%s is %s, too: %s", name, id, line)
		}
	}
	if len(ids) != callers {
		t.Errorf("records of %v", ids)
	}
}

// While an answer is waited for, the client is watched, which takes a byte of what it
// sends next: that stays in its place, wherever the next request was cut.
func TestWhatIsSentDuringAnExchangeKeepsItsPlace(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS: ", secure), func(t *testing.T) {
			e := startEchoing(t, func(c *Config) {
				if secure {
					c.TLS = serverTLS(t)
				}
			}, func(r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "slow") {
					time.Sleep(watchDelay * 3 / 2)
				}
			})
			post := "POST /public/b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
			next := get("/public/a") + post + "\r\n" + get("/public/c") + get("/public/d")
			var all sync.WaitGroup
			for _, cut := range []int{0, 1, 2, 17, len(get("/public/a")) - 1, len(get("/public/a")), len(get("/public/a")) + 1, len(get("/public/a"+post)) - 3} {
				all.Go(func() {
					conn := e.dialTCP()
					if secure {
						conn = tls.Client(conn, clientTLS(t))
					}
					w := newWire(t, conn)
					w.say(get("/public/slow") + next[:cut])
					for _, b := range []byte(next[cut : len(next)-3]) { // while it is waited for, or not
						w.say(string(b))
					}
					for i, want := range []string{"GET /public/slow  ", "GET /public/a  ", "POST /public/b  hello", "GET /public/c  ", "GET /public/d  "} {
						if i == 4 {
							w.say(next[len(next)-3:])
						}
						res, err := http.ReadResponse(w.in, nil)
						if err != nil {
							t.Errorf("cut at %d, answer %d: %v", cut, i, err)
							return
						}
						if body, err := io.ReadAll(res.Body); err != nil || string(body) != want {
							t.Errorf("cut at %d, answer %d: %q, %v", cut, i, body, err)
						}
					}
				})
			}
			all.Wait()
		})
	}
}
