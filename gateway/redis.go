package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// sharedWait bounds what a request waits for Redis.
	sharedWait = 25 * time.Millisecond
	// sharedPause is how long Redis is left alone after it has failed, so that not
	// every request waits for it.
	sharedPause = time.Second
)

// SharedLimits counts the requests of all replicas together, in Redis. Where that
// fails, each replica goes by what it has counted itself. nil counts nothing.
type SharedLimits struct {
	client   *redis.Client
	script   *redis.Script
	log      *slog.Logger
	failures prometheus.Counter
	wait     time.Duration
	resume   atomic.Int64 // when Redis is asked again, in Unix time in ns; 0: it answers
}

// OpenSharedLimits takes the URL of a Redis server (redis:// or rediss://). Whether it
// is there shows with the first request.
func OpenSharedLimits(url string, log *slog.Logger, metrics prometheus.Registerer) (*SharedLimits, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("the address of Redis is not one") // the library's error quotes it, with its password
	}
	logging.Disable() // failures are ours to report, once
	options.ContextTimeoutEnabled = true
	options.MaxRetries = -1 // one round trip for a request
	options.DialTimeout = time.Second
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	s := &SharedLimits{client: redis.NewClient(options), script: redis.NewScript(takeScript), log: log, wait: sharedWait}
	s.failures = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "portcullis_rate_limit_store_failures_total", Help: "Requests that were limited by this replica's own counts, because Redis failed.",
	})
	metrics.MustRegister(s.failures)
	return s, nil
}

// Close closes the connections.
func (s *SharedLimits) Close() error {
	if s == nil {
		return nil
	}
	if err := s.client.Close(); err != nil {
		return fmt.Errorf("closing the connections to Redis: %w", err)
	}
	return nil
}

// takeScript is buckets.take for several buckets at once. The clock is that of
// Redis, so that replicas need not agree on theirs; times are in µs.
const takeScript = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local out = {}
for i, key in ipairs(KEYS) do
  local every, whole = tonumber(ARGV[2*i-1]), tonumber(ARGV[2*i])
  local full = math.max(tonumber(redis.call('GET', key)) or now, now)
  local ok = full + every - now <= whole
  if ok then
    full = full + every
    redis.call('SET', key, string.format('%.3f', full), 'PX', math.ceil((full - now) / 1000))
  end
  out[2*i-1] = ok and 1 or 0
  out[2*i] = math.ceil(full - now)
end
return out`

// shared is one bucket of a request.
type shared struct {
	limit *limit
	key   string
}

// sharedBuckets names what the request counts in. Who is calling is hashed: the names
// have one length, and Redis learns of nobody.
func (r *request) sharedBuckets(l *limits, allowed bool) []shared {
	all := make([]shared, 0, len(l.list))
	for _, limit := range l.list {
		var who string
		k := limit.kind
		switch {
		case k == kindRoute && !allowed:
			continue
		case k == kindRoute:
			who = l.route
		case k == kindAddress, r.principal == nil:
			net := networkOf(r.client).As16()
			k, who = kindAddress, string(net[:])
		case k == kindTenant:
			who = r.principal.Tenant
		default:
			who = r.principal.UserID
		}
		definition := fmt.Sprintf("%q %s %d %d %d", limit.Name, limit.Key, limit.Requests, limit.Per, limit.Burst)
		sum := sha256.Sum256(append([]byte{byte(k)}, definition+"\x00"+who...))
		all = append(all, shared{limit, "portcullis:limit:" + hex.EncodeToString(sum[:16])})
	}
	return all
}

// take counts a request that this replica would allow in Redis, in one round trip.
// What it has to say replaces what was noted of the local counts.
func (s *SharedLimits) take(r *request, l *limits, allowed bool) error {
	if s == nil || s.paused() {
		return nil
	}
	all := r.sharedBuckets(l, allowed)
	if len(all) == 0 {
		return nil
	}
	keys, args := make([]string, len(all)), make([]any, 0, 2*len(all))
	for i, b := range all {
		keys[i] = b.key
		args = append(args, microseconds(b.limit.every), microseconds(b.limit.whole))
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.wait)
	defer cancel()
	out, err := s.script.Run(ctx, s.client, keys, args...).Int64Slice()
	if err == nil && len(out) != 2*len(all) {
		err = errors.New("answered something else")
	}
	if err != nil {
		s.failed(err)
		return nil
	}
	s.answered()
	r.limited = r.limited[:0]
	for i, b := range all {
		debt := min(max(time.Duration(out[2*i+1])*time.Microsecond, 0), b.limit.whole)
		if err := r.note(b.limit, debt, out[2*i] == 1); err != nil {
			return err
		}
	}
	return nil
}

func microseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', 3, 64)
}

func (s *SharedLimits) paused() bool { return time.Now().UnixNano() < s.resume.Load() }

// answered ends a pause that is over. One that a request on its way meanwhile began
// goes on, or each of two that take turns to fail would be said.
func (s *SharedLimits) answered() {
	if until := s.resume.Load(); until != 0 && !s.paused() {
		s.resume.CompareAndSwap(until, 0)
	}
}

// failed leaves Redis alone for a while. It is said when it begins.
func (s *SharedLimits) failed(err error) {
	s.failures.Inc()
	if s.resume.Swap(time.Now().Add(sharedPause).UnixNano()) == 0 {
		s.log.Warn("rate limits: Redis does not answer; each replica goes by its own counts", "error", err)
	}
}
