// Part files: content on its way to a name, and how it goes on after anything.

package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sbcast/sbcast/protocol"
)

// partFile is a file being written. Its journal is open, and locked, for as
// long as it is.
type partFile struct {
	dir   *Dir
	name  string // of the target, beneath the root
	part  string
	offer *protocol.Offer
	made  []string // directories that were made for it, the deepest first

	file    diskFile
	journal diskFile
	sum     *protocol.Hasher // of what is in the part
	size    int64
	noted   int64 // offset of the last record
	fresh   bool  // the journal had nothing in it
	trim    bool  // there may be something beyond size
	known   bool  // the journal ends with the manifest
	named   bool  // the part has the target's name
	lines   int64 // bytes in the journal
	torn    bool  // a write failed half-way: the file's position is not size
	staged  protocol.Digest
}

// openPart goes on with the part that is there of the same source, or begins
// one.
func (d *Dir) openPart(ctx context.Context, name string, r Request) (f File, have Have, err error) {
	made, err := d.makeFolder(filepath.Dir(name))
	if err != nil {
		return nil, have, err
	}
	p := &partFile{
		dir: d, made: made, name: name, part: partPath(name), offer: r.Offer,
		sum: protocol.NewHasher(protocol.DigestXXH128),
	}
	if p.journal, p.fresh, err = d.lockJournal(name); err != nil {
		d.removeFolders(made)
		return nil, have, err
	}
	if !p.fresh {
		have.Note, err = p.resume(ctx, r)
	}
	if err != nil {
		p.noted = p.size // nothing new to note
		p.shut(true)
		return nil, have, err
	}
	if p.file == nil {
		err = p.begin()
	}
	if err == nil && r.Size > max(p.size, allocateFrom) {
		if err = p.file.Allocate(r.Size); err != nil {
			err = fmt.Errorf("no room for %d bytes in %s: %w", r.Size, d.path, err)
		}
	}
	if err != nil {
		p.shut(p.size > 0)
		return nil, have, err
	}
	have.Offset = p.size
	return p, have, nil
}

// allocateFrom is the size up to which a file is not worth claiming room for: a
// disk that has none says so when the first chunk comes, a round trip later.
const allocateFrom = 16 << 10

// makeFolder makes a directory and those above it, and returns which it made,
// the deepest first.
func (d *Dir) makeFolder(folder string) (made []string, err error) {
	for dir := folder; dir != "."; dir = filepath.Dir(dir) {
		if _, err := d.disk.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, dir)
	}
	if len(made) == 0 && folder == "." {
		return nil, nil
	}
	return made, d.disk.MkdirAll(folder)
}

// removeFolders takes back what makeFolder made, where it is empty.
func (d *Dir) removeFolders(made []string) {
	for _, dir := range made {
		_ = d.disk.Remove(dir)
	}
}

// restart gives up what was resumed.
func (p *partFile) restart() error {
	p.file.Close()
	p.file, p.trim = nil, false
	return p.begin()
}

// begin starts from zero. The old part goes only when the journal speaks of
// the new one, which has no records: nothing of the old one can be resumed.
func (p *partFile) begin() (err error) {
	if !p.fresh {
		if err = p.journal.Truncate(0); err != nil {
			return err
		}
		if _, err = p.journal.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	p.lines = 0
	h := header{Name: p.name, Part: p.part, Source: sourceKey(p.offer), Size: p.offer.Size, Begun: time.Now()}
	if err = p.log(h); err != nil {
		return err
	}
	p.sum, p.size, p.noted = protocol.NewHasher(protocol.DigestXXH128), 0, 0
	p.file, err = p.dir.disk.Create(p.part)
	if errors.Is(err, fs.ErrExist) {
		if err = p.remove(); err == nil {
			p.file, err = p.dir.disk.Create(p.part)
		}
	}
	if err == nil {
		p.dir.trust(p.name)
	}
	return err
}

// log adds a line to the journal.
func (p *partFile) log(v any) error {
	n, err := p.journal.Write(appendLine(nil, v))
	p.lines += int64(n)
	return err
}

// remove removes a part that is there, if it is a file of ours.
func (p *partFile) remove() error {
	info, err := p.dir.disk.Lstat(p.part)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = protocol.Errorf(protocol.CodeExists, "%q is not a regular file", p.part)
	}
	if err != nil {
		return err
	}
	return p.dir.disk.Remove(p.part)
}

