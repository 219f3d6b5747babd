package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// upstream is the service behind every proxy: it reads a request to its end and
// sends the answer that its path names.
type upstream struct {
	*poller
	listener int
	conns    map[int]*upstreamConn
	answers  map[string][]byte
	buf      []byte
}

type upstreamConn struct {
	request message
	answer  []byte // what is left to send
	path    string
}

// The paths behind which there are answers.
const (
	pathSmall = "/bench/small" // 90 bytes, also for uploads
	pathJSON  = "/bench/json"  // 10 kB
	pathLarge = "/bench/large" // 1 MB
)

func answers() map[string][]byte {
	answer := func(body string) []byte {
		return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: upstream\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	task := `{"id":"0190b0a0-0000-7000-8000-000000000000","title":"Buy milk","done":false,"due":null }`
	list := func(size int) string {
		n := size / (len(task) + 1)
		return "[" + strings.Repeat(task+",", n-1) + task + "]"
	}
	return map[string][]byte{pathSmall: answer(task), pathJSON: answer(list(10_000)), pathLarge: answer(list(1_000_000))}
}

// serveUpstream answers requests at addr for as long as the process lives.
func serveUpstream(addr string) error {
	at, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return err
	}
	p, err := newPoller()
	if err != nil {
		return err
	}
	u := &upstream{poller: p, conns: map[int]*upstreamConn{}, answers: answers(), buf: make([]byte, 256<<10)}
	if u.listener, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	local := &syscall.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}
	if err = errors.Join(syscall.Bind(u.listener, local), syscall.Listen(u.listener, 4096), u.add(u.listener, u.listener, syscall.EPOLLIN)); err != nil {
		return err
	}
	for {
		events, err := u.wait(-1)
		if err != nil {
			return err
		}
		for i := range events {
			fd := int(events[i].Fd)
			if fd == u.listener {
				u.accept()
			} else if u.move(fd, u.conns[fd]) != nil {
				delete(u.conns, fd)
				_ = syscall.Close(fd) // whoever it was has gone
			}
		}
	}
}

func (u *upstream) accept() {
	for {
		fd, _, err := syscall.Accept4(u.listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) // slower, but not wrong
		u.conns[fd] = &upstreamConn{}
		if u.add(fd, fd, edges) != nil {
			delete(u.conns, fd)
			_ = syscall.Close(fd)
		}
	}
}

// move does what can be done on a connection.
func (u *upstream) move(fd int, c *upstreamConn) error {
	if err := c.write(fd); err != nil {
		return err
	}
	for {
		n, err := syscall.Read(fd, u.buf)
		if again(err) {
			return nil
		}
		if err != nil || n == 0 {
			return io.EOF
		}
		first, done, err := c.request.next(u.buf[:n])
		if err != nil {
			return err
		}
		if first != nil {
			parts := bytes.SplitN(first, []byte{' '}, 3)
			if len(parts) != 3 {
				return errors.New("no request line")
			}
			c.path = string(parts[1])
		}
		if done {
			answer, ok := u.answers[c.path]
			if !ok {
				answer = []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
			}
			c.answer = answer
			if err := c.write(fd); err != nil {
				return err
			}
		}
		if n < len(u.buf) {
			return nil
		}
	}
}

func (c *upstreamConn) write(fd int) error {
	for len(c.answer) > 0 {
		n, err := syscall.Write(fd, c.answer)
		if again(err) {
			return nil
		}
		if err != nil {
			return err
		}
		c.answer = c.answer[n:]
	}
	return nil
}
