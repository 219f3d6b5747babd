package gateway

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
)

// redisURL returns where Redis is, or skips the test.
func redisURL(t *testing.T) string {
	t.Helper()
	url := os.Getenv("REDIS_URL")
	switch {
	case url == "" && os.Getenv("REQUIRE_REDIS") != "":
		t.Fatal("REQUIRE_REDIS is set, but REDIS_URL is not")
	case url == "":
		t.Skip("REDIS_URL is not set: skipped")
	}
	return url
}

// share makes a gateway count in that Redis.
func (e *testGateway) share(url string) *SharedLimits {
	e.t.Helper()
	s, err := OpenSharedLimits(url, slog.New(slog.NewTextHandler(e.log, nil)), prometheus.NewRegistry())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = s.Close() })
	e.gateway.shared = s
	return s
}

// shareReal is share with a Redis that answers, however busy the machine is.
func (e *testGateway) shareReal(url string) {
	e.t.Helper()
	e.share(url).wait = 10 * time.Second
}

// fresh is a limit that no other run has counted in.
func fresh(key string, requests int) []RateLimit {
	return []RateLimit{{Name: "t" + strings.ToLower(newRequestID()), Key: key, Requests: requests}}
}

func TestReplicasCountTogetherInRedis(t *testing.T) {
	url := redisURL(t)
	for _, key := range []string{"address", "user", "tenant", "route"} {
		limits := fresh(key, 4)
		a, b := startLimited(t, limits), startLimited(t, limits)
		a.shareReal(url)
		b.shareReal(url)
		// The same stranger to both, and on the same route.
		if got := a.statuses(2, get("/public/x")) + " " + b.statuses(3, get("/public/x")) + " " + a.statuses(1, get("/public/x")); got != "200 200 200 200 429 429" {
			t.Errorf("%s: %s", key, got)
		}
		res, _ := b.send(get("/public/x"))
		if res.Header.Get("Retry-After") == "" || !strings.HasPrefix(res.Header.Get("RateLimit"), `"`+limits[0].Name+`";r=0;t=`) || len(res.Header["Ratelimit"]) != 1 {
			t.Errorf("%s: %v", key, res.Header)
		}
	}
}

// One request is one round trip, however many limits hold for it.
func TestRedisIsAskedOnceForARequest(t *testing.T) {
	url := redisURL(t)
	e := startLimited(t, append(append(fresh("address", 100), fresh("user", 100)...), fresh("route", 100)...))
	e.shareReal(url)
	e.send(get("/public/x")) // loads the script
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	relay := startRelay(t, options.Addr)
	e.shareReal(strings.Replace(url, options.Addr, relay.addr, 1))
	e.send(get("/public/x")) // connects
	before := relay.writes.Load()
	if got := e.statuses(5, get("/public/x")); got != "200 200 200 200 200" {
		t.Fatal(got)
	}
	if n := relay.writes.Load() - before; n != 5 {
		t.Errorf("%d round trips for 5 requests", n)
	}
}

// countingRelay passes bytes on, and counts how often the client had something to say.
type countingRelay struct {
	addr   string
	writes atomic.Int32
}

func startRelay(t *testing.T, to string) *countingRelay {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	relay := &countingRelay{addr: ln.Addr().String()}
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, server); _ = client.Close() }()
			go func() {
				defer func() { _ = server.Close() }()
				buf := make([]byte, 64<<10)
				for {
					n, err := client.Read(buf)
					if err != nil {
						return
					}
					relay.writes.Add(1)
					if _, err := server.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return relay
}

// Without Redis each replica goes by its own counts, whether it is away, silent or
// talks nonsense; that is counted, and said once.
func TestWithoutRedisAReplicaCountsByItself(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connects, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for name, url := range map[string]string{
		"away":     "redis://127.0.0.1:1",
		"silent":   "redis://" + silent.Addr().String(),
		"nonsense": "redis://" + serveWhen(t, "HTTP/1.1 400 Bad Request\r\n\r\n", func([]byte) bool { return true }),
	} {
		t.Run(name, func(t *testing.T) {
			e := startLimited(t, fresh("address", 3))
			s := e.share(url)
			if got := e.statuses(5, get("/public/x")); got != "200 200 200 429 429" {
				t.Errorf("%s", got)
			}
			if n := testutil.ToFloat64(s.failures); n < 1 || n > 3 {
				t.Errorf("%v failures were counted", n)
			}
			if n := strings.Count(e.log.String(), "Redis does not answer"); n != 1 {
				t.Errorf("said %d times", n)
			}
		})
	}
}

func TestRedisKnowsNobodyAndForgets(t *testing.T) {
	url := redisURL(t)
	limits := fresh("user", 100)
	limits[0].Burst = 1
	e := startLimited(t, limits)
	e.shareReal(url)
	token := e.token("uma", "user")
	p, err := e.service.Tokens().Verify([]byte(token))
	if err != nil {
		t.Fatal(err)
	}
	r := &request{principal: p}
	st := e.gateway.state.Load()
	keys := r.sharedBuckets(st.ownTerms.limits, true)
	if len(keys) != 1 || strings.Contains(keys[0].key, p.UserID) || len(keys[0].key) != len("portcullis:limit:")+32 {
		t.Fatalf("%+v", keys)
	}
	e.send(get("/tasks", "Authorization: Bearer "+token))
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	ttl, err := client.PTTL(context.Background(), keys[0].key).Result()
	if err != nil || ttl <= 0 || ttl > 37*time.Second { // of 100 an hour, one is back in 36 s
		t.Errorf("the key lives for %s (%v)", ttl, err)
	}
}

func TestAnAddressOfRedisIsNotQuoted(t *testing.T) {
	for _, url := range []string{"redis://user:ZZTOP@[", "http://:ZZTOP@localhost", "ZZTOP"} {
		if _, err := OpenSharedLimits(url, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil || strings.Contains(err.Error(), "ZZTOP") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
