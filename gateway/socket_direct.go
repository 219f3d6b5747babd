//go:build unix

package gateway

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// directConn is a TCP connection that reads and writes without telling the
// scheduler: its socket never blocks, so there is nothing to make room for. On a
// busy machine that saves more than the call itself, because a thread that is
// taken off its processor in the middle of one would be replaced by another.
type directConn struct {
	*net.TCPConn
	raw syscall.RawConn

	reading   sync.Mutex // guards what follows
	in        []byte
	got       int
	readErr   error
	readStep  func(fd uintptr) bool
	writing   sync.Mutex // guards what follows
	out       []byte
	sent      int
	writeErr  error
	writeStep func(fd uintptr) bool
}

// directMax is the size beyond which copying takes so long that the scheduler
// should know.
const directMax = 16 << 10

// direct returns conn as a directConn, if it is one of TCP.
func direct(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw := rawSocket(tcp)
	if raw == nil {
		return conn
	}
	c := &directConn{TCPConn: tcp, raw: raw}
	c.readStep, c.writeStep = c.readSome, c.writeSome
	return c
}

// NetConn is the connection beneath.
func (c *directConn) NetConn() net.Conn { return c.TCPConn }

// Read implements net.Conn.
func (c *directConn) Read(p []byte) (int, error) {
	if len(p) == 0 || len(p) > directMax {
		return c.TCPConn.Read(p)
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	c.in, c.got, c.readErr = p, 0, nil
	err := c.raw.Read(c.readStep)
	c.in = nil
	if err == nil {
		err = c.readErr
	}
	return c.got, err
}

func (c *directConn) readSome(fd uintptr) bool {
	n, ready, err := readDirect(fd, c.in)
	if ready && err == nil && n == 0 {
		err = io.EOF
	}
	c.got, c.readErr = n, err
	return ready
}

// Write implements net.Conn.
func (c *directConn) Write(p []byte) (int, error) {
	if len(p) == 0 || len(p) > directMax {
		return c.TCPConn.Write(p)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.out, c.sent, c.writeErr = p, 0, nil
	err := c.raw.Write(c.writeStep)
	c.out = nil
	if err == nil {
		err = c.writeErr
	}
	return c.sent, err
}

func (c *directConn) writeSome(fd uintptr) bool {
	for c.sent < len(c.out) {
		n, ready, err := writeDirect(fd, c.out[c.sent:])
		c.sent += n
		if c.writeErr = err; err != nil || !ready {
			return ready
		}
	}
	return true
}
