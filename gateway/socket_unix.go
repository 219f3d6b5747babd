//go:build unix

package gateway

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// rawSocket gives access to the socket itself.
func rawSocket(c *net.TCPConn) syscall.RawConn {
	raw, err := c.SyscallConn()
	if err != nil { // closed: the next write says so
		return nil
	}
	return raw
}

// exchange is one exchange of bytes as the runtime's poller drives it: it
// is called, and called again when the socket has become readable, until it
// returns true. The poller begins to listen before the first call, so nothing
// that comes after the check can be missed. What came before it would be, on a
// new connection, which is not checked, so there it is looked for.
func (c *upstreamConn) exchange(fd uintptr) bool {
	if c.stage == stageCheck {
		if c.reused && !silent(fd) {
			c.err = errStale
			return true
		}
		c.stage = stageRead
		c.sent, _, c.err = writeDirect(fd, c.out)
		if c.err != nil || c.sent < len(c.out) || c.in == nil {
			return true
		}
		if c.reused {
			return false // that there is an answer already is rare, and finding none costs a system call
		}
	}
	n, ready, err := readDirect(fd, c.in)
	if ready && err == nil && n == 0 {
		err = io.EOF
	}
	c.got, c.err = n, err
	return ready
}

// quiet reports whether an idle connection is open and has nothing to say. What
// a target says without having been asked must not become an answer.
func quiet(raw syscall.RawConn) bool {
	ok := false
	err := raw.Control(func(fd uintptr) { ok = silent(fd) })
	return err == nil && ok
}

func silent(fd uintptr) bool {
	var b [1]byte
	_, ready, _ := readDirect(fd, b[:]) // sockets of net never block
	return !ready
}

// awaitReadable waits until there is something to be read. It keeps to the deadline for
// reads, and returns an error if there is nothing more to be had.
func awaitReadable(raw syscall.RawConn) error {
	var err error
	waited := raw.Read(func(fd uintptr) bool {
		var n int
		if n, err = peek(fd); n == 0 && err == nil {
			err = io.EOF
		}
		return !errors.Is(err, syscall.EAGAIN)
	})
	if waited != nil {
		return waited
	}
	return err
}

// peek looks at the next byte of a socket that never blocks, and leaves it there.
func peek(fd uintptr) (int, error) {
	var b [1]byte
	for {
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// readable reports whether a read would not have to wait.
func readable(raw syscall.RawConn) bool {
	if raw == nil {
		return false
	}
	ok := false
	err := raw.Control(func(fd uintptr) {
		_, err := peek(fd)
		ok = !errors.Is(err, syscall.EAGAIN)
	})
	return err == nil && ok
}
