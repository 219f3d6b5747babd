package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Grant is what a client gets that has proved who it is.
type Grant struct {
	AccessToken      string
	AccessExpiresIn  time.Duration
	RefreshToken     string
	RefreshExpiresIn time.Duration
	User             User
	SessionID        string
}

// LogoutScope says which sessions a logout ends.
type LogoutScope string

// The scopes of a logout.
const (
	LogoutLocal  LogoutScope = "local"  // the session of the token
	LogoutOthers LogoutScope = "others" // all but that one
	LogoutGlobal LogoutScope = "global" // all
)

// refreshCodec makes and reads refresh tokens:
//
//	"prt_" base64url(version ‖ session id ‖ counter ‖ HMAC-SHA-256 of these, cut to 16 bytes)
//
// Nothing of a token is stored: it follows from the session's id and counter,
// and only the holder of the key can make one. The prefix lets scanners of
// repositories and logs recognise a leaked one.
type refreshCodec struct{ key []byte }

const (
	refreshPrefix  = "prt_"
	refreshVersion = 1
	refreshBody    = 1 + 16 + 8
	refreshMAC     = 16
)

func (c refreshCodec) encode(sessionID string, counter int64) (string, error) {
	id, err := uuid.Parse(sessionID)
	if err != nil {
		return "", fmt.Errorf("session id: %w", err)
	}
	b := make([]byte, 0, refreshBody+refreshMAC)
	b = append(b, refreshVersion)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(counter)) // never negative
	b = append(b, c.mac(b)...)
	return refreshPrefix + base64.RawURLEncoding.EncodeToString(b), nil
}

// decode refuses whatever this codec did not encode, to the letter.
func (c refreshCodec) decode(token string) (sessionID string, counter int64, err error) {
	if len(token) != len(refreshPrefix)+base64.RawURLEncoding.EncodedLen(refreshBody+refreshMAC) || token[:len(refreshPrefix)] != refreshPrefix {
		return "", 0, ErrTokenInvalid
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token[len(refreshPrefix):])
	// Decoders skip line breaks, which would make for other spellings, and for
	// fewer bytes than the length promises.
	if err != nil || len(b) != refreshBody+refreshMAC || b[0] != refreshVersion || !hmac.Equal(b[refreshBody:], c.mac(b[:refreshBody])) {
		return "", 0, ErrTokenInvalid
	}
	id, err := uuid.FromBytes(b[1:17])
	if err != nil {
		return "", 0, ErrTokenInvalid
	}
	return id.String(), int64(binary.BigEndian.Uint64(b[17:refreshBody])), nil // we encoded it
}

func (c refreshCodec) mac(b []byte) []byte {
	h := hmac.New(sha256.New, c.key)
	h.Write(b)
	return h.Sum(nil)[:refreshMAC]
}

// encodeRefresh makes a refresh token with the secret whose term it is.
func (t *Tokens) encodeRefresh(sessionID string, counter int64) (string, error) {
	return t.trust.Load().keys.secret(t.cfg.Now()).refresh.encode(sessionID, counter)
}

// decodeRefresh accepts what any secret has made that is not retired.
func (t *Tokens) decodeRefresh(token string, lifetime time.Duration) (sessionID string, counter int64, err error) {
	now := t.cfg.Now()
	for _, secret := range t.trust.Load().keys.secrets {
		if secret.retired(now, lifetime) {
			continue
		}
		if sessionID, counter, err = secret.refresh.decode(token); err == nil {
			return sessionID, counter, nil
		}
	}
	return "", 0, ErrTokenInvalid
}

// begin signs a user in on a new device.
func (s *Service) begin(ctx context.Context, u User, client Client) (Grant, error) {
	now := s.now()
	session := Session{
		ID: newID(), UserID: u.ID,
		// The header is bytes; stores and JSON want text.
		UserAgent: clip(strings.ToValidUTF8(client.UserAgent, "\uFFFD"), 256), IP: client.IP,
		CreatedAt: now, RotatedAt: now, EndsAt: now.Add(s.cfg.SessionTTL),
	}
	session.ExpiresAt = s.idleEnd(session, now)
	if err := s.store.CreateSession(ctx, session); err != nil {
		return Grant{}, fmt.Errorf("creating a session: %w", err)
	}
	// Whoever ended the user's sessions between our look at the account and this
	// session's creation has not ended this one.
	again, err := s.store.User(ctx, u.ID)
	if errors.Is(err, ErrNotFound) || err == nil && (!again.Active || again.PasswordHash != u.PasswordHash) {
		err = ErrBadCredentials
	}
	if err == nil {
		err = s.endOldest(ctx, again, client)
	}
	if err != nil {
		return Grant{}, errors.Join(err, s.endSession(ctx, session.ID))
	}
	return s.grant(again, session, now)
}

