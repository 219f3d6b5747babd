package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// csrfCodec makes the tokens by which a page shows that a request is its own and
// not another site's in its name: an HMAC of the session's ID, so that there is
// nothing to store, and another session's token is worth nothing.
type csrfCodec struct{ key []byte }

func (c csrfCodec) encode(sessionID string) string {
	h := hmac.New(sha256.New, c.key)
	h.Write([]byte(sessionID))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (c csrfCodec) check(sessionID string, token []byte) bool {
	return hmac.Equal([]byte(c.encode(sessionID)), token)
}

// CSRFToken is what a page has to send along with requests that a session's
// cookies authenticate.
func (s *Service) CSRFToken(sessionID string) string {
	return s.tokens.trust.Load().keys.secret(s.tokens.cfg.Now()).csrf.encode(sessionID)
}

// CheckCSRF reports whether token is a CSRFToken of the session, made with any
// secret that is not retired.
func (s *Service) CheckCSRF(sessionID string, token []byte) bool {
	now := s.tokens.cfg.Now()
	for _, secret := range s.tokens.trust.Load().keys.secrets {
		if !secret.retired(now, s.cfg.RefreshTTL) && secret.csrf.check(sessionID, token) {
			return sessionID != ""
		}
	}
	return false
}

// RefreshSession is the session that a refresh token of ours belongs to, which
// may have ended; ErrTokenInvalid for any other token. The store is not asked.
func (s *Service) RefreshSession(token string) (sessionID string, err error) {
	sessionID, _, err = s.tokens.decodeRefresh(token, s.cfg.RefreshTTL)
	return sessionID, err
}
