// Reading a file that is in memory already, as most are that are pushed right
// after they were made, or for a second time.
//
// Like reads from a socket (protocol/socket_linux.go) such reads are made
// without telling Go's scheduler, whose monitor else takes the core from each of
// them. That holds only for reads that do not wait for a disk: preadv2(2) with
// RWF_NOWAIT, or anything on a tmpfs, which knows no such flag (and waits only
// for what was swapped out). What is not in memory is read as ever.

package client

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cachedFile reads a file from where it stands.
type cachedFile struct {
	*os.File
	raw   syscall.RawConn
	flags uintptr // of preadv2

	// Of the call under way; the function is made once, for it would be
	// allocated for each call.
	vec   unix.Iovec
	n     int
	errno syscall.Errno
	try   func(fd uintptr) bool
}

// readCached returns a reader of f, which closes f: f itself where nothing is
// to be won.
func readCached(f *os.File) io.ReadCloser {
	raw, err := f.SyscallConn()
	if err != nil {
		return f
	}
	c := &cachedFile{File: f, raw: raw, flags: unix.RWF_NOWAIT}
	var fs unix.Statfs_t
	_ = raw.Control(func(fd uintptr) { err = unix.Fstatfs(int(fd), &fs) })
	if err == nil && fs.Type == unix.TMPFS_MAGIC {
		c.flags = 0
	}
	c.try = func(fd uintptr) bool {
		const here = ^uintptr(0) // the offset: the file's own, which moves on
		n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, fd, uintptr(unsafe.Pointer(&c.vec)), 1, here, here, c.flags)
		c.n, c.errno = int(n), errno
		return true
	}
	return c
}

// Read reads what is in memory, or else whatever comes.
func (c *cachedFile) Read(b []byte) (int, error) {
	if c.raw == nil || len(b) == 0 {
		return c.File.Read(b)
	}
	c.vec = unix.Iovec{Base: unsafe.SliceData(b)}
	c.vec.SetLen(len(b))
	err := c.raw.Read(c.try)
	c.vec = unix.Iovec{}
	switch {
	case err == nil && c.errno == 0 && c.n > 0:
		return c.n, nil
	case err != nil, c.errno != 0 && c.errno != unix.EAGAIN && c.errno != unix.EINTR:
		c.raw = nil // this file system does not know how; or an error, which the file knows better
	}
	return c.File.Read(b) // the end is found here too
}
