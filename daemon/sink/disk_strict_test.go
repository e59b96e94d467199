// A file system in memory that keeps no more than a real one must.

package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// strictPage is the unit in which content reaches the medium or does not.
const strictPage = 4096

// strictFS is a disk that promises what POSIX does and not a bit more: the
// content of a file is durable up to its last Sync that succeeded, an entry of
// a directory after the SyncDir of that directory. It records every operation
// and can fail any of them. After crash there is another one, as the disk may
// be found when the power is back.
type strictFS struct {
	// Set before use.
	fail  func(op strictOp) error // why op is to fail; nil: it does not
	limit int                     // operations after which one panics, as something goes in circles; 0: none
	watch bool                    // keep a moment after each change
	lent  bool                    // what is written never changes later: no need to copy it

	mu      sync.Mutex
	root    *strictNode
	pending []strictChange // changes of directories that are not durable, oldest first
	clock   time.Time
	ops     []strictOp
	open    int // files that are
	puts    int // of ops: those of put, which come before a store's
	note    any // what is known at this moment, kept with it
	moments []*strictFS
	resyncs int // of files whose Sync had failed
}

// strictOp is one operation.
type strictOp struct {
	Index  int // of all operations
	Kind   string
	Name   string
	Offset int64 // of a write or read
	Size   int
}

func (o strictOp) String() string { return fmt.Sprintf("%d %s %s", o.Index, o.Kind, o.Name) }

// strictShort is the failure of a write that stores half of what it is given.
// Its error may be nil.
type strictShort struct{ error }

// strictNode is a file or directory.
type strictNode struct {
	dir bool

	// Of a directory.
	names, durable map[string]*strictNode

	// Of a file: as it is read, and as the medium has it.
	cache, medium strictState
	dirty         map[int]bool // pages that the next Sync writes
	lockedBy      *strictFile
	syncFailed    bool
}

// strictState is the content of a file, and what Sync takes along. A page
// never changes; nil is zeros.
type strictState struct {
	pages []*[strictPage]byte
	size  int64
	mode  fs.FileMode
	mtime time.Time
}

func (s strictState) clone() strictState {
	s.pages = slices.Clone(s.pages)
	return s
}

func (s *strictState) page(i int) *[strictPage]byte {
	if i < len(s.pages) {
		return s.pages[i]
	}
	return nil
}

func (s *strictState) setPage(i int, p *[strictPage]byte) {
	for len(s.pages) <= i {
		s.pages = append(s.pages, nil)
	}
	s.pages[i] = p
}

// resize sets the size; what was beyond the end reads as zeros later.
func (s *strictState) resize(size int64) {
	if size < s.size {
		n := int((size + strictPage - 1) / strictPage)
		s.pages = s.pages[:min(n, len(s.pages))]
		if rest := size % strictPage; rest != 0 && s.page(n-1) != nil {
			tail := *s.page(n - 1)
			clear(tail[rest:])
			s.setPage(n-1, &tail)
		}
	}
	s.size = size
}

