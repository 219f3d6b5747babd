//go:build unix

package gateway

import (
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
// that comes after the check can be missed.
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
		// On a busy machine the upstream has run, and answered, meanwhile.
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

// readable reports whether a read would not have to wait.
func readable(raw syscall.RawConn) bool {
	if raw == nil {
		return false
	}
	var b [1]byte
	ok := false
	err := raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK) // sockets of net never block
		ok = err != syscall.EAGAIN
	})
	return err == nil && ok
}
