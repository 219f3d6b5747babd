package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// instance is a gateway that is restarted now and then.
type instance struct {
	t               *testing.T
	dir, tasks      string
	config          string // "": the one of make run, with tasks as its upstream
	edge, operators string
	cmd             *exec.Cmd
	log             *lockedBuffer
}

func (i *instance) start(env ...string) {
	i.t.Helper()
	i.edge, i.operators, i.log = freeAddr(i.t), freeAddr(i.t), &lockedBuffer{}
	config := i.config
	if config == "" {
		config = "../../gateway.yaml"
		env = append(env, "GATEWAY_UPSTREAMS_TASKS_TARGETS=http://"+i.tasks)
	}
	i.cmd = exec.Command("gateway", "serve", "-c", config)
	i.cmd.Env = append(append(os.Environ(),
		"GATEWAY_LISTEN="+i.edge, "GATEWAY_ADMIN_LISTEN="+i.operators,
		"GATEWAY_IDENTITY_STORE=file:"+filepath.Join(i.dir, "identity.db"), "GATEWAY_IDENTITY_TOKENS_KEYS="+filepath.Join(filepath.Dir(i.dir), "keys"),
		"GATEWAY_IDENTITY_PASSWORD_COST=4"), env...)
	i.cmd.Stdout, i.cmd.Stderr = i.log, i.log
	if err := i.cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { _ = i.cmd.Process.Kill() }) // if the test has not come to its end
	waitFor(i.t, i.log, "serving")
}

// stop sends SIGTERM and expects the process to end well.
func (i *instance) stop() {
	i.t.Helper()
	i.terminate()
	i.ended()
}

func (i *instance) terminate() {
	i.t.Helper()
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		i.t.Fatal(err)
	}
}

func (i *instance) ended() {
	i.t.Helper()
	if err := i.cmd.Wait(); err != nil {
		i.t.Errorf("it ended with %v\n%s", err, i.log)
	}
}

func (i *instance) ready() bool {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + i.operators + "/readyz")
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// balancer sends each new connection to one of the instances that were ready when
// it looked last, as a TCP load balancer does.
type balancer struct {
	addr string
	mu   sync.Mutex
	to   []string
	next int
}

func startBalancer(t *testing.T) *balancer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	b := &balancer{addr: ln.Addr().String()}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go b.join(conn)
		}
	}()
	return b
}

// watch asks every instance whether it is ready, and calls seen after each round.
func (b *balancer) watch(t *testing.T, instances func() []*instance) {
	done := make(chan struct{})
	stopped := make(chan struct{})
	t.Cleanup(func() { close(done); <-stopped })
	go func() {
		defer close(stopped)
		for {
			all := instances()
			ready := make([]bool, len(all))
			var asking sync.WaitGroup
			for n, i := range all {
				asking.Go(func() { ready[n] = i.ready() })
			}
			asking.Wait()
			var to []string
			for n, i := range all {
				if ready[n] {
					to = append(to, i.edge)
				}
			}
			b.mu.Lock()
			b.to = to
			b.mu.Unlock()
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
}

// serves reports whether the balancer knows all of addrs to be ready.
func (b *balancer) serves(addrs ...string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := strings.Join(b.to, " ")
	for _, a := range addrs {
		if !strings.Contains(all, a) {
			return false
		}
	}
	return true
}

func (b *balancer) pick() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.to) == 0 {
		return ""
	}
	b.next++
	return b.to[b.next%len(b.to)]
}

func (b *balancer) join(near net.Conn) {
	defer func() { _ = near.Close() }()
	far, err := net.Dial("tcp", b.pick())
	for range 10 { // refused: nothing was sent
		if err == nil {
			break
		}
		far, err = net.Dial("tcp", b.pick())
	}
	if err != nil {
		return
	}
	defer func() { _ = far.Close() }()
	go func() { _, _ = io.Copy(far, near); _ = far.(*net.TCPConn).CloseWrite() }()
	_, _ = io.Copy(near, far)
}

// steadyClient sends one request after the other and never sends one again.
type steadyClient struct {
	addr, token, name string
	conn              net.Conn
	in                *bufio.Reader
	sent              int
}

// ask sends the next request, and fails if it is not answered as it should be.
func (c *steadyClient) ask() error {
	if c.conn != nil && c.closed() {
		c.hangUp()
	}
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	c.sent++
	id := fmt.Sprintf("%s-%d", c.name, c.sent)
	method, body := "GET", "\r\n"
	if c.sent%2 == 0 {
		method, body = "POST", "Content-Length: 2\r\n\r\n{}"
	}
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c.conn, "%s /tasks?%s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\n%s", method, id, c.token, body); err != nil {
		return fmt.Errorf("%s %s: %w", method, id, err)
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, id, err)
	}
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || string(got) != method+" "+id {
		return fmt.Errorf("%s %s: %s %q %w", method, id, res.Status, got, err)
	}
	if res.Close {
		c.hangUp()
	}
	return nil
}

