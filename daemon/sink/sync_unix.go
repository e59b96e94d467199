//go:build unix

package sink

import (
	"errors"
	"syscall"
)

// ignoreUnsupported passes over the error of file systems that cannot sync a
// directory, where there is nothing to be done.
func ignoreUnsupported(err error) error {
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}
