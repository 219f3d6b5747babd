//go:build !unix

package gateway

import (
	"errors"
	"net"
	"syscall"
)

// rawSocket is not available here: connections are used through net alone, and
// one that died while it was idle is found out by the first write or read.
func rawSocket(*net.TCPConn) syscall.RawConn { return nil }

func direct(conn net.Conn) net.Conn { return conn }

func quiet(syscall.RawConn) bool { return true }

func (c *upstreamConn) exchange(uintptr) bool { return true }

func awaitReadable(syscall.RawConn) error { return errors.ErrUnsupported }

func readable(syscall.RawConn) bool { return false }
