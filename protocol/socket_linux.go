// Reading to several places with one system call.

package protocol

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vectorReader returns a function that reads from conn what has come, waiting
// for some as Read does, to parts, each full before the next one: 1,024 of them
// at most (readv(2), IOV_MAX). It returns nil for what is not plain TCP. It
// allocates nothing, unlike [unix.Readv] for so many parts.
func vectorReader(conn net.Conn) func(parts [][]byte) (int, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	var vecs []unix.Iovec
	var n int
	var errno syscall.Errno
	try := func(fd uintptr) (done bool) {
		for {
			var r uintptr
			r, _, errno = unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(vecs))), uintptr(len(vecs)))
			n = int(r)
			if errno != unix.EINTR {
				return errno != unix.EAGAIN
			}
		}
	}
	return func(parts [][]byte) (int, error) {
		vecs = vecs[:0]
		for _, part := range parts {
			v := unix.Iovec{Base: unsafe.SliceData(part)}
			v.SetLen(len(part))
			vecs = append(vecs, v)
		}
		err := raw.Read(try)
		clear(vecs) // buffers may go
		switch {
		case err != nil:
			return 0, err
		case errno != 0:
			return 0, &net.OpError{Op: "read", Net: "tcp", Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: os.NewSyscallError("readv", errno)}
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
