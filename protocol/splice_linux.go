// Splice: sending by reference. A broadcaster writes the same chunk to each of
// its readers; with write(2) the kernel copies it for every one of them. By
// vmsplice(2) and splice(2) the sockets refer to the chunk's pages instead,
// which nobody may change until the readers have taken them. A chunk is kept
// until it is acknowledged anyway; of one that never is our memory gets fresh
// pages, and sockets keep the old ones (chunkmemory_linux.go).
//
// A peer that acknowledges what it has not read sees what comes to be in the
// pages later: other chunks. Only connections without TLS are written so, and
// on those nothing is secret.

package protocol

import (
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// mostPipes bounds the pipes of a process: what finds none is copied. Users
	// without privileges may have 64 of this size (pipe(7), pipe-user-pages-soft).
	mostPipes = 16
	// pipeRetry is how long none is made after one could not be.
	pipeRetry = time.Second
	// pipeSize is the most that pipes may have by default, 256 pages.
	pipeSize = 1 << 20
)

// splicePipe is what pages pass on their way to a socket. It belongs to one
// output while there is something in it.
type splicePipe struct {
	in, out int // file descriptors
	holds   int // bytes
}

var pipes struct {
	sync.Mutex
	idle []*splicePipe
	made int
	none bool      // a filter of system calls is in the way
	next time.Time // when one may be made again
}

// takePipe returns an empty pipe, or nil.
func takePipe() *splicePipe {
	pipes.Lock()
	defer pipes.Unlock()
	if n := len(pipes.idle); n > 0 {
		p := pipes.idle[n-1]
		pipes.idle = pipes.idle[:n-1]
		return p
	}
	if pipes.none || pipes.made >= mostPipes || time.Now().Before(pipes.next) {
		return nil
	}
	p, err := newSplicePipe()
	if err != nil {
		pipes.next = time.Now().Add(pipeRetry)
		return nil
	}
	if pipes.made == 0 && p.probe() != nil {
		pipes.none = true
		return nil
	}
	pipes.made++
	return p
}

func newSplicePipe() (*splicePipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	p := &splicePipe{out: fds[0], in: fds[1]}
	if _, err := unix.FcntlInt(uintptr(p.in), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// probe finds out whether a filter of system calls stands in the way, before
// anything depends on it.
func (p *splicePipe) probe() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		defer func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }()
		var v vectors
		v.set([][]byte{{0}})
		var errno syscall.Errno
		if p.holds, errno = v.call(unix.SYS_VMSPLICE, uintptr(p.in), unix.SPLICE_F_NONBLOCK); errno == 0 {
			_, errno = p.send(uintptr(fds[0]), false)
		}
		if errno != 0 {
			err = errno
		}
	}
	if err != nil {
		p.close()
	}
	return err
}

// send moves what the pipe holds, or some of it, to a socket. More says that
// something follows at once.
func (p *splicePipe) send(fd uintptr, more bool) (int, syscall.Errno) {
	flags := uintptr(unix.SPLICE_F_NONBLOCK)
	if more {
		flags |= unix.SPLICE_F_MORE
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(p.out), 0, fd, 0, uintptr(p.holds), flags)
		switch errno {
		case 0:
			p.holds -= int(n)
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// giveBack lets others have the pipe, if it is empty.
func (p *splicePipe) giveBack() {
	pipes.Lock()
	defer pipes.Unlock()
	if p.holds == 0 {
		pipes.idle = append(pipes.idle, p)
		return
	}
	p.close()
	pipes.made--
}

func (p *splicePipe) close() { _, _ = unix.Close(p.in), unix.Close(p.out) }

// headerPage gives out memory for headers that sockets may refer to for as
// long as they like: it is used once.
type headerPage struct {
	page *region
	rest []byte
}

const headerPageSize = 4 << 10

// take returns n bytes, or nil.
func (h *headerPage) take(n int) []byte {
	if n > headerPageSize {
		return nil
	}
	if len(h.rest) < n {
		if h.page = newRegion(headerPageSize); h.page == nil {
			return nil
		}
		h.rest = h.page.bytes
	}
	b := h.rest[:n]
	h.rest = h.rest[n:]
	return b
}
