package mongostore

import (
	"net"
	"sync"
	"testing"
)

// relay passes connections on to a server until it is told not to.
type relay struct {
	addr, to string

	mu     sync.Mutex
	state  relayState
	conns  map[net.Conn]bool
	change chan struct{} // closed when state changes
}

type relayState int

const (
	passing  relayState = iota
	cutting             // closes what there is and what comes
	freezing            // accepts, and passes nothing on
)

func newRelay(t *testing.T, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().String(), to: to, conns: map[net.Conn]bool{}, change: make(chan struct{})}
	t.Cleanup(func() { _ = l.Close(); r.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(c)
		}
	}()
	return r
}

func (r *relay) serve(client net.Conn) {
	server, err := net.Dial("tcp", r.to)
	if err != nil || !r.add(client, server) {
		_ = client.Close()
		if err == nil {
			_ = server.Close()
		}
		return
	}
	for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
		go func() {
			defer func() { _, _ = client.Close(), server.Close() }()
			buf := make([]byte, 64<<10)
			for {
				n, err := from.Read(buf)
				if err != nil {
					return
				}
				r.thaw()
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func (r *relay) add(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.conns[c] = true
	}
	return r.state != cutting
}

// thaw waits while the relay is frozen.
func (r *relay) thaw() {
	for {
		r.mu.Lock()
		state, change := r.state, r.change
		r.mu.Unlock()
		if state != freezing {
			return
		}
		<-change
	}
}

func (r *relay) set(state relayState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = state
	close(r.change)
	r.change = make(chan struct{})
	if state == cutting {
		for c := range r.conns {
			_ = c.Close()
		}
		clear(r.conns)
	}
}

func (r *relay) cut()     { r.set(cutting) }
func (r *relay) freeze()  { r.set(freezing) }
func (r *relay) restore() { r.set(passing) }
