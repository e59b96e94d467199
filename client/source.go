// Sources: where the content of a push comes from.

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// Source is content to push.
type Source interface {
	// Name is the file name that the readers give it by default.
	Name() string
	// Stat says what is known before the content is read.
	Stat() (Stat, error)
	// Fingerprint is equal for sources with equal content, as far as can be
	// told without reading it all: readers resume, and skip what they have, by
	// it. It is "" for content that can be read once.
	Fingerprint() (string, error)
	// Open returns the content from the beginning. The caller closes it.
	Open(ctx context.Context) (io.ReadCloser, error)
}

// Stat is what is known of a source before it is read.
type Stat struct {
	Size  int64       // bytes, -1 when unknown
	Mode  fs.FileMode // permission bits
	MTime time.Time
}

// InputError says that the source cannot be read: the user's side, not a reader's.
type InputError struct {
	Err     error
	Missing bool // it is not there, or not a file
}

func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

type file struct{ path, name string }

// File is the regular file at path, under the last part of it. It must exist.
func File(path string) (Source, error) { return FileAs(path, filepath.Base(path)) }

// FileAs is the regular file at path, under name. It must exist.
func FileAs(path, name string) (Source, error) {
	f := file{path, name}
	_, err := f.Stat()
	return f, err
}

func (f file) Name() string { return f.name }

func (f file) Stat() (Stat, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return Stat{}, &InputError{withoutOp(err), errors.Is(err, fs.ErrNotExist)}
	}
	if info.IsDir() {
		return Stat{}, &InputError{fmt.Errorf("%s is a directory: push the files in it, `find %s -type f | sbcast push --relative --files-from - HOST`, or pipe a tar of it to `sbcast push - HOST --name NAME.tar`", f.path, f.path), true}
	}
	if !info.Mode().IsRegular() {
		return Stat{}, &InputError{fmt.Errorf("%s is not a regular file: pipe it to `sbcast push - HOST --name NAME`", f.path), true}
	}
	return Stat{Size: info.Size(), Mode: info.Mode().Perm(), MTime: info.ModTime()}, nil
}

func (f file) Open(context.Context) (io.ReadCloser, error) {
	r, err := f.open()
	if err != nil {
		return nil, err
	}
	return readCached(r), nil
}

// open opens the file, if it is still one: a FIFO would be waited for.
func (f file) open() (*os.File, error) {
	r, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &InputError{withoutOp(err), errors.Is(err, fs.ErrNotExist)}
	}
	if info, err := r.Stat(); err != nil || !info.Mode().IsRegular() {
		r.Close()
		return nil, &InputError{fmt.Errorf("%s is not a regular file any more", f.path), true}
	}
	return r, nil
}

// sampleSize is how much of a file's beginning and end its fingerprint covers.
const sampleSize = 64 << 10

// Fingerprint covers size, modification time, and the first and last 64 KiB.
func (f file) Fingerprint() (string, error) {
	r, err := f.open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return "", &InputError{Err: withoutOp(err)}
	}
	h := protocol.NewHasher(protocol.DigestXXH128)
	fmt.Fprintf(h, "sbcast 1 %d %d\n", info.Size(), info.ModTime().UnixNano())
	tail := max(0, info.Size()-sampleSize)
	_, err = io.Copy(h, io.NewSectionReader(r, 0, sampleSize))
	if err == nil {
		_, err = io.Copy(h, io.NewSectionReader(r, tail, sampleSize))
	}
	if err != nil {
		return "", &InputError{Err: fmt.Errorf("read %s: %w", f.path, withoutOp(err))}
	}
	return string(h.Digest()), nil
}

// withoutOp says "PATH: no such file or directory" where the system says
// "stat PATH: ...": the user asked for no stat.
func withoutOp(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return fmt.Errorf("%s: %w", pathErr.Path, pathErr.Err)
	}
	return err
}

type stream struct {
	r    io.Reader
	name string
	size int64
}

// Stream is content of unknown size that can be read once, such as standard input.
func Stream(r io.Reader, name string) Source { return SizedStream(r, name, -1) }

// SizedStream is content of size bytes, -1 when that is not known, that can be
// read once, such as the body of a request.
func SizedStream(r io.Reader, name string, size int64) Source { return stream{r, name, size} }

func (s stream) Name() string { return s.name }

func (s stream) Stat() (Stat, error) { return Stat{Size: s.size, MTime: time.Now()}, nil }

func (s stream) Fingerprint() (string, error) { return "", nil }

func (s stream) Open(context.Context) (io.ReadCloser, error) { return io.NopCloser(s.r), nil }

// readOnce reports whether src cannot be read again. Such a source may keep
// whoever reads it waiting.
func readOnce(src Source) bool {
	_, once := src.(stream)
	return once
}
