package gateway

import (
	"bytes"
	"net/netip"
	"strings"
)

// told is what a trusted proxy says of the request it passes on.
type told struct {
	addresses []byte // as X-Forwarded-For has them; each proxy adds one at the end
	proto     string // "http", "https" or ""
	host      string // or ""
}

// told returns what X-Forwarded-For, -Proto and -Host say, or where there is no
// X-Forwarded-For, what Forwarded (RFC 7239) does. Where both are there and do not name
// the same addresses, one of them was passed on by a proxy that knows only the other,
// and may be the client's own tale: then neither counts.
func (h *clientHeader) told(st *State, peer netip.Addr) told {
	plain := told{addresses: h.forwardedFor}
	if proto := string(h.forwardedProto); proto == "http" || proto == "https" {
		plain.proto = proto
	}
	if validHost(h.forwardedHost) {
		plain.host = string(h.forwardedHost)
	}
	if h.forwarded == nil {
		return plain
	}
	hops, ok := parseForwarded(string(h.forwarded))
	switch {
	case !ok:
		return told{}
	case h.forwardedFor == nil:
		return tellHops(st, peer, hops)
	case !sameAddresses(hops, string(h.forwardedFor)):
		return told{}
	}
	return plain
}

// hop is an element of Forwarded: what one proxy says of the request it received.
type hop struct{ addr, proto, host string }

// tellHops is what hops say, as far as each was added by a trusted proxy.
func tellHops(st *State, peer netip.Addr, hops []hop) told {
	var t told
	addr := peer
	for i := len(hops) - 1; i >= 0 && st.trusts(addr); i-- {
		t.proto, t.host = hops[i].proto, hops[i].host
		next, err := netip.ParseAddr(hops[i].addr)
		if err != nil {
			break
		}
		addr = next.Unmap()
	}
	names := make([]string, len(hops))
	for i, h := range hops {
		names[i] = h.addr
	}
	t.addresses = []byte(strings.Join(names, ", "))
	return t
}

func sameAddresses(hops []hop, list string) bool {
	plain := strings.Split(list, ",")
	if len(plain) != len(hops) {
		return false
	}
	for i, text := range plain {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		b, err2 := netip.ParseAddr(hops[i].addr)
		if err != nil || err2 != nil || a.Unmap() != b.Unmap() {
			return false
		}
	}
	return true
}

// parseForwarded parses the elements of Forwarded, all of them or none: what is behind
// a mistake in quoting could be anything.
func parseForwarded(s string) ([]hop, bool) {
	var hops []hop
	for more := true; more; {
		h := hop{}
		seen := map[string]bool{}
		for again := true; again; {
			name, value, rest, ok := cutForwarded(s)
			if !ok || seen[name] {
				return nil, false
			}
			seen[name] = true
			switch name {
			case "for":
				if h.addr, ok = forwardedNode(value); !ok {
					return nil, false
				}
			case "proto":
				if value = strings.ToLower(value); value == "http" || value == "https" {
					h.proto = value
				}
			case "host":
				if validHost([]byte(value)) {
					h.host = value
				}
			}
			again, more = strings.HasPrefix(rest, ";"), rest != ""
			s = rest[min(1, len(rest)):]
		}
		if h.addr == "" {
			h.addr = "unknown"
		}
		hops = append(hops, h)
	}
	return hops, true
}

// cutForwarded cuts a name and its value off s. rest is empty or begins with the ";" or
// "," that comes behind them.
func cutForwarded(s string) (name, value, rest string, ok bool) {
	name, s, ok = strings.Cut(strings.TrimLeft(s, " \t"), "=")
	if !ok || !isToken(name) {
		return "", "", "", false
	}
	if strings.HasPrefix(s, `"`) {
		value, s, ok = cutQuoted(s[1:])
	} else {
		end := strings.IndexAny(s, ",; \t")
		if end < 0 {
			end = len(s)
		}
		value, s = s[:end], s[end:]
		ok = isToken(value)
	}
	rest = strings.TrimLeft(s, " \t")
	if rest != "" && rest[0] != ',' && rest[0] != ';' || rest != "" && strings.TrimLeft(rest[1:], " \t") == "" {
		return "", "", "", false
	}
	return strings.ToLower(name), value, rest, ok
}

// cutQuoted cuts a quoted string off s, which begins behind its first quote.
func cutQuoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// forwardedNode returns the address of a node without its port, or "unknown" for one
// that does not tell it.
func forwardedNode(node string) (string, bool) {
	if node == "unknown" || strings.HasPrefix(node, "_") {
		return "unknown", true
	}
	text := node
	if strings.HasPrefix(node, "[") {
		end := strings.IndexByte(node, ']')
		if end < 0 {
			return "", false
		}
		text, node = node[1:end], node[end+1:]
	} else if colon := strings.IndexByte(node, ':'); colon >= 0 {
		text, node = node[:colon], node[colon:]
	} else {
		node = ""
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return "", false
	}
	return addr.String(), node == "" || strings.HasPrefix(node, ":_") && isToken(node[1:]) || validPort([]byte(node))
}

func isToken(s string) bool {
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// joinField adds the value of another line of a field to those before.
func joinField(before, value []byte) []byte {
	if before == nil {
		return value
	}
	return append(append(bytes.Clone(before), ", "...), value...)
}