// maxSessions is how many sessions a user can have. Whoever knows a password could
// otherwise begin so many that ending them all, as its owner's change of it does,
// would take longer than anybody waits.
const maxSessions = 200

// endOldest ends the sessions that are too many, the oldest first, and of a great
// many some at a time.
func (s *Service) endOldest(ctx context.Context, u User, client Client) error {
	sessions, err := s.store.Sessions(ctx, u.ID, s.now())
	if err != nil {
		return fmt.Errorf("counting sessions: %w", err)
	}
	const atATime = 10
	for range min(atATime, len(sessions)-maxSessions) {
		oldest := sessions[len(sessions)-1]
		sessions = sessions[:len(sessions)-1]
		if err := s.endSession(ctx, oldest.ID); err != nil {
			return fmt.Errorf("ending the oldest session: %w", err)
		}
		s.audit(ctx, client, AuditRecord{Event: EventLogout, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant, SessionID: oldest.ID, Details: map[string]string{"scope": "too many"}})
	}
	return nil
}

// idleEnd is when a session ends that is refreshed now and never again.
func (s *Service) idleEnd(session Session, now time.Time) time.Time {
	idle := now.Add(s.cfg.RefreshTTL)
	if idle.After(session.EndsAt) {
		return session.EndsAt
	}
	return idle
}

func (s *Service) grant(u User, session Session, now time.Time) (Grant, error) {
	access, err := s.tokens.Issue(u, session.ID, s.roles.Permissions(u.Roles))
	if err != nil {
		return Grant{}, err
	}
	refresh, err := s.tokens.encodeRefresh(session.ID, session.Counter)
	if err != nil {
		return Grant{}, err
	}
	return Grant{
		AccessToken: access, AccessExpiresIn: s.tokens.AccessTTL(),
		RefreshToken: refresh, RefreshExpiresIn: session.ExpiresAt.Sub(now),
		User: u, SessionID: session.ID,
	}, nil
}

// Refresh exchanges a refresh token for new tokens. The token before the current
// one is answered with the current one for RefreshGrace, because a client that
// lost an answer, or two tabs, would otherwise be taken for a thief; anything
// older was stolen, and ends the session.
func (s *Service) Refresh(ctx context.Context, token string, client Client) (Grant, error) {
	id, counter, err := s.tokens.decodeRefresh(token, s.cfg.RefreshTTL)
	if err != nil {
		return Grant{}, err
	}
	if err := s.throttle(ctx, s.now(), client, refreshLimit(id)); err != nil {
		return Grant{}, err
	}
	now := s.now()
	session, err := s.rotate(ctx, id, counter, now)
	if err != nil {
		if errors.Is(err, ErrTokenReused) {
			err = errors.Join(err, s.endStolen(ctx, session, client))
		}
		return Grant{}, err
	}
	u, err := s.store.User(ctx, session.UserID)
	if errors.Is(err, ErrNotFound) || err == nil && !u.Active {
		return Grant{}, errors.Join(ErrTokenInvalid, s.endSession(ctx, id))
	}
	if err != nil {
		return Grant{}, fmt.Errorf("reading the session's user: %w", err)
	}
	return s.grant(u, session, now)
}

