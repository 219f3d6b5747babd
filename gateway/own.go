package gateway

import (
	"github.com/valyala/fasthttp"
)

// guard sets the fields that keep a browser from making more of an answer of ours
// than it is. An endpoint may say otherwise afterwards. Answers of upstreams are theirs.
func guard(h *fasthttp.ResponseHeader) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY") // for browsers that don't know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
}

// finish completes an answer of the gateway's own: what the road has gathered for it,
// and over TLS, that the client should come that way only (RFC 6797).
func (r *request) finish() {
	h := &r.answer.Header
	for lines := r.fields; len(lines) > 0; {
		name, value, rest, err := nextField(lines)
		if err != nil || name == nil {
			break
		}
		h.AddBytesKV(name, value)
		lines = rest
	}
	if r.hsts != "" && r.proto() == "https" {
		h.Set("Strict-Transport-Security", r.hsts)
	}
}
