package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// JWKSMaxAge is how long verifiers may do with the keys they have fetched. A key
// that signs sooner after it was published may be unknown to them.
const JWKSMaxAge = 5 * time.Minute

// getJWKS answers with the public keys. They are read again and again by caches
// and verifiers, and seldom change.
func getJWKS(_ context.Context, c *call) error {
	doc := c.st.identity.Tokens().JWKS()
	sum := sha256.Sum256(doc)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	h := &c.answer.Header
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(JWKSMaxAge.Seconds())))
	h.Set("ETag", etag)
	if matches(string(c.ctx.Request.Header.Peek("If-None-Match")), etag) {
		c.answer.SetStatusCode(http.StatusNotModified)
		h.SetNoDefaultContentType(true)
		return nil
	}
	h.SetContentType("application/json")
	c.answer.SetBodyRaw(doc)
	return nil
}

// matches compares as If-None-Match does: weakly (RFC 9110 §13.1.2).
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return true
		}
	}
	return false
}
