package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"
	"time"
)

// Limit is a number of attempts within a window.
type Limit struct {
	Attempts int
	Window   time.Duration
}

// ThrottledError says that a client must wait. It matches nothing but itself:
// use errors.As.
type ThrottledError struct {
	RetryAfter time.Duration
}

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many attempts: wait %v", e.RetryAfter)
}

// counter is one of the counts that an operation is limited by.
type counter struct {
	key    string
	limit  Limit
	counts outcome
}

// outcome says which attempts a counter is about.
type outcome bool

const (
	allAttempts    outcome = false
	failedAttempts outcome = true // successful ones are taken back
)

// A wrong guess counts three times: strictly for the pair of account and
// address, which is what one attacker or one forgetful user is; loosely for the
// account, so that a spread attack is slow but cannot lock the owner out with a
// few requests; loosely for the address, against one password tried on many
// accounts.
const (
	accountFactor = 20
	addressFactor = 20
)

// Limits of the other operations, for an address. They exist to bound abuse,
// not to shape traffic.
const (
	registrationsPerHour = 300
	mailsPerHour         = 60
	mailsPerAddressee    = 5
	refreshesPerMinute   = 1000 // for a session
)

// loginLimits are the counters of a guess at an account's password. Those that
// are about the account carry the number of times that it was unlocked in the
// window, so that unlocking starts them anew, whatever the addresses. The
// windows are one length, hence begin together: that number needs to be
// remembered no longer than what it is about.
func (s *Service) loginLimits(ctx context.Context, at time.Time, account string, client Client) ([]counter, error) {
	l := s.cfg.LoginLimit
	if l.Attempts <= 0 {
		return nil, nil
	}
	unlocked, err := s.store.Hit(ctx, unlockKey(account), 0, l.Window, at)
	if err != nil {
		return nil, fmt.Errorf("counting an attempt: %w", err)
	}
	addr := network(client.IP)
	return []counter{
		{fmt.Sprintf("login:pair:%s:%d", digest(account+"|"+addr), unlocked), l, failedAttempts},
		{fmt.Sprintf("login:account:%s:%d", digest(account), unlocked), Limit{l.Attempts * accountFactor, l.Window}, failedAttempts},
		{"login:address:" + addr, Limit{l.Attempts * addressFactor, l.Window}, failedAttempts},
	}, nil
}

func unlockKey(account string) string { return "login:unlocked:" + digest(account) }

// unlock forgets the failed logins of an account, by its name and its address.
// What was counted for client addresses stays: it is not about the account.
func (s *Service) unlock(ctx context.Context, u User) error {
	if s.cfg.LoginLimit.Attempts <= 0 {
		return nil
	}
	for _, account := range []string{u.UsernameKey, u.EmailKey} {
		if account == "" {
			continue
		}
		if _, err := s.store.Hit(ctx, unlockKey(account), 1, s.cfg.LoginLimit.Window, s.now()); err != nil {
			return fmt.Errorf("unlocking an account: %w", err)
		}
	}
	return nil
}

func registerLimit(client Client) counter {
	return counter{"register:" + network(client.IP), Limit{registrationsPerHour, time.Hour}, allAttempts}
}

func refreshLimit(sessionID string) counter {
	return counter{"refresh:" + sessionID, Limit{refreshesPerMinute, time.Minute}, allAttempts}
}

func mailLimits(addressee string, client Client) []counter {
	return []counter{
		{"mail:address:" + network(client.IP), Limit{mailsPerHour, time.Hour}, allAttempts},
		{"mail:addressee:" + digest(addressee), Limit{mailsPerAddressee, time.Hour}, allAttempts},
	}
}

// throttle counts an attempt before it is made, so that many at once cannot all
// slip through, and refuses it when a count is above its limit. What is taken back of
// it is taken back at the same time: later may be another window, which has not
// counted it.
func (s *Service) throttle(ctx context.Context, at time.Time, client Client, counters ...counter) error {
	for _, c := range counters {
		if c.limit.Attempts <= 0 {
			continue // the operator turned this limit off
		}
		n, err := s.store.Hit(ctx, c.key, 1, c.limit.Window, at)
		if err != nil {
			return fmt.Errorf("counting an attempt: %w", err)
		}
		if n <= c.limit.Attempts {
			continue
		}
		if n == c.limit.Attempts+1 { // once for a window, or a flood would fill the audit log
			s.audit(ctx, client, AuditRecord{Event: EventThrottled, Details: map[string]string{"counter": c.key}})
		}
		return &ThrottledError{RetryAfter: c.limit.Window - time.Duration(at.UnixNano())%c.limit.Window}
	}
	return nil
}

// succeeded takes back what was counted for an attempt that turned out well; the
// strictest counter starts again.
func (s *Service) succeeded(ctx context.Context, at time.Time, counters []counter) error {
	for i, c := range counters {
		if c.counts != failedAttempts || c.limit.Attempts <= 0 {
			continue
		}
		var err error
		if i == 0 {
			err = s.store.Forget(ctx, c.key)
		} else {
			_, err = s.store.Hit(ctx, c.key, -1, c.limit.Window, at)
		}
		if err != nil {
			return fmt.Errorf("taking back an attempt: %w", err)
		}
	}
	return nil
}

// takeBack undoes what was counted for an attempt that was not made.
func (s *Service) takeBack(ctx context.Context, at time.Time, counters []counter) error {
	for _, c := range counters {
		if _, err := s.store.Hit(ctx, c.key, -1, c.limit.Window, at); err != nil {
			return fmt.Errorf("taking back an attempt: %w", err)
		}
	}
	return nil
}

// network is what one client is counted by: its address, or for IPv6 the /64
// that a single host can choose addresses in.
func network(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return "unknown"
	}
	if addr = addr.Unmap(); addr.Is6() {
		prefix, err := addr.WithZone("").Prefix(64)
		if err != nil {
			return "unknown"
		}
		return prefix.String()
	}
	return addr.String()
}

// digest keeps what somebody typed out of the store's keys, where it could be
// long, or a password typed into the wrong field.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}
