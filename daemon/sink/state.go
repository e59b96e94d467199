// The dir store's state on disk: where it lives, and what is cleaned up.

package sink

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// stateDir holds a journal for each part file and a manifest for each file
// that was published. It may be deleted while no reader runs: then parts are
// left over, and pushing again sends content that is there already.
const stateDir = protocol.ReservedPrefix + "state"

const (
	journalExt  = ".journal"
	manifestExt = ".published"
)

// stateKey names the state of a file.
func stateKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16])
}

func journalPath(name string) string { return filepath.Join(stateDir, stateKey(name)+journalExt) }

func manifestPath(name string) string { return filepath.Join(stateDir, stateKey(name)+manifestExt) }

func partPath(name string) string {
	return filepath.Join(filepath.Dir(name), protocol.ReservedPrefix+stateKey(name)+".part")
}

// readManifest returns what was published under name, if it is still there as
// it was. The journal knows it when the last step of a publish is missing.
func (d *Dir) readManifest(name string, target fs.FileInfo) (m manifest, ok bool) {
	for _, path := range []string{manifestPath(name), journalPath(name)} {
		f, err := d.disk.Read(path)
		if err != nil {
			continue
		}
		m, ok := lastManifest(f)
		f.Close()
		if ok && m.Name == name && m.is(target) {
			return m, true
		}
	}
	return manifest{}, false
}

// lastManifest reads the last line of f, which may be a manifest.
func lastManifest(f diskFile) (m manifest, ok bool) {
	info, err := f.Stat()
	if err != nil {
		return m, false
	}
	if _, err := f.Seek(max(0, info.Size()-maxLine), io.SeekStart); err != nil {
		return m, false
	}
	text, err := io.ReadAll(io.LimitReader(f, maxLine))
	text, whole := bytes.CutSuffix(text, []byte{'\n'})
	if err != nil || !whole {
		return m, false
	}
	ok = parseLine(text[bytes.LastIndexByte(text, '\n')+1:], &m) && m.Name != "" && !m.When.IsZero()
	return m, ok
}

// writeManifest notes what is about to be published, or is. It is not synced
// and may end up torn, which its checksum shows: without it the next push
// compares content.
func (d *Dir) writeManifest(m manifest) error {
	f, err := d.disk.Open(manifestPath(m.Name))
	if err != nil {
		return err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.Write(appendLine(nil, m))
	}
	return errors.Join(err, f.Close())
}

// lockJournal opens and locks the journal of name, so that no two processes
// write one part. Fresh says that there is nothing in it.
func (d *Dir) lockJournal(name string) (f diskFile, fresh bool, err error) {
	path := journalPath(name)
	for {
		f, err := d.disk.Open(path)
		if err != nil {
			return nil, false, err
		}
		if err := f.TryLock(); err != nil {
			f.Close()
			if errors.Is(err, errLocked) {
				return nil, false, protocol.Errorf(protocol.CodeConflict, "%q is in use by a push to another reader on the same directory", name)
			}
			return nil, false, err
		}
		still, size, err := d.isStill(f, path)
		if err == nil && still {
			return f, size == 0, nil
		}
		f.Close() // whoever had the lock has removed the file
		if err != nil {
			return nil, false, err
		}
	}
}

// isStill reports whether f is what path names, and its size.
func (d *Dir) isStill(f diskFile, path string) (still bool, size int64, err error) {
	opened, err := f.Stat()
	if err != nil {
		return false, 0, err
	}
	named, err := d.disk.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, 0, nil
	}
	return err == nil && d.same(opened, named), opened.Size(), err
}

// clean removes the parts that nobody came back for within ttl and notes that
// mean nothing any more. It touches nothing that is not in the state
// directory or named there, and nothing in use.
func (d *Dir) clean(ttl time.Duration) error {
	names, err := d.disk.ReadDir(stateDir)
	if err != nil {
		return err
	}
	for _, file := range names {
		path := filepath.Join(stateDir, file)
		switch {
		case strings.HasSuffix(file, journalExt):
			d.cleanJournal(path, ttl)
		case strings.HasSuffix(file, manifestExt):
			d.cleanManifest(path)
		}
	}
	return nil
}

func (d *Dir) cleanJournal(path string, ttl time.Duration) {
	f, err := d.disk.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	if f.TryLock() != nil {
		return
	}
	info, err := f.Stat()
	if err != nil {
		return
	}
	h, _, _, ok := readJournal(f)
	if ok && partPath(h.Name) != h.Part {
		return // not one of ours
	}
	if ok {
		part, err := d.disk.Lstat(h.Part)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if d.settle(f, path) {
				return
			}
		case err != nil, time.Since(latest(info.ModTime(), part.ModTime())) < ttl:
			return
		case part.Mode().IsRegular():
			if d.disk.Remove(h.Part) != nil {
				return // the journal is what finds it the next time
			}
		}
	}
	_ = d.disk.Remove(path)
}

// settle does the last step of a publish that was cut off before it: the
// journal f becomes the manifest, if it has one that holds.
func (d *Dir) settle(f diskFile, path string) bool {
	m, ok := lastManifest(f)
	if !ok || path != journalPath(m.Name) {
		return false
	}
	target, err := d.disk.Lstat(m.Name)
	return err == nil && m.is(target) && d.disk.Rename(path, manifestPath(m.Name)) == nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (d *Dir) cleanManifest(path string) {
	f, err := d.disk.Read(path)
	if err != nil {
		return
	}
	m, ok := lastManifest(f)
	info, err := f.Stat()
	f.Close()
	if err != nil || info.Size() == 0 {
		return
	}
	if ok {
		if _, err := d.disk.Lstat(m.Name); !errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	_ = d.disk.Remove(path)
}
