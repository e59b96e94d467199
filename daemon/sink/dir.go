// The store that keeps files in a directory.

package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/uuid"

	"github.com/sbcast/sbcast/protocol"
)

// Dir is the store that keeps files beneath a directory. Content goes into a
// part file beside its target, which takes the target's name at the commit:
// the name holds the old file or the new one, whole. All file operations go
// through os.Root, so no name and no symbolic link leads outside.
type Dir struct {
	path string
	root *os.Root

	mu    sync.Mutex
	taken map[string]bool // names that a transfer is writing now
}

// OpenDir opens the store in the directory path, which it makes if need be.
func OpenDir(path string) (*Dir, error) {
	if path == "" {
		return nil, errors.New("sink dir: needs a path, as in dir:/srv/files")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sink dir:%s: %w", path, err)
	}
	if err := os.MkdirAll(abs, 0o777); err != nil {
		return nil, fmt.Errorf("sink dir:%s: %w", path, err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("sink dir:%s: %w", path, err)
	}
	return &Dir{path: abs, root: root, taken: map[string]bool{}}, nil
}

func (d *Dir) String() string { return "dir:" + d.path }

// Close releases the directory.
func (d *Dir) Close() error { return d.root.Close() }

// Create implements Store. A target that exists is refused without force,
// unless it is the very file that comes: then the content is compared with it
// and nothing is written.
func (d *Dir) Create(_ context.Context, offer *protocol.Offer) (f File, err error) {
	name := filepath.FromSlash(offer.Name)
	if !d.take(name) {
		return nil, protocol.Errorf(protocol.CodeConflict, "%q is in use by another push", offer.Name)
	}
	defer func() {
		if err != nil {
			d.release(name)
		}
	}()
	target, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.createPart(name, offer)
	case err != nil:
		return nil, err
	case !target.Mode().IsRegular():
		return nil, protocol.Errorf(protocol.CodeExists, "%q exists and is not a regular file (%s)", offer.Name, target.Mode().Type())
	case offer.Force:
		return d.createPart(name, offer)
	case offer.Size >= 0 && offer.Size != target.Size():
		return nil, errDiffers(offer.Name, fmt.Sprintf("it has %d bytes, the new one %d", target.Size(), offer.Size))
	}
	existing, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	return &sameFile{dir: d, name: name, offer: offer, file: existing}, nil
}

func errDiffers(name, how string) error {
	return protocol.Errorf(protocol.CodeExists, "%q exists and is different: %s; --force replaces it", name, how)
}

func (d *Dir) take(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.taken[name] {
		return false
	}
	d.taken[name] = true
	return true
}

func (d *Dir) release(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.taken, name)
}

func (d *Dir) createPart(name string, offer *protocol.Offer) (File, error) {
	folder := filepath.Dir(name)
	if folder != "." {
		if err := d.root.MkdirAll(folder, 0o777); err != nil {
			return nil, err
		}
	}
	part := filepath.Join(folder, protocol.ReservedPrefix+uuid.NewString()+".part")
	file, err := d.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	p := &partFile{dir: d, name: name, part: part, folder: folder, offer: offer, file: file}
	if offer.Size > 0 {
		if err := allocate(file, offer.Size); err != nil {
			p.remove()
			return nil, fmt.Errorf("no room for %d bytes in %s: %w", offer.Size, d.path, err)
		}
	}
	return p, nil
}

// partFile is a file being written.
type partFile struct {
	dir    *Dir
	name   string // of the target, beneath the root
	part   string
	folder string
	offer  *protocol.Offer
	file   *os.File
	size   int64
}

func (p *partFile) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	p.size += int64(n)
	return n, err
}

// Stage sets what is to be preserved and syncs. A sync that failed is not
// tried again: the kernel may have dropped the pages and would report success.
func (p *partFile) Stage(context.Context) error {
	if err := p.file.Truncate(p.size); err != nil { // give back what was allocated too much
		return err
	}
	if p.offer.Preserve {
		if err := p.file.Chmod(fs.FileMode(p.offer.Mode) & fs.ModePerm); err != nil {
			return err
		}
		if err := p.dir.root.Chtimes(p.part, p.offer.MTime, p.offer.MTime); err != nil {
			return err
		}
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	return p.file.Close()
}

// Publish gives the part the target's name.
func (p *partFile) Publish(context.Context) (Published, error) {
	if !p.offer.Force {
		if _, err := p.dir.root.Lstat(p.name); !errors.Is(err, fs.ErrNotExist) {
			return Published{}, errDiffers(p.offer.Name, "it came while this push was under way")
		}
	}
	if err := p.dir.root.Rename(p.part, p.name); err != nil {
		return Published{}, err
	}
	defer p.dir.release(p.name)
	if err := syncDir(p.dir.root, p.folder); err != nil {
		return Published{}, fmt.Errorf("the file has its name, but the directory could not be synced: %w", err)
	}
	return Published{Location: filepath.Join(p.dir.path, p.name)}, nil
}

func (p *partFile) Discard() {
	p.remove()
	p.dir.release(p.name)
}

func (p *partFile) remove() {
	p.file.Close()
	_ = p.dir.root.Remove(p.part) // gone already when Publish had renamed it
}

// syncDir makes the entries of a directory durable.
func syncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return ignoreUnsupported(dir.Sync())
}

// sameFile compares what comes with a file that is there: the same content is
// already published, other content is refused at the first byte that differs.
type sameFile struct {
	dir   *Dir
	name  string
	offer *protocol.Offer
	file  *os.File
	buf   []byte
	size  int64
}

func (s *sameFile) Write(b []byte) (int, error) {
	if len(s.buf) < len(b) {
		s.buf = make([]byte, len(b))
	}
	have := s.buf[:len(b)]
	n, err := io.ReadFull(s.file, have)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	if !bytes.Equal(have[:n], b[:n]) || n < len(b) {
		return 0, errDiffers(s.offer.Name, fmt.Sprintf("between byte %d and %d", s.size, s.size+int64(len(b))))
	}
	s.size += int64(n)
	return n, nil
}

func (s *sameFile) Stage(context.Context) error {
	if n, err := s.file.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return errDiffers(s.offer.Name, fmt.Sprintf("it goes on after byte %d", s.size))
	}
	return nil
}

func (s *sameFile) Publish(context.Context) (Published, error) {
	s.Discard()
	return Published{Location: filepath.Join(s.dir.path, s.name), Unchanged: true}, nil
}

func (s *sameFile) Discard() {
	s.file.Close()
	s.dir.release(s.name)
}
