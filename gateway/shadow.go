package gateway

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/policy"
)

// Shadow is a policy that is asked about every request after the real one, to see
// what it would change. Nothing that it says or does has an influence on a request.
type Shadow struct {
	File    string
	Policy  *policy.Policy // nil: there is none to be asked
	Problem string         // why not
}

// direction is what a candidate would do to a request.
type direction string

const (
	wouldAllow direction = "would_allow" // what is denied
	wouldDeny  direction = "would_deny"  // what is allowed
)

// comparison is what came of asking a candidate beside the policy that runs. It
// belongs to these two, and outlives a reload that changes neither.
type comparison struct {
	Shadow
	decide  func(c policy.Caller, method, path string) policy.Decision // the candidate's
	running string                                                     // revision of the policy that it was compared with
	since   time.Time
	broken  atomic.Bool // the candidate panicked

	same, allows, denies atomic.Uint64

	mu     sync.Mutex
	groups map[grounds]*disagreementGroup
	recent []disagreement // a ring once it is full
	oldest int
}

// grounds tells disagreements apart: by what would happen, and the rules that
// decide; "" is no rule.
type grounds struct {
	direction          direction
	running, candidate string
}

// ID is short and depends on nothing but the grounds.
func (g grounds) ID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s", g.direction, g.running, g.candidate))
	return hex.EncodeToString(sum[:6])
}

type disagreementGroup struct {
	count        uint64
	acknowledged bool
	example      disagreement // the first
}

// disagreement is one request that the candidate would decide otherwise.
type disagreement struct {
	grounds
	at            time.Time
	requestID     string
	userID        string
	authenticated bool
	roles         []string
	method, path  string
}

// The bounds of what strangers can make a comparison remember.
const (
	maxDisagreements = 1000
	maxGroups        = 1000 // the rest are one group of their own
	maxShadowPath    = 1024 // bytes of a path that are kept
)

// elsewhere are the grounds of disagreements for which there are no groups left.
func elsewhere(d direction) grounds { return grounds{d, "(others)", "(others)"} }

func newComparison(s *Shadow, running *policy.Policy) *comparison {
	if s == nil {
		return nil
	}
	return &comparison{Shadow: *s, decide: s.Policy.Decide, running: running.Revision(), since: time.Now(), groups: map[grounds]*disagreementGroup{}}
}

// of reports whether c compares the same two policies as o.
func (c *comparison) of(o *comparison) bool {
	return c != nil && o != nil && c.Policy != nil && o.Policy != nil &&
		c.File == o.File && c.Policy.Revision() == o.Policy.Revision() && c.running == o.running
}

// ask asks the candidate. It never fails, whatever the candidate does.
func (c *comparison) ask(r *request, caller policy.Caller, was policy.Decision) {
	if c.Policy == nil || c.broken.Load() {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.Problem = recovered(v, debug.Stack()).Error()
			c.broken.Store(true)
		}
	}()
	would := c.decide(caller, r.method, r.path)
	switch {
	case would.Allowed == was.Allowed:
		c.same.Add(1)
	case would.Allowed:
		c.allows.Add(1)
		c.note(grounds{wouldAllow, was.Rule, would.Rule}, r, caller)
	default:
		c.denies.Add(1)
		c.note(grounds{wouldDeny, was.Rule, would.Rule}, r, caller)
	}
}

// note remembers a disagreement, in place of the oldest if there are enough.
func (c *comparison) note(g grounds, r *request, caller policy.Caller) {
	d := disagreement{grounds: g, at: r.event.start, requestID: r.event.requestID, authenticated: caller.Authenticated, roles: caller.Roles, method: r.method, path: r.path}
	if len(d.path) > maxShadowPath {
		d.path = d.path[:maxShadowPath] + "…"
	} else {
		d.path = strings.Clone(d.path) // which shares its memory with the query
	}
	if r.principal != nil {
		d.userID = r.principal.UserID
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	group := c.groups[g]
	if group == nil && len(c.groups) >= maxGroups {
		g = elsewhere(g.direction)
		d.grounds, group = g, c.groups[g]
	}
	if group == nil {
		group = &disagreementGroup{example: d}
		c.groups[g] = group
	}
	group.count++
	if len(c.recent) < maxDisagreements {
		c.recent = append(c.recent, d)
		return
	}
	c.recent[c.oldest] = d
	c.oldest = (c.oldest + 1) % maxDisagreements
}

// acknowledge marks groups as seen by somebody, and returns the ids that are none.
func (c *comparison) acknowledge(ids []string) (unknown []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := map[string]*disagreementGroup{}
	for g, group := range c.groups {
		known[g.ID()] = group
	}
	for _, id := range ids {
		if known[id] == nil {
			unknown = append(unknown, id)
		}
	}
	if unknown != nil {
		return unknown // all or nothing
	}
	for _, id := range ids {
		known[id].acknowledged = true
	}
	return nil
}

// unacknowledged counts the groups that nobody has acknowledged.
func (c *comparison) unacknowledged() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, group := range c.groups {
		if !group.acknowledged {
			n++
		}
	}
	return n
}

// sortedGroups returns the grounds, the most frequent first. The caller holds mu.
func (c *comparison) sortedGroups() []grounds {
	all := make([]grounds, 0, len(c.groups))
	for g := range c.groups {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b grounds) int {
		if n := cmp.Compare(c.groups[b].count, c.groups[a].count); n != 0 {
			return n
		}
		return strings.Compare(a.ID(), b.ID())
	})
	return all
}

// shadowCollector shows what came of the comparison of the State that is served.
type shadowCollector struct {
	g                                 *Gateway
	decisions, unacknowledged, broken *prometheus.Desc
}

func newShadowCollector(g *Gateway) *shadowCollector {
	return &shadowCollector{g,
		prometheus.NewDesc("portcullis_shadow_decisions_total", "Decisions of the shadow policy, by what it would do.", []string{"result"}, nil),
		prometheus.NewDesc("portcullis_shadow_unacknowledged", "Kinds of disagreement with the shadow policy that nobody acknowledged.", nil, nil),
		prometheus.NewDesc("portcullis_shadow_broken", "1 while there is a shadow policy that cannot be asked.", nil, nil),
	}
}

func (s *shadowCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- s.decisions
	descs <- s.unacknowledged
	descs <- s.broken
}

func (s *shadowCollector) Collect(metrics chan<- prometheus.Metric) {
	c := s.g.state.Load().shadow
	if c == nil {
		return
	}
	for result, n := range map[string]*atomic.Uint64{"same": &c.same, string(wouldAllow): &c.allows, string(wouldDeny): &c.denies} {
		metrics <- prometheus.MustNewConstMetric(s.decisions, prometheus.CounterValue, float64(n.Load()), result)
	}
	metrics <- prometheus.MustNewConstMetric(s.unacknowledged, prometheus.GaugeValue, float64(c.unacknowledged()))
	broken := 0.0
	if c.Policy == nil || c.broken.Load() {
		broken = 1
	}
	metrics <- prometheus.MustNewConstMetric(s.broken, prometheus.GaugeValue, broken)
}
