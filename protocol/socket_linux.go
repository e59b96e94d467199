// Socket: system calls on a plain TCP connection, for many parts at once.
//
// They are made without telling Go's scheduler. A call on a non-blocking
// socket takes as long as copying, 0.1 ms for 1 MiB; but with a process on one
// core the runtime's monitor takes that core from every call of more than
// 20 us, gives it back, and does not sleep meanwhile. That was a fifth of the
// CPU time of a broadcaster with four readers (docs/performance.md).

package protocol

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vectors is what the system calls want of parts. It allocates nothing in
// steady state, unlike [unix.Readv] for so many.
type vectors []unix.Iovec

func (v *vectors) set(parts [][]byte) {
	*v = (*v)[:0]
	for _, part := range parts {
		iov := unix.Iovec{Base: unsafe.SliceData(part)}
		iov.SetLen(len(part))
		*v = append(*v, iov)
	}
}

// call makes system call nr with v on fd, again when a signal came.
func (v vectors) call(nr, fd, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(nr, fd, uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)), flags, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func socketError(op, call string, conn net.Conn, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: os.NewSyscallError(call, errno)}
}

// rawConn is the connection under conn, if it is plain TCP.
func rawConn(conn net.Conn) (syscall.RawConn, bool) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, false
	}
	raw, err := tcp.SyscallConn()
	return raw, err == nil
}

// vectorReader returns a function that reads from conn what has come, waiting
// for some as Read does, to parts, each full before the next one: 1,024 of them
// at most (readv(2), IOV_MAX). It returns nil for what is not plain TCP.
func vectorReader(conn net.Conn) func(parts [][]byte) (int, error) {
	raw, ok := rawConn(conn)
	if !ok {
		return nil
	}
	var vecs vectors
	var n int
	var errno syscall.Errno
	try := func(fd uintptr) (done bool) {
		n, errno = vecs.call(unix.SYS_READV, fd, 0)
		return errno != unix.EAGAIN
	}
	return func(parts [][]byte) (int, error) {
		vecs.set(parts)
		err := raw.Read(try)
		clear(vecs) // buffers may go
		switch {
		case err != nil:
			return 0, err
		case errno != 0:
			return 0, socketError("read", "readv", conn, errno)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// socketOutput writes many parts with one system call, and lasting ones by
// reference.
type socketOutput struct {
	scratch
	conn net.Conn
	raw  syscall.RawConn
	try  func(fd uintptr) (done bool) // made once

	vecs   vectors // reused; rest is the end of it
	rest   vectors // not written, nor in the pipe
	unsent int
	wrote  int // by the flush under way
	call   string
	errno  syscall.Errno

	lasting headerPage
	pipe    *splicePipe // while lasting parts are under way
}

func newOutput(conn net.Conn) output {
	raw, ok := rawConn(conn)
	if !ok {
		return &flatOutput{conn: conn}
	}
	o := &socketOutput{conn: conn, raw: raw}
	o.try = o.write
	return o
}

func (o *socketOutput) headers(n int, lasting bool) ([]byte, bool) {
	if lasting {
		if h := o.lasting.take(n); h != nil {
			return h, true
		}
	}
	return o.scratch.headers(n, false)
}

func (o *socketOutput) load(parts [][]byte, lasting bool) {
	o.vecs.set(parts)
	o.rest, o.unsent = o.vecs, 0
	for _, part := range parts {
		o.unsent += len(part)
	}
	if lasting {
		o.pipe = takePipe()
	}
}

func (o *socketOutput) flush() (int, error) {
	o.wrote, o.errno = 0, 0
	err := o.raw.Write(o.try)
	var op *net.OpError
	if errors.As(err, &op) {
		op.Op = "write" // of a raw one nobody wants to know
	}
	o.unsent -= o.wrote
	if o.unsent == 0 {
		o.abandon()
	}
	if err == nil && o.errno != 0 {
		err = socketError("write", o.call, o.conn, o.errno)
	}
	return o.wrote, err
}

func (o *socketOutput) left() int { return o.unsent }

func (o *socketOutput) abandon() {
	clear(o.vecs)
	o.rest, o.unsent = nil, 0
	if o.pipe != nil {
		o.pipe.giveBack()
		o.pipe = nil
	}
}

// write writes until all is written or the socket takes no more.
func (o *socketOutput) write(fd uintptr) (done bool) {
	for o.wrote < o.unsent {
		var n int
		if o.pipe != nil {
			n = o.splice(fd)
		} else {
			o.call = "writev"
			if n, o.errno = o.rest.call(unix.SYS_WRITEV, fd, 0); o.errno == 0 {
				o.rest.advance(n)
			}
		}
		if o.errno != 0 {
			return o.errno != unix.EAGAIN
		}
		o.wrote += n
	}
	return true
}

// splice moves parts to the pipe when that is empty, and then from there.
func (o *socketOutput) splice(fd uintptr) (n int) {
	if o.pipe.holds == 0 {
		o.call = "vmsplice"
		if n, o.errno = o.rest.call(unix.SYS_VMSPLICE, uintptr(o.pipe.in), unix.SPLICE_F_NONBLOCK); o.errno != 0 {
			return 0
		}
		o.pipe.holds = n
		o.rest.advance(n)
	}
	o.call = "splice"
	n, o.errno = o.pipe.send(fd, o.wrote+o.pipe.holds < o.unsent)
	return n
}

// advance drops the first n bytes.
func (v *vectors) advance(n int) {
	for n > 0 {
		first := &(*v)[0]
		size := int(first.Len)
		if size > n {
			first.Base = (*byte)(unsafe.Add(unsafe.Pointer(first.Base), n))
			first.SetLen(size - n)
			return
		}
		n -= size
		*v = (*v)[1:]
	}
}
