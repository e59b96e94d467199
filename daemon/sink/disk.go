// The file system as the dir store sees it.

package sink

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// disk is what the dir store asks of a file system: a directory that nothing
// leads out of. Names are relative to it, in the system's form. Tests put a
// file system in its place that forgets what was not synced.
type disk interface {
	Create(name string) (diskFile, error) // fails when it exists
	Open(name string) (diskFile, error)   // for reading and writing, created when it does not exist
	Read(name string) (diskFile, error)   // for reading
	Lstat(name string) (fs.FileInfo, error)
	ReadDir(name string) ([]string, error)
	MkdirAll(name string) error
	CreateUnnamed(folder string) (diskFile, error) // a file to be in folder; errors.ErrUnsupported where there are none without a name
	Link(f diskFile, name string) error            // gives it a name, which must be free
	Rename(from, to string) error
	Remove(name string) error
	Chtimes(name string, mtime time.Time) error
	SyncDir(name string) error
	Close() error
}

// diskFile is an open file of a disk.
type diskFile interface {
	io.ReadWriteSeeker
	io.Closer
	Stat() (fs.FileInfo, error)
	Chmod(mode fs.FileMode) error
	Truncate(size int64) error
	Sync() error
	Allocate(size int64) error // claims room without changing the length
	TryLock() error            // errLocked when another process has it; released by Close
}

// errLocked is what TryLock says of a file in use.
var errLocked = errors.New("locked by another process")

// rootDisk is the disk over os.Root, which no name and no symbolic link leads
// out of.
type rootDisk struct{ root *os.Root }

type rootFile struct{ *os.File }

func (f rootFile) Allocate(size int64) error { return allocate(f.File, size) }

func (f rootFile) TryLock() error { return tryLock(f.File) }

// open opens a regular file. One that has become something else since it was
// looked at does not hold the caller up, as a FIFO would.
func (d rootDisk) open(name string, flag int) (diskFile, error) {
	f, err := d.root.OpenFile(name, flag|syscall.O_NONBLOCK, 0o666)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = protocol.Errorf(protocol.CodeExists, "%q exists and is not a regular file (%s)", name, info.Mode().Type())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return rootFile{f}, nil
}

func (d rootDisk) Create(name string) (diskFile, error) {
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d rootDisk) Open(name string) (diskFile, error) { return d.open(name, os.O_RDWR|os.O_CREATE) }

func (d rootDisk) Read(name string) (diskFile, error) { return d.open(name, os.O_RDONLY) }

func (d rootDisk) Lstat(name string) (fs.FileInfo, error) { return d.root.Lstat(name) }

func (d rootDisk) ReadDir(name string) ([]string, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d rootDisk) MkdirAll(name string) error { return d.root.MkdirAll(name, 0o777) }

func (d rootDisk) Rename(from, to string) error { return d.root.Rename(from, to) }

func (d rootDisk) Remove(name string) error { return d.root.Remove(name) }

func (d rootDisk) Chtimes(name string, mtime time.Time) error {
	return d.root.Chtimes(name, mtime, mtime)
}

// SyncDir makes the entries of a directory durable.
func (d rootDisk) SyncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return ignoreUnsupported(f.Sync())
}

func (d rootDisk) Close() error { return d.root.Close() }
