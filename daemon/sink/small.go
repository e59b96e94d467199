// Small files: content that is held in memory until all of it is there.
//
// A journal, a manifest and a part of its own cost more than a small file does,
// and to go on in the middle of one is not worth anything: its content goes
// with the offer. So nothing is on disk before the file is staged, and then, on
// Linux, as a file without a name, which nobody sees and which is gone when the
// reader dies. The rest was half of what a reader took for 10,000 files of 4 KiB
// (scripts/smallfiles.sh). What replaces another file, or preserves its mode,
// is a part all the same.

package sink

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/sbcast/sbcast/protocol"
)

// smallSize is the most content of a small file, in bytes: what a client sends
// with its offer.
const smallSize = protocol.MaxEarly

// linkTries is how often a directory is made anew that others remove.
const linkTries = 10

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
	if s.target != nil && s.target.Size() == s.req.Size && !s.req.changes(s.target) {
		switch f, err := s.same(); {
		case f != nil:
			return f, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	if s.target != nil || s.req.Preserve {
		return s.part(ctx)
	}
	f, err := s.dir.openUnnamed(s.name, s.req.Offer)
	if errors.Is(err, errors.ErrUnsupported) {
		return s.part(ctx)
	}
	if err != nil {
		return nil, err
	}
	_, err = f.Write(s.content)
	return f, err
}

// same returns what has the name, if that has the content.
func (s *smallFile) same() (File, error) {
	f, err := s.dir.openSame(s.name, s.req)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(s.content); err != nil {
		f.file.Close()
		if protocol.HasCode(err, protocol.CodeExists) {
			err = nil
		}
		return nil, err
	}
	return f, nil
}

// part writes the content to a part, as it is done for larger files. Of what is
// there of an earlier push nothing is used: it was not hashed for this one.
func (s *smallFile) part(ctx context.Context) (File, error) {
	req := s.req
	req.Prefix = io.Discard
	f, have, err := s.dir.openPart(ctx, s.name, req)
	if err != nil {
		return nil, err
	}
	if have.Offset > 0 {
		if err = f.(*partFile).restart(); err != nil {
			return f, err
		}
	}
	_, err = f.Write(s.content)
	return f, err
}

// Publish publishes what was staged. What has come under the name meanwhile is
// replaced with force, which a file without a name cannot do, and is as good
// without if it has the content: another reader may have the same directory.
func (s *smallFile) Publish(ctx context.Context) (Published, error) {
	p, err := s.file.Publish(ctx)
	u, unnamed := s.file.(*unnamedFile)
	if !unnamed || !protocol.HasCode(err, protocol.CodeExists) {
		return p, err
	}
	var f File
	var again error
	if s.req.Force {
		f, again = s.part(ctx)
	} else if f, again = s.same(); f == nil && again == nil {
		return p, err
	}
	if f != nil {
		u.file.Close()
		s.file = f
	}
	if again == nil {
		again = f.Stage(ctx, s.digest)
	}
	if again != nil {
		return Published{}, again
	}
	return f.Publish(ctx)
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
		d.removeFolders(made)
		return nil, err
	}
	return u, nil
}

func (u *unnamedFile) Write(b []byte) (int, error) { return writeAll(u.file, b) }

func (u *unnamedFile) Stage(context.Context, protocol.Digest) error {
	if u.dir.fsync == FsyncAlways {
		return syncContent(u.file)
	}
	return nil
}

// Publish gives the file its name, which must be free, whoever made what has it.
func (u *unnamedFile) Publish(context.Context) (Published, error) {
	if u.dir.fsync == FsyncCommit {
		if err := syncContent(u.file); err != nil {
			return Published{}, err
		}
	}
	if err := Failpoint("rename"); err != nil {
		return Published{}, err
	}
	before := u.dir.syncs.mark()
	err := u.dir.disk.Link(u.file, u.name)
	for range linkTries {
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// The directory was made for another file, which was given up: a file
		// without a name did not keep it.
		if u.made, err = u.dir.makeFolder(filepath.Dir(u.name)); err == nil {
			err = u.dir.disk.Link(u.file, u.name)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return Published{}, errDiffers(u.offer.Name, "it came while this push was under way")
	}
	if err != nil {
		return Published{}, err
	}
	u.named = true
	if err := u.dir.named(u.name, before); err != nil {
		return Published{}, err
	}
	u.Discard(false)
	return Published{Location: u.dir.location(u.name)}, nil
}

func (u *unnamedFile) Discard(bool) {
	u.file.Close()
	if !u.named {
		u.dir.removeFolders(u.made)
	}
	u.dir.release(u.name)
}
