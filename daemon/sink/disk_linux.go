// What a disk does by Linux's own calls: claiming room, files without a name.

package sink

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// allocate claims room for a file that will have size bytes, so that a full
// disk is an answer to the offer and not a surprise at the end. The length of
// the file does not change.
func allocate(f *os.File, size int64) error {
	fd := descriptor(f)
	defer runtime.KeepAlive(f)
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
		return roomInMemory(fd, &fs, size)
	}
	for {
		err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, size)
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

// roomInMemory is [allocate] for a tmpfs. To claim room there is to take the
// memory, page by page, before the first byte comes, 80 ms for a GiB (time
// fallocate -l 1G /dev/shm/f). So it only looks whether there is room: when
// others take it meanwhile, the write that finds none fails.
func roomInMemory(fd int, fs *unix.Statfs_t, size int64) error {
	if fs.Blocks == 0 {
		return nil // there is no limit
	}
	var has unix.Stat_t
	if err := unix.Fstat(fd, &has); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if more := size - has.Blocks*512; more > 0 && uint64(more) > fs.Bavail*uint64(fs.Bsize) {
		return fmt.Errorf("%w: %d bytes are free", unix.ENOSPC, fs.Bavail*uint64(fs.Bsize))
	}
	return nil
}

// CreateUnnamed makes a file with O_TMPFILE, which most local file systems have.
func (d rootDisk) CreateUnnamed(folder string) (diskFile, error) {
	f, err := d.root.OpenFile(folder, os.O_RDWR|unix.O_TMPFILE, 0o666)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) { // the flag is not known
		return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	return rootFile{f}, nil
}

// Link gives a file of CreateUnnamed its name. Older kernels want a privilege
// for that, but not of who goes by /proc (open(2), O_TMPFILE).
func (d rootDisk) Link(f diskFile, name string) error {
	folder, err := d.root.OpenFile(filepath.Dir(name), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer folder.Close()
	fd := descriptor(f.(rootFile).File)
	to, base := descriptor(folder), filepath.Base(name)
	err = unix.Linkat(fd, "", to, base, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), to, base, unix.AT_SYMLINK_FOLLOW)
	}
	runtime.KeepAlive(f)
	if err != nil {
		return &os.PathError{Op: "link", Path: name, Err: err}
	}
	return nil
}

// descriptor is f's, which stays open: [os.File.Fd] would set its mode anew.
func descriptor(f *os.File) (fd int) {
	fd = -1
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(d uintptr) { fd = int(d) })
	}
	return fd
}
