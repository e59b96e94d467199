// The dir store's state on disk: where it lives, and what is cleaned up.

package sink

import (
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
// it was.
func (d *Dir) readManifest(name string, target fs.FileInfo) (m manifest, ok bool) {
	f, err := d.disk.Read(manifestPath(name))
	if err != nil {
		return m, false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLine))
	if err != nil || len(text) == 0 || !parseLine(text[:len(text)-1], &m) {
		return manifest{}, false
	}
	return m, m.Name == name && m.Size == target.Size() && m.MTime.Equal(target.ModTime())
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
// write one part.
func (d *Dir) lockJournal(name string) (diskFile, error) {
	path := journalPath(name)
	for {
		f, err := d.disk.Open(path)
		if err != nil {
			return nil, err
		}
		if err := f.TryLock(); err != nil {
			f.Close()
			if errors.Is(err, errLocked) {
				return nil, protocol.Errorf(protocol.CodeConflict, "%q is in use by a push to another reader on the same directory", name)
			}
			return nil, err
		}
		still, err := d.isStill(f, path)
		if err == nil && still {
			return f, nil
		}
		f.Close() // whoever had the lock has removed the file
		if err != nil {
			return nil, err
		}
	}
}

// isStill reports whether f is what path names.
func (d *Dir) isStill(f diskFile, path string) (bool, error) {
	opened, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := d.disk.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && d.same(opened, named), err
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
	text, err := io.ReadAll(io.LimitReader(f, maxLine))
	f.Close()
	var m manifest
	if err != nil || len(text) == 0 {
		return
	}
	if parseLine(text[:len(text)-1], &m) {
		if _, err := d.disk.Lstat(m.Name); !errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	_ = d.disk.Remove(path)
}