func (s *strictState) readAt(b []byte, off int64) int {
	if off >= s.size {
		return 0
	}
	b = b[:min(int64(len(b)), s.size-off)]
	for n := 0; n < len(b); {
		i, from := int((off+int64(n))/strictPage), int((off+int64(n))%strictPage)
		part := b[n:min(len(b), n+strictPage-from)]
		if p := s.page(i); p != nil {
			copy(part, p[from:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(b)
}

// strictChange is a change of a directory: name becomes node, or nothing, and
// from, if any, becomes free in the same instant.
type strictChange struct {
	dir  *strictNode
	from string
	name string
	node *strictNode // nil: removed
}

func (c strictChange) apply(names map[string]*strictNode, node *strictNode) {
	if c.from != "" {
		delete(names, c.from)
	}
	if node == nil {
		delete(names, c.name)
	} else {
		names[c.name] = node
	}
}

func newStrictFS() *strictFS {
	return &strictFS{root: newStrictFolder(), clock: time.Now()}
}

func newStrictFolder() *strictNode {
	return &strictNode{dir: true, names: map[string]*strictNode{}, durable: map[string]*strictNode{}}
}

// do records an operation, and fails it if that is due.
func (d *strictFS) do(kind, name string, offset int64, size int) error {
	op := strictOp{Index: len(d.ops), Kind: kind, Name: name, Offset: offset, Size: size}
	d.ops = append(d.ops, op)
	d.clock = d.clock.Add(time.Millisecond)
	if d.limit > 0 && len(d.ops) > d.limit {
		panic(fmt.Sprintf("more than %d file operations, the last is %s", d.limit, op))
	}
	if d.fail != nil {
		return d.fail(op)
	}
	return nil
}

// changed keeps the moment after an operation that changed something.
func (d *strictFS) changed() {
	if d.watch {
		d.moments = append(d.moments, d.cloneLocked())
	}
}

// mark says what is known from here on.
func (d *strictFS) mark(note any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note = note
	d.changed()
}

func strictError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// lookup finds the directory and the base of name, and what is there, if anything.
func (d *strictFS) lookup(name string) (folder *strictNode, base string, node *strictNode, err error) {
	name = filepath.Clean(name)
	if name == "." {
		return nil, ".", d.root, nil
	}
	folder = d.root
	if parent := filepath.Dir(name); parent != "." {
		if _, _, folder, err = d.lookup(parent); err != nil {
			return nil, "", nil, err
		}
	}
	switch {
	case folder == nil:
		return nil, "", nil, syscall.ENOENT
	case !folder.dir:
		return nil, "", nil, syscall.ENOTDIR
	}
	base = filepath.Base(name)
	return folder, base, folder.names[base], nil
}

func (d *strictFS) change(c strictChange) {
	c.apply(c.dir.names, c.node)
	d.pending = append(d.pending, c)
	d.changed()
}

func (d *strictFS) openFile(kind, name string, create, mustCreate, readOnly bool) (diskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do(kind, name, 0, 0); err != nil {
		return nil, strictError(kind, name, err)
	}
	folder, base, node, err := d.lookup(name)
	switch {
	case err != nil:
		return nil, strictError(kind, name, err)
	case node != nil && mustCreate:
		return nil, strictError(kind, name, syscall.EEXIST)
	case node != nil && node.dir:
		return nil, strictError(kind, name, syscall.EISDIR)
	case node == nil && !create:
		return nil, strictError(kind, name, syscall.ENOENT)
	case node == nil:
		node = d.newFile()
		d.change(strictChange{dir: folder, name: base, node: node})
	}
	d.open++
	return &strictFile{disk: d, node: node, name: name, readOnly: readOnly}, nil
}

func (d *strictFS) newFile() *strictNode {
	node := &strictNode{dirty: map[int]bool{}}
	node.cache.mode, node.cache.mtime = 0o644, d.clock
	node.medium = node.cache
	return node
}

func (d *strictFS) Create(name string) (diskFile, error) {
	return d.openFile("create", name, true, true, false)
}

func (d *strictFS) Open(name string) (diskFile, error) {
	return d.openFile("open", name, true, false, false)
}

func (d *strictFS) Read(name string) (diskFile, error) {
	return d.openFile("read-only", name, false, false, true)
}

func (d *strictFS) Lstat(name string) (fs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("lstat", name, 0, 0); err != nil {
		return nil, strictError("lstat", name, err)
	}
	_, base, node, err := d.lookup(name)
	if err == nil && node == nil {
		err = syscall.ENOENT
	}
	if err != nil {
		return nil, strictError("lstat", name, err)
	}
	return node.info(base), nil
}

func (d *strictFS) ReadDir(name string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("readdir", name, 0, 0); err != nil {
		return nil, strictError("readdir", name, err)
	}
	_, _, node, err := d.lookup(name)
	if err == nil && node == nil {
		err = syscall.ENOENT
	}
	if err == nil && !node.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, strictError("readdir", name, err)
	}
	return slices.Sorted(maps.Keys(node.names)), nil
}

func (d *strictFS) MkdirAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("mkdir", name, 0, 0); err != nil {
		return strictError("mkdir", name, err)
	}
	return strictError("mkdir", name, d.mkdirLocked(filepath.Clean(name)))
}

func (d *strictFS) mkdirLocked(name string) error {
	if name == "." {
		return nil
	}
	if err := d.mkdirLocked(filepath.Dir(name)); err != nil {
		return err
	}
	folder, base, node, err := d.lookup(name)
	switch {
	case err != nil:
		return err
	case node == nil:
		d.change(strictChange{dir: folder, name: base, node: newStrictFolder()})
	case !node.dir:
		return syscall.ENOTDIR
	}
	return nil
}

// CreateUnnamed makes a file that no crash leaves behind: it is nowhere.
func (d *strictFS) CreateUnnamed(folder string) (diskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("create", folder, 0, 0); err != nil {
		return nil, strictError("create", folder, err)
	}
	_, _, node, err := d.lookup(folder)
	if err == nil && node == nil {
		err = syscall.ENOENT
	}
	if err == nil && !node.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, strictError("create", folder, err)
	}
	d.open++
	return &strictFile{disk: d, node: d.newFile(), name: filepath.Join(folder, "(unnamed)")}, nil
}

func (d *strictFS) Link(f diskFile, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("link", name, 0, 0); err != nil {
		return strictError("link", name, err)
	}
	folder, base, node, err := d.lookup(name)
	if err == nil && node != nil {
		err = syscall.EEXIST
	}
	if err != nil {
		return strictError("link", name, err)
	}
	d.change(strictChange{dir: folder, name: base, node: f.(*strictFile).node})
	return nil
}

func (d *strictFS) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("rename", to, 0, 0); err != nil {
		return strictError("rename", to, err)
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		panic("rename between directories")
	}
	folder, base, node, err := d.lookup(from)
	if err == nil && node == nil {
		err = syscall.ENOENT
	}
	if err == nil && folder.names[filepath.Base(to)] != nil && folder.names[filepath.Base(to)].dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return strictError("rename", to, err)
	}
	d.change(strictChange{dir: folder, from: base, name: filepath.Base(to), node: node})
	return nil
}

