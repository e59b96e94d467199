//go:build unix

package sink

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ignoreUnsupported passes over the error of file systems that cannot sync a
// directory, where there is nothing to be done.
func ignoreUnsupported(err error) error {
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}

func tryLock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return errLocked
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS):
			return nil // a file system without locks
		case err != nil:
			return os.NewSyscallError("flock", err)
		}
		return nil
	}
}
