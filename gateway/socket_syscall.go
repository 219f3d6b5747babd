//go:build unix && (!linux || race || 386 || s390x)

package gateway

import "syscall"

// As socket_linux.go, by calls that the race detector knows: what is done before a
// write happens before whatever a read makes of it.

func readDirect(fd uintptr, p []byte) (n int, ready bool, err error) {
	return socketCall(syscall.Read, fd, p)
}

func writeDirect(fd uintptr, p []byte) (n int, ready bool, err error) {
	return socketCall(syscall.Write, fd, p)
}

func socketCall(call func(int, []byte) (int, error), fd uintptr, p []byte) (int, bool, error) {
	for {
		n, err := call(int(fd), p)
		switch err {
		case nil:
			return n, true, nil
		case syscall.EAGAIN:
			return 0, false, nil
		case syscall.EINTR:
		default:
			return 0, true, err
		}
	}
}
