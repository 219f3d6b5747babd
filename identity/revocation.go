package identity

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// RevocationConfig says how revocations of other replicas are learnt of.
type RevocationConfig struct {
	Poll time.Duration // how often the store is asked; 0: never
	// MaxStaleness is how old the last answer of the store may be before every
	// token is refused with ErrRevocationsStale; 0: go on for ever.
	MaxStaleness time.Duration
}

// Revocations holds in memory every revocation that can still matter, so that
// no request has to ask the store.
type Revocations struct {
	cfg   RevocationConfig
	store RevocationStore
	log   *slog.Logger

	mu       sync.RWMutex
	sessions map[string]time.Time // until when to remember
	users    map[string]userRevocation
	// horizon is until when tokens must have been issued to be refused, because
	// there was no room to remember which of them are revoked; zero: there was.
	horizon     time.Time
	horizonEnds time.Time // when none of those that were forgotten matters any more
	// epoch is the highest of the minimums that were forgotten. Foreign users' are
	// instants, by clocks that may be further ahead than those of replicas; ours are
	// small numbers.
	epoch int64

	since  time.Time    // the store's cursor; owned by Sync
	swept  time.Time    // of the last walk over everything; owned by Sync
	synced atomic.Int64 // Unix nanoseconds of the last successful sync
}

type userRevocation struct {
	minEpoch int64
	until    time.Time
}

// NewRevocations returns an empty set; nothing is known before the first Sync.
func NewRevocations(cfg RevocationConfig, store RevocationStore, log *slog.Logger) *Revocations {
	return &Revocations{cfg: cfg, store: store, log: log, sessions: map[string]time.Time{}, users: map[string]userRevocation{}}
}

// Check reports whether p has been revoked, or whether that cannot be said.
func (r *Revocations) Check(p *Principal, now time.Time) error {
	if r.cfg.MaxStaleness > 0 && r.Staleness(now) > r.cfg.MaxStaleness {
		return ErrRevocationsStale
	}
	r.mu.RLock()
	_, session := r.sessions[p.SessionID]
	session = session && p.SessionID != "" // of a foreign caller, who has none
	user := r.users[p.UserID]
	beyond := r.horizon.IsZero() || p.IssuedAt.After(r.horizon) && (p.Issuer == "" || p.Epoch >= r.epoch)
	r.mu.RUnlock()
	if session || p.Epoch < user.minEpoch || !beyond {
		return ErrTokenRevoked
	}
	return nil
}

// Staleness is the time since the store last told all it knew.
func (r *Revocations) Staleness(now time.Time) time.Duration {
	return max(0, now.Sub(time.Unix(0, r.synced.Load())))
}

// Len is the number of revocations in memory.
func (r *Revocations) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.sessions) + len(r.users)
}

// maxRevocations bounds the table; about 40 MB.
const maxRevocations = 1 << 18

// add makes a revocation count on the next request of this replica.
func (r *Revocations) add(rev Revocation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions)+len(r.users) >= maxRevocations {
		r.collapse()
	}
	switch rev.Kind {
	case RevokeSession:
		r.sessions[rev.ID] = later(r.sessions[rev.ID], rev.ExpiresAt)
	case RevokeUser:
		u := r.users[rev.ID]
		r.users[rev.ID] = userRevocation{max(u.minEpoch, rev.MinEpoch), later(u.until, rev.ExpiresAt)}
	}
}

// collapse makes room by forgetting which tokens are revoked and refusing all that
// could be: those that were issued before. Whoever is refused without need
// refreshes, for which the session itself is asked. The caller holds mu.
func (r *Revocations) collapse() {
	r.horizon = later(r.horizon, time.Now().Add(clockSkew))
	for _, until := range r.sessions {
		r.horizonEnds = later(r.horizonEnds, until)
	}
	for _, u := range r.users {
		r.horizonEnds = later(r.horizonEnds, u.until)
		r.epoch = max(r.epoch, u.minEpoch)
	}
	clear(r.sessions)
	clear(r.users)
	r.log.Warn("too many revocations to remember each: access tokens issued so far are refused, and clients have to refresh", "revocations", maxRevocations)
}

// Revoke records a revocation for every replica. It counts here even if the
// store fails; the error says that the others do not know.
func (r *Revocations) Revoke(ctx context.Context, rev Revocation) error {
	r.add(rev)
	return r.store.Revoke(ctx, rev)
}

// Sync learns what the store knows and forgets what has expired.
func (r *Revocations) Sync(ctx context.Context, now time.Time) error {
	revs, next, err := r.store.Revocations(ctx, r.since, now)
	if err != nil {
		return err
	}
	for _, rev := range revs {
		r.add(rev)
	}
	r.since = next
	r.synced.Store(now.UnixNano())
	if now.Sub(r.swept) > time.Minute {
		r.swept = now
		r.forget(now)
	}
	return nil
}

func (r *Revocations) forget(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !now.Before(r.horizonEnds) {
		r.horizon, r.epoch = time.Time{}, 0
	}
	for id, until := range r.sessions {
		if !now.Before(until) {
			delete(r.sessions, id)
		}
	}
	for id, u := range r.users {
		if !now.Before(u.until) {
			delete(r.users, id)
		}
	}
}

// Run polls the store until ctx ends. The first failure of a row and its end are
// logged, not each.
func (r *Revocations) Run(ctx context.Context) {
	if r.cfg.Poll <= 0 {
		return
	}
	tick := time.NewTicker(r.cfg.Poll)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		bounded, cancel := context.WithTimeout(ctx, max(r.cfg.Poll, 2*time.Second))
		err := r.Sync(bounded, time.Now())
		cancel()
		switch {
		case err != nil && ctx.Err() == nil && !failing:
			failing = true
			r.log.Error("revocations cannot be read", "error", err)
		case err == nil && failing:
			failing = false
			r.log.Info("revocations are read again")
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