func (d *strictFS) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("remove", name, 0, 0); err != nil {
		return strictError("remove", name, err)
	}
	folder, base, node, err := d.lookup(name)
	switch {
	case err != nil:
	case node == nil:
		err = syscall.ENOENT
	case node.dir && len(node.names) > 0:
		err = syscall.ENOTEMPTY
	default:
		d.change(strictChange{dir: folder, name: base})
	}
	return strictError("remove", name, err)
}

func (d *strictFS) Chtimes(name string, mtime time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("chtimes", name, 0, 0); err != nil {
		return strictError("chtimes", name, err)
	}
	_, _, node, err := d.lookup(name)
	if err == nil && node == nil {
		err = syscall.ENOENT
	}
	if err != nil {
		return strictError("chtimes", name, err)
	}
	node.cache.mtime = mtime
	d.changed()
	return nil
}

func (d *strictFS) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("syncdir", name, 0, 0); err != nil {
		return strictError("syncdir", name, err)
	}
	_, _, node, err := d.lookup(name)
	if err == nil && (node == nil || !node.dir) {
		err = syscall.ENOENT
	}
	if err != nil {
		return strictError("syncdir", name, err)
	}
	d.pending = slices.DeleteFunc(d.pending, func(c strictChange) bool {
		if c.dir != node {
			return false
		}
		c.apply(node.durable, c.node)
		return true
	})
	d.changed()
	return nil
}

