// The store that keeps files in a directory.

package sink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// DefaultPartTTL is how long an unfinished file waits for its push to be
// repeated.
const DefaultPartTTL = 7 * 24 * time.Hour

// DirOptions say how a Dir behaves. The zero value is good.
type DirOptions struct {
	PartTTL time.Duration // after which unfinished files are deleted; 0: DefaultPartTTL
	Fsync   Fsync         // when to sync; "": FsyncAlways
}

// Dir is the store that keeps files beneath a directory. Content goes into a
// part file beside its target, which takes the target's name at the commit:
// the name holds the old file or the new one, whole. A journal of the part and
// a manifest of what was published are kept in a state directory, so that a
// push that was cut off goes on where it was and one that is repeated costs a
// round trip. All file operations go through os.Root, so no name and no
// symbolic link leads outside.
type Dir struct {
	path string
	disk disk
	same func(a, b fs.FileInfo) bool // os.SameFile

	ttl   time.Duration
	fsync Fsync
	syncs *dirSyncs

	unnamed bool // there can be files without a name

	mu      sync.Mutex
	cleaned time.Time
	taken   map[string]bool // names that a transfer is writing now
	suspect map[string]bool // names whose part could not be synced, and perhaps not removed
}

// OpenDir opens the store in the directory path, which it makes if need be,
// and deletes what is older than the options say of its own unfinished files.
func OpenDir(path string, opts DirOptions) (*Dir, error) {
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
	d, err := newDir(abs, rootDisk{root}, os.SameFile, opts)
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("sink dir:%s: %w", path, err)
	}
	return d, nil
}

func newDir(path string, on disk, same func(a, b fs.FileInfo) bool, opts DirOptions) (*Dir, error) {
	if opts.PartTTL == 0 {
		opts.PartTTL = DefaultPartTTL
	}
	if opts.Fsync == "" {
		opts.Fsync = FsyncAlways
	}
	d := &Dir{
		path: path, disk: on, same: same, ttl: opts.PartTTL, fsync: opts.Fsync, syncs: newDirSyncs(on),
		taken: map[string]bool{}, suspect: map[string]bool{},
	}
	if err := on.MkdirAll(stateDir); err != nil {
		return nil, err
	}
	d.unnamed = d.canUnnamed()
	return d, d.cleanNow()
}

// canUnnamed tries whether a file can be made without a name, and named.
func (d *Dir) canUnnamed() bool {
	f, err := d.disk.CreateUnnamed(stateDir)
	if err != nil {
		return false
	}
	defer f.Close()
	name := filepath.Join(stateDir, fmt.Sprintf("%016x%s", rand.Uint64(), journalExt)) // what is left of it would be cleaned
	err = d.disk.Link(f, name)
	_ = d.disk.Remove(name)
	return err == nil
}

// cleanEvery is how often a daemon that runs for long looks for what is stale.
const cleanEvery = time.Hour

// cleanNow cleans, unless that was done lately.
func (d *Dir) cleanNow() error {
	d.mu.Lock()
	due := time.Since(d.cleaned) >= cleanEvery
	if due {
		d.cleaned = time.Now()
	}
	d.mu.Unlock()
	if !due {
		return nil
	}
	return d.clean(d.ttl)
}

func (d *Dir) String() string { return "dir:" + d.path }

// Close releases the directory.
func (d *Dir) Close() error { return d.disk.Close() }

// Create implements Store. A target that exists is refused without force,
// unless it is the very file that comes: what was published of the same source
// is not asked for again, and what came there otherwise is compared with what
// comes, and nothing is written.
func (d *Dir) Create(ctx context.Context, r Request) (f File, have Have, err error) {
	_ = d.cleanNow() // what cannot be cleaned does not hurt this file
	name := filepath.FromSlash(string(r.Name))
	if !d.take(name) {
		return nil, have, protocol.Errorf(protocol.CodeConflict, "%q is in use by another push", r.Name)
	}
	defer func() {
		if err != nil {
			d.release(name)
		}
	}()
	small := r.Size >= 0 && r.Size <= smallSize
	target, err := d.disk.Lstat(name)
	switch {
	case small && errors.Is(err, fs.ErrNotExist):
		return &smallFile{dir: d, name: name, req: r}, have, nil
	case errors.Is(err, fs.ErrNotExist):
		return d.openPart(ctx, name, r)
	case err != nil:
		return nil, have, err
	case !target.Mode().IsRegular():
		return nil, have, protocol.Errorf(protocol.CodeExists, "%q exists and is not a regular file (%s)", r.Name, target.Mode().Type())
	}
	if small && r.Force {
		return &smallFile{dir: d, name: name, req: r, target: target}, have, nil
	}
	if m, ok := d.readManifest(name, target); ok && !r.changes(target) && (!m.Unsynced || d.fsync == FsyncNever) && m.Source == sourceKey(r.Offer) && m.Digest.Algorithm() == r.Digest {
		return &publishedFile{dir: d, name: name}, Have{Offset: m.Size, Published: true, Digest: m.Digest}, nil
	}
	if r.Force {
		return d.openPart(ctx, name, r)
	}
	if r.Size >= 0 && r.Size != target.Size() {
		return nil, have, errDiffers(r.Name, fmt.Sprintf("it has %d bytes, the new one %d", target.Size(), r.Size))
	}
	same, err := d.openSame(name, r)
	if err != nil {
		return nil, have, err
	}
	return same, have, nil
}

// changes reports whether r is to change more of target than its content.
func (r Request) changes(target fs.FileInfo) bool {
	return r.Force && r.Preserve && (!target.ModTime().Equal(r.MTime) || target.Mode().Perm() != fs.FileMode(r.Mode).Perm())
}

func errDiffers(name protocol.Name, how string) error {
	return protocol.Errorf(protocol.CodeExists, "%q exists and is different: %s; --force replaces it", name, how)
}

// take makes name this transfer's, when it is free.
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

// distrust keeps the part of name from being resumed: what is read back of it
// comes from the cache, and the disk does not have it.
func (d *Dir) distrust(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.suspect[name] = true
}

func (d *Dir) trusted(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.suspect[name]
}

// trust is called when the part of name was begun anew.
func (d *Dir) trust(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.suspect, name)
}

// syncEntry makes a name durable that was changed after since.
func (d *Dir) syncEntry(name string, since dirMark) error {
	if d.fsync == FsyncNever {
		return nil
	}
	return d.syncs.path(filepath.Dir(name), since)
}

func (d *Dir) location(name string) string { return filepath.Join(d.path, name) }

// publishedFile is one that is there already, known by its manifest.
type publishedFile struct {
	dir  *Dir
	name string
}

func (p *publishedFile) Write([]byte) (int, error) {
	return 0, protocol.Errorf(protocol.CodeInternal, "content for a file that is published already")
}

func (p *publishedFile) Stage(context.Context, protocol.Digest) error { return nil }

// Publish syncs again, in case that is where an earlier push failed.
func (p *publishedFile) Publish(context.Context) (Published, error) {
	if err := p.dir.syncEntry(p.name, p.dir.syncs.mark()); err != nil {
		return Published{}, err
	}
	p.dir.release(p.name)
	return Published{Location: p.dir.location(p.name), Unchanged: true}, nil
}

func (p *publishedFile) Discard(bool) { p.dir.release(p.name) }
