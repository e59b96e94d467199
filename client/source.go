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
	"time"
)

// Source is content to push.
type Source interface {
	// Name is the file name that the readers give it by default.
	Name() string
	// Stat says what is known before the content is read.
	Stat() (Stat, error)
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

type file struct{ path string }

// File is the regular file at path. It must exist.
func File(path string) (Source, error) {
	f := file{path}
	_, err := f.Stat()
	return f, err
}

func (f file) Name() string { return filepath.Base(f.path) }

func (f file) Stat() (Stat, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return Stat{}, &InputError{withoutOp(err), errors.Is(err, fs.ErrNotExist)}
	}
	if info.IsDir() {
		return Stat{}, &InputError{fmt.Errorf("%s is a directory: push the files in it, or pipe a tar of it to `sbcast push - HOST --name NAME.tar`", f.path), true}
	}
	if !info.Mode().IsRegular() {
		return Stat{}, &InputError{fmt.Errorf("%s is not a regular file: pipe it to `sbcast push - HOST --name NAME`", f.path), true}
	}
	return Stat{Size: info.Size(), Mode: info.Mode().Perm(), MTime: info.ModTime()}, nil
}

func (f file) Open(context.Context) (io.ReadCloser, error) {
	r, err := os.Open(f.path)
	if err != nil {
		return nil, &InputError{withoutOp(err), errors.Is(err, fs.ErrNotExist)}
	}
	return r, nil
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
}

// Stream is content of unknown size that can be read once, such as standard input.
func Stream(r io.Reader, name string) Source { return stream{r, name} }

func (s stream) Name() string { return s.name }

func (s stream) Stat() (Stat, error) { return Stat{Size: -1, MTime: time.Now()}, nil }

func (s stream) Open(context.Context) (io.ReadCloser, error) { return io.NopCloser(s.r), nil }
