package gateway

import (
	"bytes"
	"errors"
	"strings"
)

// rewriting puts an upstream's prefix of the path in the place of the route's. The
// policy has decided on the whole path before; what comes out is canonical again.
type rewriting struct {
	route    string // canonical and decoded, "" for the root
	upstream string // canonical, without percent-encodings, "" for the root
	segments int    // of route
}

var errRewrite = errors.New("must be a canonical path without percent-encodings or a trailing slash")

// newRewriting takes both prefixes as they are configured.
func newRewriting(route, upstream string) (*rewriting, error) {
	c, err := canonicalPath(nil, []byte(upstream))
	if err != nil || string(c) != upstream || upstream != "/" && strings.HasSuffix(upstream, "/") {
		return nil, errRewrite
	}
	w := &rewriting{route: strings.TrimSuffix(route, "/"), upstream: strings.TrimSuffix(upstream, "/")}
	w.segments = strings.Count(w.route, "/")
	return w, nil
}

// target maps a request target under the route to what the upstream is asked for.
// It cuts by segments, not bytes: a character of the prefix may have been sent
// percent-encoded, a slash never.
func (w *rewriting) target(sent string) string {
	rest, query := cutQuery(sent)
	for range w.segments {
		if i := strings.IndexByte(rest[1:], '/'); i >= 0 {
			rest = rest[i+1:]
		} else {
			rest = ""
		}
	}
	if rest == "" && w.upstream == "" {
		rest = "/"
	}
	return w.upstream + rest + query
}

// cutQuery cuts before the "?", or the "#" that a Location may have.
func cutQuery(target string) (path, query string) {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		return target[:i], target[i:]
	}
	return target, ""
}

// location maps a Location that leads into the upstream's prefix, on the host that
// the client asked for, to where the client finds it. Others are none of ours.
func (w *rewriting) location(value, host string) (string, bool) {
	origin, target := "", value
	if scheme, rest, ok := strings.Cut(value, "://"); ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) {
		end := strings.IndexAny(rest+"/", "/?#")
		if host == "" || !strings.EqualFold(rest[:end], host) {
			return "", false
		}
		origin, target = scheme+"://"+rest[:end], rest[end:]
	}
	path, query := cutQuery(target)
	if path == "" && origin != "" {
		path = "/"
	}
	if !hostless(path) {
		return "", false // relative, or another host's
	}
	if w.upstream != "" && !within(path, w.upstream) {
		return "", false
	}
	path = w.route + path[len(w.upstream):]
	if path == "" {
		path = "/"
	}
	if !hostless(path) {
		return "", false // it was a path before, and must not become another host
	}
	return origin + path + query, true
}

// hostless reports whether browsers take a path that begins so for one of the host
// it came from: they read "\" as "/", and nothing at all where there is a tab or
// the end of a line.
func hostless(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.ContainsAny(path, "\t\r\n") && !strings.HasPrefix(path, "//") && !strings.HasPrefix(path, `/\`)
}

// routedPaths are the paths of an upstream's API description as clients see them.
func routedPaths(routes []RouteConfig, upstream string, paths map[string]any) map[string]any {
	seen, rewritten := map[string]any{}, false
	for _, r := range routes {
		if r.Upstream != upstream {
			continue
		}
		rewritten = rewritten || r.Rewrite != ""
		for path, item := range paths {
			if r.Rewrite == "" && within(path, r.Path) {
				seen[path] = item
			} else if w, err := newRewriting(r.Path, r.Rewrite); err == nil {
				if path, ok := w.location(path, ""); ok {
					seen[path] = item
				}
			}
		}
	}
	if !rewritten {
		return paths
	}
	return seen
}

// answerEdit is what a route changes in the answers of its upstream.
type answerEdit struct {
	drop      []string // names, in lower case
	dropCORS  bool     // every Access-Control-*
	add       []byte   // field lines
	rewriting *rewriting
}

// apply edits an answer's head: a status line and field lines. host is what the
// client asked for.
func (e *answerEdit) apply(head []byte, host string) []byte {
	begin := bytes.IndexByte(head, '\n') + 1
	kept := head[:begin]
	var moved []byte // the rewritten Location may be longer than the one in its place
	for rest := head[begin:]; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n') + 1
		line := rest[:end]
		rest = rest[end:]
		name, value, _ := bytes.Cut(line, []byte{':'})
		if e.drops(name) {
			continue
		}
		if e.rewriting != nil && equalFold(name, "location") {
			if to, ok := e.rewriting.location(string(bytes.TrimSpace(value)), host); ok {
				moved = appendField(moved, "Location", to)
				continue
			}
		}
		kept = append(kept, line...)
	}
	return append(append(kept, moved...), e.add...)
}

func (e *answerEdit) drops(name []byte) bool {
	if e.dropCORS && len(name) > len(corsPrefix) && equalFold(name[:len(corsPrefix)], corsPrefix) {
		return true
	}
	for _, n := range e.drop {
		if equalFold(name, n) {
			return true
		}
	}
	return false
}
