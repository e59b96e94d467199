//go:build linux

// What moves bytes to a socket, with a copy and without.

package main

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is where content is kept: a file that exists in memory only, mapped.
type memory struct {
	fd     int
	bytes  []byte
	pr, pw int // a pipe, for splice
}

func newMemory(size int) (*memory, error) {
	fd, err := unix.MemfdCreate("copybench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	_, err = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, piece)
	return &memory{fd: fd, bytes: b, pr: p[0], pw: p[1]}, err
}

func write(conn *net.TCPConn, mem *memory, offset, n int) error {
	_, err := conn.Write(mem.bytes[offset : offset+n])
	return err
}

// splice hands the pages over: the socket refers to them until they are read.
func splice(conn *net.TCPConn, mem *memory, offset, n int) error {
	for b := mem.bytes[offset : offset+n]; len(b) > 0; {
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		k, _, errno := unix.Syscall6(unix.SYS_VMSPLICE, uintptr(mem.pw), uintptr(unsafe.Pointer(&v)), 1, unix.SPLICE_F_NONBLOCK, 0, 0)
		if errno != 0 {
			return errno
		}
		b = b[k:]
		err := sendAll(conn, int(k), func(fd, left int) (int, error) {
			m, err := unix.Splice(mem.pr, nil, fd, nil, left, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MORE)
			return int(m), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func sendfile(conn *net.TCPConn, mem *memory, offset, n int) error {
	at := int64(offset)
	return sendAll(conn, n, func(fd, left int) (int, error) { return unix.Sendfile(fd, mem.fd, &at, left) })
}

// sendAll calls send, which does not wait, until it has sent n bytes.
func sendAll(conn *net.TCPConn, n int, send func(fd, left int) (int, error)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		for n > 0 {
			var m int
			m, failed = send(int(fd), n)
			if failed == syscall.EAGAIN { //nolint:errorlint // a bare errno
				failed = nil
				return false
			}
			if failed != nil {
				return true
			}
			n -= m
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}
