//go:build linux

package main

import "fmt"

// benchCase is one comparison: the same requests to each of its rows in turn.
type benchCase struct {
	name    string
	about   string
	method  string
	path    string
	body    int // bytes
	clients int
	rows    []entry
	// special measures in a way of its own.
	special func(*bench, *benchCase) error
}

// entry is a row: a server, and what is asked of it.
type entry struct {
	name   string
	server server
	tokens int // distinct ones
}

func cases() []*benchCase {
	var (
		plain   = server{kind: nginx}
		logging = server{kind: nginx, log: true}
		peer    = server{kind: haproxy, log: true, algorithm: "HS256"}
		us      = server{kind: portcullis, log: true, algorithm: "EdDSA", rules: 10}
	)
	with := func(s server, change func(*server)) server {
		change(&s)
		return s
	}
	three := []entry{{name: rowNginx, server: plain}, {name: rowHAProxy, server: peer, tokens: 1}, {name: rowPortcullis, server: us, tokens: 1}}
	return []*benchCase{
		{name: "get", about: "a small answer (90 bytes)", rows: append(three, entry{name: rowNginxLog, server: logging})},
		{name: "json", about: "an answer of 10 kB", path: pathJSON, rows: three},
		{name: "download", about: "an answer of 1 MB", path: pathLarge, clients: 16, rows: three},
		{name: "upload", about: "a request of 1 MB", method: "POST", body: 1_000_000, clients: 16, rows: three},
		{name: "log", about: "the price of the access log, a small answer", rows: []entry{
			{name: "portcullis, no log", server: with(us, func(s *server) { s.log = false }), tokens: 1},
			{name: "portcullis, log", server: us, tokens: 1},
		}},
		{name: "algorithms", about: "by the token's algorithm, a small answer", rows: []entry{
			{name: "haproxy, HS256", server: peer, tokens: 1},
			{name: "haproxy, RS256", server: with(peer, func(s *server) { s.algorithm = "RS256" }), tokens: 1},
			{name: "portcullis, EdDSA", server: us, tokens: 1},
			{name: "portcullis, HS256", server: with(us, func(s *server) { s.algorithm = "HS256" }), tokens: 1},
			{name: "portcullis, RS256", server: with(us, func(s *server) { s.algorithm = "RS256" }), tokens: 1},
		}},
		{name: "tokens", about: "by the number of callers, a small answer", rows: []entry{
			{name: "1 token", server: us, tokens: 1},
			{name: "10,000 tokens", server: us, tokens: 10_000},
		}},
		{name: "rules", about: "by the number of policy rules, a small answer", rows: []entry{
			{name: "10 rules", server: us, tokens: 1},
			{name: "10,000 rules", server: with(us, func(s *server) { s.rules = 10_000 }), tokens: 1},
		}},
		{name: "isolation", about: "a small answer, while 200 clients try to log in", special: isolation},
		{name: "idle", about: "10,000 idle connections beside the busy ones", special: idleConnections},
		{name: "start", about: "from the start to ready, and memory before any request", special: startUp},
		{name: "soak", about: "memory over -duration at half load; only if asked for", special: soak},
	}
}

// The rows that others are compared with.
const (
	rowNginx      = "nginx, plain"
	rowNginxLog   = "nginx, access log"
	rowHAProxy    = "haproxy, HS256"
	rowPortcullis = "portcullis"
	rowNginxAlone = "nginx, alone"
	rowNginxHash  = "nginx, beside a hash"
)

// requests are what an entry's clients send in turn.
func (c *benchCase) requests(s *running, e entry) ([][]byte, error) {
	method, path := c.method, c.path
	if method == "" {
		method = "GET"
	}
	if path == "" {
		path = pathSmall
	}
	tokens := []string{""}
	if e.tokens > 0 {
		var err error
		if tokens, err = s.tokens(e.tokens); err != nil {
			return nil, err
		}
	}
	all := make([][]byte, len(tokens))
	for i, token := range tokens {
		r := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n", method, path)
		if token != "" {
			r = fmt.Appendf(r, "Authorization: Bearer %s\r\n", token)
		}
		if c.body > 0 {
			r = fmt.Appendf(r, "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", c.body)
		}
		all[i] = append(append(r, "\r\n"...), make([]byte, c.body)...)
	}
	return all, nil
}

// goal is what a figure ought to be.
type goal struct {
	of      string // the case
	figure  figure
	row     string
	against string  // the row of the same case it is divided by; "" for none
	limit   float64 // at most, or at least if least; 0: there is none, and it is what others are seen beside
	least   bool
}

func goals() []goal {
	return []goal{
		{"get", cpu, rowPortcullis, rowNginx, 1.0, false},
		{"get", cpu, rowPortcullis, rowNginxLog, 1.0, false},
		{"get", cpu, rowPortcullis, rowHAProxy, 0.8, false},
		{"get", p99, rowPortcullis, rowHAProxy, 1.2, false},
		{"download", cpu, rowPortcullis, rowNginx, 1.3, false},
		{"upload", cpu, rowPortcullis, rowNginx, 1.3, false},
		{"tokens", cpu, "10,000 tokens", "1 token", 1.1, false},
		{"rules", cpu, "10,000 rules", "10 rules", 1.1, false},
		{"isolation", throughput, "with logins", "without", 0.6, true},
		{"isolation", p99, "with logins", "without", 2, false},
		{"isolation", p99, rowNginxHash, rowNginxAlone, 0, false},
		{"isolation", logins, "with logins", "logins alone", 0.9, true},
		{"idle", perConn, "with idle", "", 12, false},
		{"idle", p99, "with idle", "without", 1.2, false},
		{"start", startup, rowPortcullis, "", 100, false},
		{"start", idleMemory, rowPortcullis, "", 30, false},
	}
}