func (d *strictFS) Close() error { return nil }

// strictFile is an open file.
type strictFile struct {
	disk     *strictFS
	node     *strictNode
	name     string
	pos      int64
	readOnly bool
	closed   bool
}

// begin is what all operations of a file begin with, and locks.
func (f *strictFile) begin(kind string, size int) error {
	f.disk.mu.Lock()
	if f.closed {
		return strictError(kind, f.name, fs.ErrClosed)
	}
	if err := f.disk.do(kind, f.name, f.pos, size); err != nil {
		var short strictShort
		if errors.As(err, &short) {
			return err
		}
		return strictError(kind, f.name, err)
	}
	return nil
}

func (f *strictFile) Read(b []byte) (int, error) {
	err := f.begin("get", len(b))
	defer f.disk.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n := f.node.cache.readAt(b, f.pos)
	f.pos += int64(n)
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (f *strictFile) Write(b []byte) (int, error) {
	err := f.begin("put", len(b))
	defer f.disk.mu.Unlock()
	var short strictShort
	if errors.As(err, &short) {
		b, err = b[:len(b)/2], strictError("put", f.name, short.error)
	} else if err != nil {
		return 0, err
	}
	if f.readOnly {
		return 0, strictError("put", f.name, syscall.EBADF)
	}
	n, s := f.node, &f.node.cache
	for done := 0; done < len(b); {
		i, from := int((f.pos+int64(done))/strictPage), int((f.pos+int64(done))%strictPage)
		if f.disk.lent && from == 0 && len(b)-done >= strictPage {
			s.setPage(i, (*[strictPage]byte)(b[done:]))
			n.dirty[i], done = true, done+strictPage
			continue
		}
		page := new([strictPage]byte)
		if old := s.page(i); old != nil && (from > 0 || len(b)-done < strictPage) {
			*page = *old
		}
		done += copy(page[from:], b[done:])
		s.setPage(i, page)
		n.dirty[i] = true
	}
	f.pos += int64(len(b))
	s.size, s.mtime = max(s.size, f.pos), f.disk.clock
	f.disk.changed()
	return len(b), err
}

func (f *strictFile) Seek(offset int64, whence int) (int64, error) {
	err := f.begin("seek", 0)
	defer f.disk.mu.Unlock()
	if err != nil {
		return 0, err
	}
	switch whence {
	case io.SeekStart:
		f.pos = offset
	case io.SeekCurrent:
		f.pos += offset
	case io.SeekEnd:
		f.pos = f.node.cache.size + offset
	}
	return f.pos, nil
}

// Close closes also when it fails, as close(2) does.
func (f *strictFile) Close() error {
	err := f.begin("close", 0)
	defer f.disk.mu.Unlock()
	if f.closed {
		return err
	}
	f.closed = true
	f.disk.open--
	if f.node.lockedBy == f {
		f.node.lockedBy = nil
	}
	return err
}

func (f *strictFile) Stat() (fs.FileInfo, error) {
	err := f.begin("stat", 0)
	defer f.disk.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return f.node.info(filepath.Base(f.name)), nil
}

func (f *strictFile) Chmod(mode fs.FileMode) error {
	err := f.begin("chmod", 0)
	defer f.disk.mu.Unlock()
	if err != nil {
		return err
	}
	f.node.cache.mode = mode
	f.disk.changed()
	return nil
}

func (f *strictFile) Truncate(size int64) error {
	err := f.begin("truncate", int(size))
	defer f.disk.mu.Unlock()
	if err != nil {
		return err
	}
	if f.readOnly {
		return strictError("truncate", f.name, syscall.EINVAL)
	}
	if size != f.node.cache.size {
		for i := int(size / strictPage); i <= len(f.node.cache.pages); i++ {
			f.node.dirty[i] = true
		}
		f.node.cache.resize(size)
		f.node.cache.mtime = f.disk.clock
		f.disk.changed()
	}
	return nil
}

// Sync makes the content durable. When it fails, the pages are taken for
// written, as Linux does: the next Sync has nothing to do for them, and they
// are lost.
func (f *strictFile) Sync() error {
	err := f.begin("sync", 0)
	defer f.disk.mu.Unlock()
	if f.node.syncFailed {
		f.disk.resyncs++
	}
	if err != nil {
		f.node.syncFailed = true
		clear(f.node.dirty)
		return err
	}
	m, c := &f.node.medium, &f.node.cache
	m.resize(min(m.size, c.size))
	for i := range f.node.dirty {
		if int64(i)*strictPage < c.size {
			m.setPage(i, c.page(i))
		}
	}
	m.size, m.mode, m.mtime = c.size, c.mode, c.mtime
	clear(f.node.dirty)
	f.disk.changed()
	return nil
}

func (f *strictFile) Allocate(size int64) error {
	err := f.begin("allocate", int(size))
	defer f.disk.mu.Unlock()
	return err
}

func (f *strictFile) TryLock() error {
	err := f.begin("lock", 0)
	defer f.disk.mu.Unlock()
	if err != nil {
		return err
	}
	if f.node.lockedBy != nil && f.node.lockedBy != f {
		return errLocked
	}
	f.node.lockedBy = f
	return nil
}

// strictInfo is the fs.FileInfo of a node.
type strictInfo struct {
	name string
	node *strictNode
	size int64
	mode fs.FileMode
	time time.Time
}

func (n *strictNode) info(name string) fs.FileInfo {
	if n.dir {
		return strictInfo{name: name, node: n, mode: fs.ModeDir | 0o755}
	}
	return strictInfo{name: name, node: n, size: n.cache.size, mode: n.cache.mode, time: n.cache.mtime}
}

func (i strictInfo) Name() string       { return i.name }
func (i strictInfo) Size() int64        { return i.size }
func (i strictInfo) Mode() fs.FileMode  { return i.mode }
func (i strictInfo) ModTime() time.Time { return i.time }
func (i strictInfo) IsDir() bool        { return i.mode.IsDir() }
func (i strictInfo) Sys() any           { return nil }

func strictSame(a, b fs.FileInfo) bool { return a.(strictInfo).node == b.(strictInfo).node }

// cloneLocked copies all but what is recorded. Open files stay behind.
func (d *strictFS) cloneLocked() *strictFS {
	memo := map[*strictNode]*strictNode{}
	c := &strictFS{root: d.root.clone(memo), clock: d.clock, note: d.note, lent: d.lent}
	c.ops = d.ops[:len(d.ops):len(d.ops)]
	for _, p := range d.pending {
		p.dir, p.node = p.dir.clone(memo), p.node.clone(memo)
		c.pending = append(c.pending, p)
	}
	return c
}

func (n *strictNode) clone(memo map[*strictNode]*strictNode) *strictNode {
	if n == nil {
		return nil
	}
	if c := memo[n]; c != nil {
		return c
	}
	c := &strictNode{dir: n.dir}
	memo[n] = c
	if !n.dir {
		c.cache, c.medium = n.cache.clone(), n.medium.clone()
		c.dirty, c.syncFailed = maps.Clone(n.dirty), n.syncFailed
		return c
	}
	c.names, c.durable = map[string]*strictNode{}, map[string]*strictNode{}
	for name, child := range n.names {
		c.names[name] = child.clone(memo)
	}
	for name, child := range n.durable {
		c.durable[name] = child.clone(memo)
	}
	return c
}

// strictFate decides what of the things that were not synced the medium has.
type strictFate func() bool

func strictNothing() bool { return false }

func strictAll() bool { return true }

// strictChance is a fate that keeps a share of p.
func strictChance(rng *rand.Rand, p float64) strictFate {
	return func() bool { return rng.Float64() < p }
}

// crash returns the file system as it may be after a power loss: all that is
// durable, and what kept says of the rest. A page that was not kept is as the
// medium had it, or, when zero says so, zeros.
func (d *strictFS) crash(kept, zero strictFate) *strictFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	memo := map[*strictNode]*strictNode{}
	c := &strictFS{clock: d.clock.Add(time.Second), lent: d.lent}
	c.root = d.root.crash(memo, kept, zero)
	for _, p := range d.pending {
		if !kept() {
			continue
		}
		// A directory that did not survive takes its entries along.
		if folder := memo[p.dir]; folder != nil {
			node := p.node.crash(memo, kept, zero)
			p.apply(folder.names, node)
			p.apply(folder.durable, node)
		}
	}
	return c
}

