package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// Both ends of the measurement, the clients and the upstream, talk to the kernel
// themselves, each in one thread: they share the processors with what is
// measured, so they must cost as little as they can.

// poller waits for sockets. It is edge-triggered: whoever is told reads and
// writes until there is nothing more to do.
type poller struct {
	fd     int
	events [256]syscall.EpollEvent
}

// edges are what a socket is watched for. EPOLLET is bit 31, which the package
// syscall gives as a negative number.
const edges = syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | 1<<31

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &poller{fd: fd}, nil
}

func (p *poller) close() { _ = syscall.Close(p.fd) } // nothing to be done about it

// add watches fd; events carry key.
func (p *poller) add(fd, key int, events uint32) error {
	return syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: events, Fd: int32(key)})
}

// sysEpollPwait2 is the same number on every architecture; it takes nanoseconds,
// where epoll_wait takes milliseconds.
const sysEpollPwait2 = 441

// wait returns the sockets that something has happened to within d; d < 0 is
// without a limit.
func (p *poller) wait(d time.Duration) ([]syscall.EpollEvent, error) {
	var limit *syscall.Timespec
	if d >= 0 {
		t := syscall.NsecToTimespec(int64(d))
		limit = &t
	}
	events, until := unsafe.Pointer(&p.events[0]), unsafe.Pointer(limit) //nolint:gosec // a system call takes addresses
	n, _, errno := syscall.Syscall6(sysEpollPwait2, uintptr(p.fd), uintptr(events), uintptr(len(p.events)), uintptr(until), 0, 0)
	switch errno {
	case 0:
		return p.events[:n], nil
	case syscall.EINTR:
		return nil, nil
	}
	return nil, fmt.Errorf("epoll: %w", errno)
}

// dialRaw returns a connected socket that does not block.
func dialRaw(addr string) (int, error) {
	at, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return 0, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	to := &syscall.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}
	err = errors.Join(syscall.Connect(fd, to), syscall.SetNonblock(fd, true),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1))
	if err != nil {
		return 0, errors.Join(fmt.Errorf("connecting to %s: %w", addr, err), syscall.Close(fd))
	}
	return fd, nil
}

// again reports whether err only says that there is nothing to do now.
func again(err error) bool { return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) }
