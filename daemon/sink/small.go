// Small files: content that is held in memory until all of it is there.
//
// A journal, a manifest and a part of its own cost more than a small file does,
// and to go on in the middle of one is not worth anything: its content goes
// with the offer. So nothing is on disk before the file is staged, and then, on
// Linux, as a file without a name, of which nothing is left if the reader dies
// and which no other process can take for its own. That was half of what a
// reader took for 10,000 files of 4 KiB (scripts/smallfiles.sh).

package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/sbcast/sbcast/protocol"
)

// smallSize is the most content of a small file, in bytes: what a client sends
// with its offer.
const smallSize = protocol.MaxEarly

// smallFile is a small file. What is made of it is decided when it is whole.
type smallFile struct {
	dir     *Dir
	name    string
	req     Request
	target  fs.FileInfo // what has the name; nil: nothing
	content []byte
	digest  protocol.Digest
	file    File // once it is whole
}

func (s *smallFile) Write(b []byte) (int, error) {
	if err := Failpoint("write"); err != nil {
		return 0, err
	}
	if int64(len(s.content)+len(b)) > s.req.Size {
		return 0, protocol.Errorf(protocol.CodeSize, "more than the %d bytes of %q", s.req.Size, s.req.Name)
	}
	s.content = append(s.content, b...)
	return len(b), nil
}

func (s *smallFile) Stage(ctx context.Context, digest protocol.Digest) (err error) {
	if s.file == nil {
		if s.file, err = s.place(ctx); err != nil {
			return err
		}
	}
	s.digest = digest
	return s.file.Stage(ctx, digest)
}

// place puts the content where it can be published from.
func (s *smallFile) place(ctx context.Context) (File, error) {
	var f File
	var err error
	var have Have
	switch {
	case s.target != nil && s.target.Size() == s.req.Size && !s.req.changes(s.target):
		if f, err = s.dir.openSame(s.name, s.req); err != nil {
			return nil, err
		}
		if _, err = f.Write(s.content); err == nil {
			return f, nil
		}
		f.(*sameFile).file.Close()
		f, have, err = s.dir.openPart(ctx, s.name, s.again())
	case s.target != nil || s.req.Preserve:
		f, have, err = s.dir.openPart(ctx, s.name, s.again())
	default:
		f, err = s.dir.openUnnamed(s.name, s.req.Offer)
		if errors.Is(err, errors.ErrUnsupported) {
			f, have, err = s.dir.openPart(ctx, s.name, s.again())
		}
	}
	if err != nil {
		return nil, err
	}
	_, err = f.Write(s.content[have.Offset:])
	return f, err
}

// again is the request for a part, which may be there: what that has was
// hashed with the rest already.
func (s *smallFile) again() Request {
	r := s.req
	r.Prefix = io.Discard
	return r
}

// Publish publishes what was staged. With force it replaces what has come under
// the name meanwhile, which a file without a name cannot.
func (s *smallFile) Publish(ctx context.Context) (Published, error) {
	p, err := s.file.Publish(ctx)
	u, unnamed := s.file.(*unnamedFile)
	if !s.req.Force || !unnamed || !protocol.HasCode(err, protocol.CodeExists) {
		return p, err
	}
	part, have, err := s.dir.openPart(ctx, s.name, s.again())
	if err != nil {
		return Published{}, err
	}
	u.file.Close()
	s.file = part
	if _, err = part.Write(s.content[have.Offset:]); err == nil {
		err = part.Stage(ctx, s.digest)
	}
	if err != nil {
		return Published{}, err
	}
	return part.Publish(ctx)
}

func (s *smallFile) Discard(keep bool) {
	if s.file != nil {
		s.file.Discard(keep)
	} else {
		s.dir.release(s.name)
	}
}

// unnamedFile is a file that has no name until it is published.
type unnamedFile struct {
	dir   *Dir
	name  string
	offer *protocol.Offer
	made  []string // directories that were made for it, the deepest first
	file  diskFile
	named bool
}

// openUnnamed makes a file without a name where name is to be. The error is
// [errors.ErrUnsupported] where there are none.
func (d *Dir) openUnnamed(name string, offer *protocol.Offer) (File, error) {
	if !d.unnamed {
		return nil, errors.ErrUnsupported
	}
	folder := filepath.Dir(name)
	made, err := d.makeFolder(folder)
	if err != nil {
		return nil, err
	}
	u := &unnamedFile{dir: d, name: name, offer: offer, made: made}
	if u.file, err = d.disk.CreateUnnamed(folder); err != nil {
		u.removeFolders()
		return nil, err
	}
	return u, nil
}

func (u *unnamedFile) Write(b []byte) (int, error) {
	n, err := u.file.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}

func (u *unnamedFile) Stage(context.Context, protocol.Digest) error {
	if u.dir.fsync == FsyncAlways {
		return u.sync()
	}
	return nil
}

func (u *unnamedFile) sync() error {
	if err := Failpoint("sync"); err != nil {
		return err
	}
	if err := u.file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return Failpoint("synced")
}

// Publish gives the file its name, which must be free, whoever made what has it.
func (u *unnamedFile) Publish(context.Context) (Published, error) {
	if u.dir.fsync == FsyncCommit {
		if err := u.sync(); err != nil {
			return Published{}, err
		}
	}
	if err := Failpoint("rename"); err != nil {
		return Published{}, err
	}
	before := u.dir.syncs.mark()
	err := u.dir.disk.Link(u.file, u.name)
	if errors.Is(err, fs.ErrExist) {
		return Published{}, errDiffers(u.offer.Name, "it came while this push was under way")
	}
	if err != nil {
		return Published{}, err
	}
	u.named = true
	if err := Failpoint("renamed"); err != nil {
		return Published{}, err
	}
	if err := u.dir.syncEntry(u.name, before); err != nil {
		return Published{}, fmt.Errorf("the file has its name, but its directory could not be synced: %w", err)
	}
	if err := Failpoint("published"); err != nil {
		return Published{}, err
	}
	u.Discard(false)
	return Published{Location: u.dir.location(u.name)}, nil
}

func (u *unnamedFile) Discard(bool) {
	u.file.Close()
	u.removeFolders()
	u.dir.release(u.name)
}

func (u *unnamedFile) removeFolders() {
	if !u.named {
		for _, dir := range u.made {
			_ = u.dir.disk.Remove(dir) // not when there is something in it
		}
	}
}