func (n *strictNode) crash(memo map[*strictNode]*strictNode, kept, zero strictFate) *strictNode {
	if n == nil {
		return nil
	}
	if c := memo[n]; c != nil {
		return c
	}
	c := &strictNode{dir: n.dir, dirty: map[int]bool{}}
	memo[n] = c
	if n.dir {
		c.names, c.durable = map[string]*strictNode{}, map[string]*strictNode{}
		for _, name := range slices.Sorted(maps.Keys(n.durable)) {
			child := n.durable[name].crash(memo, kept, zero)
			c.names[name], c.durable[name] = child, child
		}
		return c
	}
	s := n.medium.clone()
	if kept() {
		s.mode = n.cache.mode
	}
	if kept() {
		s.mtime = n.cache.mtime
	}
	for i := range max(len(n.cache.pages), len(n.medium.pages)) {
		if now := n.cache.page(i); now != n.medium.page(i) {
			switch {
			case kept():
				s.setPage(i, now)
			case zero():
				s.setPage(i, nil)
			}
		}
	}
	size := n.medium.size
	if kept() {
		size = n.cache.size
	} else if size < n.cache.size && zero() { // it was growing, page by page
		size += (n.cache.size - size) / 2 / strictPage * strictPage
	}
	s.size = max(size, int64(len(s.pages))*strictPage)
	s.resize(size)
	c.cache, c.medium = s, s.clone()
	return c
}

