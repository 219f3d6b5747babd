package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RateLimit allows each caller a number of requests in a time, and some of them at
// once.
type RateLimit struct {
	Name     string
	Key      string // what a caller is: user, address, tenant, or route, which is everybody together
	Requests int
	Per      time.Duration
	Burst    int // at once; 0: Requests
}

// limit is a RateLimit with what it has counted.
type limit struct {
	RateLimit
	kind    kind
	every   time.Duration // a bucket gains one request
	whole   time.Duration // until an empty bucket is full
	buckets *buckets
	policy  []byte // the field line that describes it
}

func newLimit(r RateLimit) (*limit, error) {
	l := &limit{RateLimit: r}
	sets := manyCallers
	switch r.Key {
	case "address":
		l.kind = kindAddress
	case "user":
		l.kind = kindUser
	case "tenant":
		l.kind = kindTenant
	case "route":
		l.kind, sets = kindRoute, fewCallers
	default:
		return nil, fmt.Errorf("rate limit %s: there is no key %q", r.Name, r.Key)
	}
	burst := r.Burst
	if burst == 0 {
		burst = r.Requests
	}
	if r.Requests <= 0 || r.Per <= 0 || burst < 0 || r.Per/time.Duration(r.Requests) == 0 {
		return nil, fmt.Errorf("rate limit %s: needs a number of requests and a time, of a nanosecond each at least", r.Name)
	}
	if strings.ContainsFunc(r.Name, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		return nil, fmt.Errorf("rate limit %q: its name does not go into a header field", r.Name)
	}
	l.every = r.Per / time.Duration(r.Requests)
	l.whole = l.every * time.Duration(burst)
	if l.whole/l.every != time.Duration(burst) {
		return nil, fmt.Errorf("rate limit %s: the burst is too large", r.Name)
	}
	window := max(1, int((r.Per+time.Second-1)/time.Second))
	l.policy = appendField(nil, "RateLimit-Policy", fmt.Sprintf(`"%s";q=%d;w=%d`, r.Name, r.Requests, window))
	l.buckets = newBuckets(sets)
	return l, nil
}

// wait is how long a caller with that debt has to wait for a request to be allowed.
func (l *limit) wait(debt time.Duration) time.Duration { return debt + l.every - l.whole }

// appendState writes what is left to a caller, and in how many seconds everything
// will be again (draft-ietf-httpapi-ratelimit-headers, sections 3 and 4).
func (l *limit) appendState(dst []byte, debt time.Duration) []byte {
	dst = append(dst, `RateLimit: "`...)
	dst = append(dst, l.Name...)
	dst = append(dst, `";r=`...)
	dst = strconv.AppendInt(dst, int64((l.whole-debt)/l.every), 10)
	dst = append(dst, ";t="...)
	dst = strconv.AppendInt(dst, int64((debt+time.Second-1)/time.Second), 10)
	return append(dst, "\r\n"...)
}

// limits are those of one route, or of the gateway's own endpoints.
type limits struct {
	route string // its path, by which a limit for everybody together counts
	list  []*limit
	room  int // for what an answer says of them, with some to spare
}

// newLimits finds limits by their names; nil if there are none.
func newLimits(known map[string]*limit, names []string, route string) (*limits, error) {
	if len(names) == 0 {
		return nil, nil
	}
	l := &limits{route: route}
	var errs []error
	for _, name := range names {
		found, ok := known[name]
		if !ok || slices.Contains(l.list, found) {
			errs = append(errs, fmt.Errorf("rate limit %q: there is none of that name, or it is named twice", name))
			continue
		}
		l.list = append(l.list, found)
		l.room += 2*len(found.policy) + 64
	}
	return l, errors.Join(errs...)
}

// adopt makes limits that have not changed go on counting where those of the old
// State are: a reload must not forgive anybody.
func (s *State) adopt(old *State) {
	for name, l := range s.limits {
		if before, ok := old.limits[name]; ok && before.RateLimit == l.RateLimit {
			l.buckets = before.buckets
		}
	}
}

// limitAddress asks the limits that hold before anybody knows who is calling, so
// that guessing tokens is limited, too.
func (r *request) limitAddress(l *limits) error {
	if l == nil {
		return nil
	}
	r.limited = make([]byte, 0, l.room)
	for _, limit := range l.list {
		if limit.kind != kindAddress {
			continue
		}
		if err := r.count(limit, limit.buckets.address(r.client)); err != nil {
			return err
		}
	}
	return nil
}

// limitCaller asks the others. Those of a caller count what the policy refuses, too;
// those of a route what goes there only: nobody who may not can use them up for others.
func (g *Gateway) limitCaller(r *request, l *limits, allowed bool) error {
	if l == nil {
		return nil
	}
	for _, limit := range l.list {
		var caller uint64
		switch {
		case limit.kind == kindAddress || limit.kind == kindRoute && !allowed:
			continue
		case limit.kind == kindRoute:
			caller = limit.buckets.name(kindRoute, l.route)
		case r.principal == nil: // a stranger is their address
			caller = limit.buckets.address(r.client)
		case limit.kind == kindTenant:
			caller = limit.buckets.name(kindTenant, r.principal.Tenant)
		default:
			caller = limit.buckets.name(kindUser, r.principal.UserID)
		}
		if err := r.count(limit, caller); err != nil {
			return err
		}
	}
	if err := g.shared.take(r, l, allowed); err != nil {
		return err
	}
	if r.principal != nil || allowed { // a stranger who is refused learns nothing about the route
		r.tellLimits()
	}
	return nil
}

// tellLimits puts into the answer what was noted of limits.
func (r *request) tellLimits() {
	if r.fields == nil {
		r.fields = r.limited
		return
	}
	r.fields = append(r.fields, r.limited...)
}

// count counts the request of a caller, and notes what is left for the answer.
func (r *request) count(l *limit, caller uint64) error {
	debt, ok := l.buckets.take(caller, r.event.start, l.every, l.whole)
	return r.note(l, debt, ok)
}

func (r *request) note(l *limit, debt time.Duration, ok bool) error {
	r.limited = append(r.limited, l.policy...)
	r.limited = l.appendState(r.limited, debt)
	if ok {
		return nil
	}
	r.tellLimits()
	return &refusal{code: codeTooManyRequests, retryAfter: l.wait(debt), cause: errors.New("rate limit " + l.Name)}
}