// resume opens the part that the journal speaks of, reads it back, and sets it
// to the newest record that it agrees with: a record is trusted because the
// part was read back, not because either was synced. What it has up to there
// goes to r.Prefix too. Without a usable part it leaves p.file nil; the note
// says why, where the user should know.
func (p *partFile) resume(ctx context.Context, r Request) (note string, err error) {
	h, entries, end, ok := readJournal(p.journal)
	if !ok || h.Name != p.name || h.Part != p.part || !p.dir.trusted(p.name) {
		return "", nil
	}
	newest := int64(0)
	if n := len(entries); n > 0 {
		newest = entries[n-1].Offset
	}
	if h.Source != sourceKey(r.Offer) || h.Size != r.Size {
		if newest > 0 && r.Fingerprint != "" {
			note = fmt.Sprintf("the source has changed since %s of it were received: starting again from zero", humanize.IBytes(uint64(newest)))
		}
		return note, nil
	}
	info, err := p.dir.disk.Lstat(p.part)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if p.file, err = p.dir.disk.Open(p.part); err != nil {
		return "", err
	}
	stale := false // p.sum has more than p.size
	for _, e := range entries {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if e.Offset-p.size > maxSegment {
			break
		}
		r.Tell(fmt.Sprintf("checking the %s received before: at %s", humanize.IBytes(uint64(newest)), humanize.IBytes(uint64(p.size))))
		segment := make([]byte, e.Offset-p.size)
		if _, err := io.ReadFull(p.file, segment); err != nil {
			break
		}
		_, _ = p.sum.Write(segment)
		if stale = p.sum.Digest() != e.Sum; stale {
			break
		}
		if _, err := r.Prefix.Write(segment); err != nil {
			return "", err
		}
		p.size, end = e.Offset, e.end
	}
	if p.size < newest {
		note = fmt.Sprintf("only %d of the %d bytes noted as received are still there as they were", p.size, newest)
	}
	return note, p.rewind(end, stale)
}

// maxSegment bounds what lies between two records: a step and a chunk.
const maxSegment = journalStep + protocol.MaxChunk

// rewind sets part and journal to p.size, and the hash too when it is stale.
func (p *partFile) rewind(journalEnd int64, stale bool) error {
	if p.size == 0 {
		err := p.file.Close()
		p.file = nil
		return err
	}
	if stale {
		p.sum = protocol.NewHasher(protocol.DigestXXH128)
		if _, err := p.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(p.sum, p.file, p.size); err != nil {
			return err
		}
	}
	if _, err := p.file.Seek(p.size, io.SeekStart); err != nil {
		return err
	}
	if err := p.journal.Truncate(journalEnd); err != nil {
		return err
	}
	_, err := p.journal.Seek(journalEnd, io.SeekStart)
	p.noted, p.lines, p.trim = p.size, journalEnd, true
	return err
}

// writeAll is f.Write, for a disk that may write less and not say why.
func writeAll(f diskFile, b []byte) (int, error) {
	n, err := f.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}

func (p *partFile) Write(b []byte) (int, error) {
	if err := Failpoint("write"); err != nil {
		return 0, err
	}
	n, err := writeAll(p.file, b)
	if err != nil {
		p.torn = true
		return n, err
	}
	p.size += int64(n)
	_, _ = p.sum.Write(b)
	if p.size-p.noted >= journalStep {
		err = p.note()
	}
	return n, err
}

// note adds a record of what the part has. A journal that cannot be written
// costs the resume, not the file; but where it has no room the file has none.
func (p *partFile) note() error {
	if p.noted == p.size {
		return nil
	}
	if err := Failpoint("journal"); err != nil {
		return err
	}
	err := p.log(record{Offset: p.size, Sum: p.sum.Digest()})
	p.noted = p.size
	return err
}