// content returns what a name holds, or nil when nothing has it.
func (d *strictFS) content(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _, node, err := d.lookup(name)
	if err != nil || node == nil || node.dir {
		return nil
	}
	b := make([]byte, node.cache.size)
	node.cache.readAt(b, 0)
	return b
}

// holds reports whether a name holds b; nil means that nothing has the name.
func (d *strictFS) holds(name string, b []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _, node, err := d.lookup(name)
	if err != nil || node == nil || node.dir {
		return b == nil
	}
	if b == nil || node.cache.size != int64(len(b)) {
		return false
	}
	for i := 0; i*strictPage < len(b); i++ {
		have, want := node.cache.page(i), b[i*strictPage:min(len(b), (i+1)*strictPage)]
		if have == nil {
			have = new([strictPage]byte)
		}
		if &have[0] != &want[0] && !bytes.Equal(have[:len(want)], want) { // it may be lent
			return false
		}
	}
	return true
}

// put makes a file as another program would: durable, or just written.
func (d *strictFS) put(t testing.TB, name string, b []byte, durable bool) {
	t.Helper()
	require.NoError(t, d.MkdirAll(filepath.Dir(name)))
	f, err := d.Open(name)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(0))
	_, err = f.Write(b)
	require.NoError(t, err)
	if durable {
		require.NoError(t, f.Sync())
		require.NoError(t, newDirSyncs(d).path(filepath.Dir(name), 0))
	}
	require.NoError(t, f.Close())
	d.puts = len(d.ops)
}

