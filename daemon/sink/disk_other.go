//go:build !linux

package sink

import (
	"errors"
	"os"
)

// allocate claims no room where the system has no portable call for it.
func allocate(*os.File, int64) error { return nil }

// CreateUnnamed says that there are no files without a name.
func (rootDisk) CreateUnnamed(string) (diskFile, error) { return nil, errors.ErrUnsupported }

// Link is not called.
func (rootDisk) Link(diskFile, string) error { return errors.ErrUnsupported }
