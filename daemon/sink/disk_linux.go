package sink

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate claims room for a file that will have size bytes, so that a full
// disk is an answer to the offer and not a surprise at the end. The length of
// the file does not change.
func allocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		case err != nil:
			return os.NewSyscallError("fallocate", err)
		}
		return nil
	}
}