// list returns all files and directories, but for the state directory itself.
func (d *strictFS) list() (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var walk func(folder *strictNode, path string)
	walk = func(folder *strictNode, path string) {
		for name, node := range folder.names {
			full := filepath.Join(path, name)
			if full != stateDir {
				names = append(names, full)
			}
			if node.dir {
				walk(node, full)
			}
		}
	}
	walk(d.root, "")
	slices.Sort(names)
	return names
}

// count is how many operations of kind were done on name.
func (d *strictFS) count(kind, name string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range d.ops {
		if op.Kind == kind && op.Name == name {
			n++
		}
	}
	return n
}

// kinds is how many operations of kind a store did, not put.
func (d *strictFS) kinds(kind string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range d.ops[d.puts:] {
		if op.Kind == kind {
			n++
		}
	}
	return n
}

// strictFailAt fails the operation of that index, once.
func strictFailAt(index int, err error) func(strictOp) error {
	return func(op strictOp) error {
		if op.Index == index {
			return err
		}
		return nil
	}
}

// strictFailNth fails the k-th operation of a kind, from zero on, once.
func strictFailNth(kind string, k int, err error) func(strictOp) error {
	seen := 0
	return func(op strictOp) error {
		if op.Kind != kind {
			return nil
		}
		seen++
		if seen-1 == k {
			return err
		}
		return nil
	}
}

// strictFailAlways fails all operations of a kind on a name, "" being any.
func strictFailAlways(kind, name string, err error) func(strictOp) error {
	return func(op strictOp) error {
		if op.Kind == kind && (name == "" || op.Name == name) {
			return err
		}
		return nil
	}
}

// The file system forgets what it should, and nothing else.
func TestStrictFSForgets(t *testing.T) {
	big := make([]byte, 3*strictPage+100)
	for i := range big {
		big[i] = byte(i%250 + 1)
	}
	d := newStrictFS()
	d.put(t, "old", []byte("old"), true)
	f, err := d.Open("new")
	require.NoError(t, err)
	_, err = f.Write(big)
	require.NoError(t, err)

	require.Nil(t, d.crash(strictNothing, strictNothing).content("new"), "an entry survived that was not synced")
	require.Equal(t, big, d.crash(strictAll, strictNothing).content("new"))

	require.NoError(t, d.SyncDir("."))
	require.Equal(t, []byte{}, d.crash(strictNothing, strictNothing).content("new"), "content survived that was not synced")
	require.NoError(t, f.Sync())
	require.Equal(t, big, d.crash(strictNothing, strictNothing).content("new"))

	require.NoError(t, d.Rename("new", "old"))
	lost := d.crash(strictNothing, strictNothing)
	require.Equal(t, []byte("old"), lost.content("old"))
	require.Equal(t, big, lost.content("new"))
	done := d.crash(strictAll, strictNothing)
	require.Equal(t, big, done.content("old"))
	require.Nil(t, done.content("new"))

	// Unsynced pages are kept, lost or zero one by one, the others stay.
	require.NoError(t, d.SyncDir("."))
	_, err = f.Seek(strictPage, io.SeekStart)
	require.NoError(t, err)
	_, err = f.Write(make([]byte, 2*strictPage))
	require.NoError(t, err)
	half := false
	some := d.crash(func() bool { half = !half; return half }, strictNothing).content("old")
	require.Equal(t, big[:strictPage], some[:strictPage])
	require.Equal(t, big[3*strictPage:], some[3*strictPage:])
	require.Equal(t, big, d.crash(strictNothing, strictNothing).content("old"))

	// What a failed Sync was to write is lost, whatever a later one says.
	d.fail = strictFailNth("sync", 0, syscall.EIO)
	require.ErrorIs(t, f.Sync(), syscall.EIO)
	require.NoError(t, f.Sync())
	require.Equal(t, big, d.crash(strictNothing, strictNothing).content("old"))
	require.NoError(t, f.Close())
	require.Zero(t, d.open)
}

// strictContext is the context of what these tests do.
var strictContext = context.Background()

const strictEIO = syscall.EIO
