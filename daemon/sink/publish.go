// Part files: how one becomes the file of its name, or goes.

package sink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// Stage sets what is to be preserved and syncs, if that is to be done before
// the reader says that it is ready.
func (p *partFile) Stage(_ context.Context, digest protocol.Digest) error {
	if p.trim {
		if err := p.file.Truncate(p.size); err != nil {
			return err
		}
	}
	if p.offer.Preserve {
		if mode := fs.FileMode(p.offer.Mode) & fs.ModePerm; mode != 0 { // a pipe has none
			if err := p.file.Chmod(mode); err != nil {
				return err
			}
		}
		if err := p.dir.disk.Chtimes(p.part, p.offer.MTime); err != nil {
			return err
		}
	}
	if p.dir.fsync == FsyncAlways {
		if err := p.sync(); err != nil {
			return err
		}
	}
	p.staged = digest
	return p.note()
}

// sync makes the content durable. A sync that failed is not tried again: the
// kernel may have dropped the pages and would report success, so the part is
// not to be trusted any more.
func (p *partFile) sync() error {
	err := syncContent(p.file)
	if errors.Is(err, errSync) {
		p.sum = nil
		p.dir.distrust(p.name)
	}
	return err
}

// errSync is that the disk failed a sync.
var errSync = errors.New("sync")

// syncContent makes what f has durable.
func syncContent(f diskFile) error {
	if err := Failpoint("sync"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errSync, err)
	}
	return Failpoint("synced")
}

// Publish gives the part the target's name. The manifest is written first: it
// knows the file by its size and time, so it means nothing until the rename is
// done, and lets a push that is repeated after a crash find the file.
func (p *partFile) Publish(context.Context) (Published, error) {
	if !p.offer.Force {
		switch _, err := p.dir.disk.Lstat(p.name); {
		case err == nil:
			return Published{}, errDiffers(p.offer.Name, "it came while this push was under way")
		case !errors.Is(err, fs.ErrNotExist):
			return Published{}, err
		}
	}
	if p.dir.fsync == FsyncCommit { // content that has the name is durable, whatever the policy
		if err := p.sync(); err != nil {
			return Published{}, err
		}
	}
	info, err := p.file.Stat()
	if err != nil {
		return Published{}, err
	}
	if err := p.noteManifest(info.ModTime()); err != nil {
		return Published{}, err
	}
	if err := Failpoint("rename"); err != nil {
		return Published{}, err
	}
	err = p.file.Close() // Windows does not rename an open file
	p.file = nil
	if err != nil {
		return Published{}, err
	}
	before := p.dir.syncs.mark()
	if err := p.dir.disk.Rename(p.part, p.name); err != nil {
		return Published{}, err
	}
	p.named = true
	if err := p.dir.named(p.name, before); err != nil {
		return Published{}, err
	}
	p.Discard(false)
	return Published{Location: p.dir.location(p.name)}, nil
}

// named makes durable that a file has just got its name, after since.
func (d *Dir) named(name string, since dirMark) error {
	if err := Failpoint("renamed"); err != nil {
		return err
	}
	if err := d.syncEntry(name, since); err != nil {
		return fmt.Errorf("the file has its name, but its directory could not be synced: %w", err)
	}
	return Failpoint("published")
}

// noteManifest writes the manifest, unless the file that is replaced has the
// same size and time: then a manifest could be taken for one of either, and
// there must be none when the name changes hands.
func (p *partFile) noteManifest(mtime time.Time) error {
	m := manifest{
		Name: p.name, Source: sourceKey(p.offer), Digest: p.staged,
		Size: p.size, MTime: mtime, When: time.Now(), Unsynced: p.dir.fsync == FsyncNever,
	}
	if p.offer.Force {
		if old, err := p.dir.disk.Lstat(p.name); err == nil && m.is(old) {
			if err := p.dir.disk.Remove(manifestPath(p.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if p.dir.fsync == FsyncNever {
				return nil
			}
			return p.dir.disk.SyncDir(stateDir)
		}
	}
	p.known = true
	return p.log(m)
}

func (p *partFile) Discard(keep bool) {
	p.shut(keep && p.sum != nil && p.size > 0)
	p.dir.release(p.name)
}

// shut ends the work on the part; without keep nothing is left of it.
func (p *partFile) shut(keep bool) {
	if keep && !p.torn && !p.known {
		_ = p.note() // one record more is one step less to send again
	}
	if p.file != nil {
		p.file.Close()
	}
	if !keep {
		if !p.named {
			_ = p.remove()
		}
		p.removeJournal()
		if !p.named {
			p.dir.removeFolders(p.made)
		}
	}
	p.journal.Close()
}

// largeJournal is one that does not stay as the manifest.
const largeJournal = 16 << 10

// removeJournal removes the journal, or makes it the manifest of what was
// published: to create and remove a file more for each costs as much as the
// file itself.
func (p *partFile) removeJournal() {
	if p.named && p.known {
		if p.lines <= largeJournal && p.dir.disk.Rename(journalPath(p.name), manifestPath(p.name)) == nil {
			return
		}
		if m, ok := lastManifest(p.journal); ok {
			_ = p.dir.writeManifest(m)
		}
	}
	_ = p.dir.disk.Remove(journalPath(p.name))
}