// rotate advances the session, or finds out why it did not advance.
func (s *Service) rotate(ctx context.Context, id string, counter int64, now time.Time) (Session, error) {
	session, err := s.store.Session(ctx, id, now)
	if errors.Is(err, ErrNotFound) {
		return Session{}, ErrTokenInvalid
	}
	if err != nil {
		return Session{}, fmt.Errorf("reading the session: %w", err)
	}
	if session.Counter == counter {
		rotated, err := s.store.RotateSession(ctx, id, counter, now, s.idleEnd(session, now))
		if !errors.Is(err, ErrNotFound) {
			return rotated, err
		}
		// Somebody else was faster: look again.
		if session, err = s.store.Session(ctx, id, now); errors.Is(err, ErrNotFound) {
			return Session{}, ErrTokenInvalid
		} else if err != nil {
			return Session{}, fmt.Errorf("reading the session: %w", err)
		}
	}
	if session.Counter == counter+1 && now.Sub(session.RotatedAt) <= s.cfg.RefreshGrace {
		return session, nil
	}
	return session, ErrTokenReused
}

// endStolen ends a session whose refresh token has been used by two.
func (s *Service) endStolen(ctx context.Context, session Session, client Client) error {
	err := s.endSession(ctx, session.ID)
	u, userErr := s.store.User(ctx, session.UserID) // the record belongs to a tenant
	if errors.Is(userErr, ErrNotFound) {
		userErr = nil
	}
	s.audit(ctx, client, AuditRecord{Event: EventTokenReuse, UserID: session.UserID, Tenant: u.Tenant, SessionID: session.ID})
	return errors.Join(err, userErr)
}

// endSession ends one session, tokens included; it may have ended before. The
// tokens go first: when the store fails in between, the session is still there
// to be ended again.
func (s *Service) endSession(ctx context.Context, id string) error {
	if err := s.revoke(ctx, Revocation{Kind: RevokeSession, ID: id}); err != nil {
		return err
	}
	if err := s.store.DeleteSession(ctx, id); !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// endSessions ends the user's sessions but keep, tokens included and first, for
// the same reason. Sessions that begin meanwhile end too.
func (s *Service) endSessions(ctx context.Context, userID, keep string) error {
	sessions, err := s.store.Sessions(ctx, userID, s.now())
	if err != nil {
		return err
	}
	revoked := map[string]bool{}
	revoke := func(id string) error {
		if id == keep || revoked[id] {
			return nil
		}
		revoked[id] = true
		return s.revoke(ctx, Revocation{Kind: RevokeSession, ID: id})
	}
	for _, session := range sessions {
		if err := revoke(session.ID); err != nil {
			return err
		}
	}
	ended, err := s.store.DeleteSessions(ctx, userID, keep)
	for _, id := range ended {
		err = errors.Join(err, revoke(id))
	}
	return err
}

// Logout ends sessions of the caller; their tokens are refused from the next request on.
func (s *Service) Logout(ctx context.Context, p *Principal, scope LogoutScope, client Client) error {
	if p.Issuer != "" {
		return ErrForeignAccount
	}
	var err error
	switch scope {
	case LogoutLocal:
		err = s.endSession(ctx, p.SessionID)
	case LogoutOthers:
		err = s.endSessions(ctx, p.UserID, p.SessionID)
	case LogoutGlobal:
		err = errors.Join(s.endSession(ctx, p.SessionID), s.endSessions(ctx, p.UserID, ""))
	default:
		return badField("scope", "must be local, others or global")
	}
	if err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventLogout, UserID: p.UserID, ActorID: p.UserID, Tenant: p.Tenant, SessionID: p.SessionID, Details: map[string]string{"scope": string(scope)}})
	return nil
}

// Sessions lists the caller's sessions, newest first.
func (s *Service) Sessions(ctx context.Context, p *Principal) ([]Session, error) {
	return s.store.Sessions(ctx, p.UserID, s.now())
}

// EndSession ends one of the caller's sessions; ErrNotFound if it is not theirs.
func (s *Service) EndSession(ctx context.Context, p *Principal, id string, client Client) error {
	session, err := s.store.Session(ctx, id, s.now())
	if err == nil && session.UserID != p.UserID {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("reading the session: %w", err)
	}
	if err := s.endSession(ctx, id); err != nil {
		return fmt.Errorf("ending the session: %w", err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventLogout, UserID: p.UserID, ActorID: p.UserID, Tenant: p.Tenant, SessionID: id, Details: map[string]string{"scope": "one"}})
	return nil
}

// clip cuts s to at most n bytes without splitting a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
