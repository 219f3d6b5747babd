package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// server is one of those that are compared, as configured for a case.
type server struct {
	kind      serverKind
	log       bool   // access log
	algorithm string // of the tokens; "" is none asked for
	rules     int    // of the gateway's policy
	account   bool   // somebody can log in
}

type serverKind uint8

const (
	nginx serverKind = iota
	haproxy
	portcullis
)

// running is a server that has been started.
type running struct {
	*process
	addr   string
	admin  string // the gateway's
	tokens func(n int) ([]string, error)
}

// site is where servers are started: programs, a directory, and the upstream.
type site struct {
	dir      string
	gateway  string // the binary
	upstream string // the address
	service  *process
	count    int
}

// room makes a directory for one server.
func (s *site) room(name string) (string, error) {
	s.count++
	dir := filepath.Join(s.dir, fmt.Sprintf("%d-%s", s.count, name))
	return dir, os.MkdirAll(dir, 0o700)
}

func (s *site) start(ctx context.Context, want server) (*running, error) {
	switch want.kind {
	case nginx:
		return s.startNginx(ctx, want)
	case haproxy:
		return s.startHAProxy(ctx, want)
	}
	return s.startGateway(ctx, want)
}

// startNginx starts a plain proxy: no authentication, keep-alive on both sides,
// bodies streamed, a worker for each processor.
func (s *site) startNginx(ctx context.Context, want server) (*running, error) {
	dir, err := s.room("nginx")
	if err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	user, log := "", "off"
	if os.Geteuid() == 0 {
		user = "user root;" // the directory is nobody else's
	}
	if want.log {
		log = filepath.Join(dir, "access.log")
	}
	text := fmt.Sprintf(`%s
daemon off;
pid nginx.pid;
error_log stderr warn;
worker_processes %d;

events { worker_connections 16384; multi_accept on; }
http {
	access_log %s;
	keepalive_requests 1000000000;
	keepalive_timeout 1h;
	client_max_body_size 16m;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	upstream backend { server %s; keepalive 128; keepalive_requests 1000000000; }
	server {
		listen %s backlog=4096;
		location / {
			proxy_pass http://backend;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_request_buffering off;
			proxy_buffers 16 64k;
			proxy_max_temp_file_size 0;
		}
	}
}
`, user, runtime.NumCPU(), log, s.upstream, addr)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := startProcess(dir, "nginx", "nginx", "-p", dir, "-c", file)
	return s.up(ctx, p, err, &running{addr: addr})
}

// startHAProxy starts a proxy that verifies the token of each request and has one
// rule about its path.
func (s *site) startHAProxy(ctx context.Context, want server) (*running, error) {
	dir, err := s.room("haproxy")
	if err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	signer, err := newPeerSigner(dir, want.algorithm)
	if err != nil {
		return nil, err
	}
	log := ""
	if want.log {
		log = "log stdout format raw local0"
	}
	text := fmt.Sprintf(`global
	nbthread %d
	maxconn 10500
	no strict-limits
	%s
defaults
	mode http
	log global
	option httplog
	timeout connect 5s
	timeout client 1h
	timeout server 1h
	option http-keep-alive
	http-reuse aggressive
frontend edge
	bind %s backlog 4096
	http-request set-var(txn.token) http_auth_bearer
	http-request deny deny_status 401 unless { var(txn.token),jwt_header_query('$.alg') -m str %s }
	http-request deny deny_status 401 unless { var(txn.token),jwt_verify("%s","%s") -m int 1 }
	http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$.exp','int')
	http-request set-var(txn.left) date(),neg,add(txn.exp)
	http-request deny deny_status 401 unless { var(txn.left) -m int gt 0 }
	http-request deny deny_status 403 unless { path_beg /bench/ }
	option forwardfor
	default_backend service
backend service
	server one %s
`, runtime.NumCPU(), log, addr, want.algorithm, want.algorithm, signer.verifier, s.upstream)
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := startProcess(dir, "haproxy", "haproxy", "-db", "-f", file)
	return s.up(ctx, p, err, &running{addr: addr, tokens: signer.tokens})
}

// startGateway starts Portcullis as it is used: access log, metrics, policy and
// assertion on.
func (s *site) startGateway(ctx context.Context, want server) (*running, error) {
	r, dir, err := s.prepareGateway(ctx, want)
	if err != nil {
		return nil, err
	}
	p, err := startProcess(dir, "portcullis", s.gateway, "serve")
	return s.up(ctx, p, err, r)
}

// prepareGateway makes a directory in which the gateway can be started.
func (s *site) prepareGateway(ctx context.Context, want server) (*running, string, error) {
	dir, err := s.room("portcullis")
	if err != nil {
		return nil, "", err
	}
	r := &running{}
	if r.addr, err = freePort(); err != nil {
		return nil, "", err
	}
	if r.admin, err = freePort(); err != nil {
		return nil, "", err
	}
	level := "error"
	if want.log {
		level = "info"
	}
	text := fmt.Sprintf(`listen: %q
admin: {listen: %q}
log: {level: %s, format: json}
identity:
  store: "file:./identity.db"
  tokens: {issuer: %q, audience: api, algorithm: %s, keys: ./keys, access_ttl: 24h}
  reset: {link: "http://localhost/reset?token={token}"}
  login_limit: {attempts: 1000000, window: 15m}
policy: {file: policy.csv}
upstreams:
  service: {targets: ["http://%s"]}
routes:
  - {path: /bench, upstream: service}
`, r.addr, r.admin, level, issuer, want.algorithm, s.upstream)
	for name, text := range map[string]string{"gateway.yaml": text, "policy.csv": rules(want.rules)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, "", err
		}
	}
	if want.account {
		create := exec.CommandContext(ctx, s.gateway, "user", "create", accountName, "--email", "bench@example.com") //nolint:gosec // what is measured
		create.Dir, create.Stdin = dir, strings.NewReader(accountPassword+"\n")
		if said, err := create.CombinedOutput(); err != nil {
			return nil, "", fmt.Errorf("creating an account: %w: %s", err, said)
		}
	}
	r.tokens, err = newGatewaySigner(filepath.Join(dir, "keys"), want.algorithm)
	return r, dir, err
}

// Who logs in.
const (
	accountName     = "bench"
	accountPassword = "a quite long passphrase"
)

func (s *site) up(ctx context.Context, p *process, err error, r *running) (*running, error) {
	if err != nil {
		return nil, err
	}
	if err := p.listens(ctx, r.addr); err != nil {
		p.stop()
		return nil, err
	}
	r.process = p
	return r, nil
}

// rules is a policy of n rules, as a platform of many services would have it, in
// which the benchmark's own are somewhere in the middle.
func rules(n int) string {
	own := "p, role:user, /bench/:what, GET|POST, allow\np, anonymous, /auth/login, POST, allow\np, role:admin, /auth/*, *, allow\n"
	var b strings.Builder
	for i := range n - 3 {
		if i == n/2 {
			b.WriteString(own)
		}
		fmt.Fprintf(&b, "p, role:team%d, /service%d/resource%d/:id, GET|PATCH, allow\n", i%50, i/50, i%50)
	}
	if n/2 >= n-3 {
		b.WriteString(own)
	}
	return b.String()
}

// startUpstream starts what is behind every proxy, which is this program again.
func (s *site) startUpstream(ctx context.Context) error {
	dir, err := s.room("upstream")
	if err != nil {
		return err
	}
	if s.upstream, err = freePort(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if s.service, err = startProcess(dir, "upstream", self, "upstream", s.upstream); err != nil {
		return err
	}
	return s.service.listens(ctx, s.upstream)
}