// closed reports whether the connection was closed while it was idle, which is the
// server's right: HTTP asks a client to look before it sends.
func (c *steadyClient) closed() bool {
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Microsecond))
	_, err := c.in.Peek(1)
	return err != nil && !os.IsTimeout(err)
}

func (c *steadyClient) hangUp() {
	_ = c.conn.Close()
	c.conn = nil
}

// countingUpstream answers with the request's method and id, and counts them.
type countingUpstream struct {
	mu   sync.Mutex
	seen map[string]int
}

func (u *countingUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what := r.Method + " " + r.URL.RawQuery
	u.mu.Lock()
	u.seen[what]++
	u.mu.Unlock()
	_, _ = io.WriteString(w, what)
}

// One half of the gateways is restarted after the other. There are several in each
// because a restart takes as long as drain_delay, and so do several at once.
func TestRollingRestartsLoseNoRequest(t *testing.T) {
	t.Parallel()
	const half = 3
	restarts := 7 // of one half
	if testing.Short() {
		restarts = 2
	}
	upstream := &countingUpstream{seen: map[string]int{}}
	tasks := serveHTTP(t, upstream)
	dir := t.TempDir()
	var mu sync.Mutex // guards the elements of live: the balancer looks at them
	live := make([]*instance, 2*half)
	b := startBalancer(t)
	start := func(n int) {
		next := &instance{t: t, tasks: tasks, dir: filepath.Join(dir, fmt.Sprint(n))}
		next.start("GATEWAY_DRAIN_DELAY=1s")
		mu.Lock()
		live[n] = next
		mu.Unlock()
		until(t, "the balancer sees the new gateway", func() bool { return b.serves(next.edge) })
	}
	b.watch(t, func() (all []*instance) {
		mu.Lock()
		defer mu.Unlock()
		for _, i := range live {
			if i != nil {
				all = append(all, i)
			}
		}
		return all
	})
	start(0)
	token := (&replica{t: t, addr: live[0].edge}).signIn("ana") // all have the same keys
	for n := range live[1:] {
		start(1 + n)
	}

	const clients = 8
	end, lost := make(chan struct{}), make(chan error, clients)
	sent := make([]int, clients)
	var asking sync.WaitGroup
	for n := range clients {
		asking.Go(func() {
			c := &steadyClient{addr: b.addr, token: token, name: fmt.Sprint(n)}
			defer func() { sent[n] = c.sent }()
			for {
				select {
				case <-end:
					return
				default:
				}
				if err := c.ask(); err != nil {
					lost <- err
					return
				}
				time.Sleep(time.Millisecond) // others use the machine, too
			}
		})
	}
	for n := range restarts {
		for i := range half {
			live[2*i+n%2].terminate()
		}
		for i := range half {
			live[2*i+n%2].ended()
			start(2*i + n%2)
		}
	}
	close(end)
	asking.Wait()
	close(lost)
	for err := range lost {
		t.Error("lost:", err)
	}
	total := 0
	for n, s := range sent {
		total += s
		for i := 1; i <= s; i++ {
			method := []string{"GET", "POST"}[(i+1)%2]
			if times := upstream.seen[fmt.Sprintf("%s %d-%d", method, n, i)]; times != 1 {
				t.Errorf("%s %d-%d was seen %d times", method, n, i, times)
			}
		}
	}
	t.Logf("%d requests over %d restarts", total, half*restarts)
	for _, i := range live {
		i.terminate()
	}
	for _, i := range live {
		i.ended()
	}
}

func TestASecondSignalEndsTheGatewayAtOnce(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{
		"while it is not ready yet to close": {"GATEWAY_DRAIN_DELAY=10m"},
		"while a request is under way":       {"GATEWAY_SHUTDOWN_TIMEOUT=1h"},
	} {
		t.Run(name, func(t *testing.T) {
			asked, end := make(chan struct{}, 1), make(chan struct{})
			defer close(end)
			i := &instance{t: t, dir: filepath.Join(t.TempDir(), "a"), tasks: serveHTTP(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				asked <- struct{}{}
				<-end
			}))}
			i.start(env...)
			c := &steadyClient{addr: i.edge, token: (&replica{t: t, addr: i.edge}).signIn("ana"), name: "c"}
			cut := make(chan error, 1)
			go func() { cut <- c.ask() }()
			<-asked
			if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			waitFor(t, i.log, "draining")
			until(t, "it is not ready any more", func() bool { return !i.ready() })
			ended := make(chan error, 1)
			go func() { ended <- i.cmd.Wait() }()
			var err error
			until(t, "it ends", func() bool {
				_ = i.cmd.Process.Signal(syscall.SIGTERM) // until it has ended
				select {
				case err = <-ended:
					return true
				default:
					return false
				}
			})
			if status, ok := i.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
				t.Errorf("it ended with %v\n%s", err, i.log)
			}
			if <-cut == nil {
				t.Error("the request was answered")
			}
		})
	}
}

// serveHTTP serves handler until the test ends, and returns where.
func serveHTTP(t *testing.T, handler http.Handler) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return ln.Addr().String()
}
