package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"sync/atomic"
)

// Hits counts how often each rule of a policy has decided. Counting takes no
// memory and no lock. Rules are told apart by their canonical spelling, so that
// the count of one outlives a reload that leaves it alone.
type Hits struct {
	policy *Policy
	counts []*atomic.Uint64 // by line, nil where there is no rule; rules of one spelling share one
}

// NewHits counts for a policy, and goes on from what was counted for the one
// before it, if there was one.
func NewHits(p *Policy, before *Hits) *Hits {
	h := &Hits{policy: p}
	if p == nil || p.document == nil {
		return h
	}
	known := make(map[string]*atomic.Uint64, len(p.rules))
	for rule, count := range before.counters() {
		known[rule] = count
	}
	last := uint32(0)
	for _, r := range p.rules {
		last = max(last, r.line)
	}
	h.counts = make([]*atomic.Uint64, last+1)
	var fresh []int
	for i := range p.rules {
		r := &p.rules[i]
		if h.counts[r.line] = known[p.ruleText(r)]; h.counts[r.line] == nil {
			fresh = append(fresh, i)
		}
	}
	slab := make([]atomic.Uint64, len(fresh))
	for n, i := range fresh {
		r := &p.rules[i]
		text := p.ruleText(r)
		if known[text] == nil { // and not of a line before that says the same
			known[text] = &slab[n]
		}
		h.counts[r.line] = known[text]
	}
	return h
}

// Count counts a decision of the policy that h is for. A decision by no rule
// counts nothing.
func (h *Hits) Count(d Decision) {
	if d.Line > 0 && d.Line < len(h.counts) && h.counts[d.Line] != nil {
		h.counts[d.Line].Add(1)
	}
}

// counters yields each spelling once.
func (h *Hits) counters() iter.Seq2[string, *atomic.Uint64] {
	return func(yield func(string, *atomic.Uint64) bool) {
		if h == nil || h.counts == nil {
			return
		}
		seen := make(map[*atomic.Uint64]bool, len(h.counts))
		for i := range h.policy.rules {
			r := &h.policy.rules[i]
			count := h.counts[r.line]
			if seen[count] {
				continue
			}
			seen[count] = true
			if !yield(h.policy.ruleText(r), count) {
				return
			}
		}
	}
}

// RuleHits is how often a rule has decided.
type RuleHits struct {
	Line int    `json:"line"` // the first, if several say the same
	Rule string `json:"rule"`
	Hits uint64 `json:"hits"`
}

// All lists the rules in the order of their lines.
func (h *Hits) All() []RuleHits {
	at := make(map[string]int)
	var all []RuleHits
	for _, i := range h.policy.byLine() {
		r := &h.policy.rules[i]
		text := h.policy.ruleText(r)
		if _, again := at[text]; again {
			continue
		}
		at[text] = len(all)
		all = append(all, RuleHits{int(r.line), text, h.counts[r.line].Load()})
	}
	return all
}

// Counts yields how often each rule has decided that ever has.
func (h *Hits) Counts() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for rule, count := range h.counters() {
			if n := count.Load(); n > 0 && !yield(rule, n) {
				return
			}
		}
	}
}

// RuleID is a short name for a rule in canonical spelling: sixteen hexadecimal
// digits of its SHA-256.
func RuleID(rule string) string {
	sum := sha256.Sum256([]byte(rule))
	return hex.EncodeToString(sum[:8])
}
