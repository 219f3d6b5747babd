//go:build !race && !386 && !s390x

package gateway

import (
	"syscall"
	"unsafe"
)

// readDirect reads from a socket that never blocks, without telling the scheduler.
// ready is false if there is nothing to be read yet. p must not be empty.
func readDirect(fd uintptr, p []byte) (n int, ready bool, err error) {
	return socketCall(syscall.SYS_RECVFROM, fd, p)
}

// writeDirect is readDirect's like; ready is false if there is no room.
func writeDirect(fd uintptr, p []byte) (n int, ready bool, err error) {
	return socketCall(syscall.SYS_SENDTO, fd, p)
}

// socketCall makes one of the calls for sockets: read and write would ask what kind of
// file it is first.
func socketCall(call, fd uintptr, p []byte) (int, bool, error) {
	for {
		n, _, errno := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0) //nolint:gosec // a system call takes addresses
		switch errno {
		case 0:
			return int(n), true, nil
		case syscall.EAGAIN:
			return 0, false, nil
		case syscall.EINTR:
		default:
			return 0, true, errno
		}
	}
}
