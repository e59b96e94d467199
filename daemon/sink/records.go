// Notes of stores whose uploads live elsewhere: how to go on after a restart.

package sink

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

const recordExt = ".json"

// records keeps one JSON object for each file that a store has under way, in
// a directory of its own, and knows which names are in use. What it holds is
// needed to resume and for nothing else: a record that is missing or damaged
// costs a start from the beginning. A records without a directory only knows
// the names.
type records struct {
	dir string // "" keeps nothing on disk

	mu   sync.Mutex
	used map[string]bool
}

// openRecords opens the records of the store that spec describes, beneath
// dir, which is made when it is missing. Two processes must not open the same.
func openRecords(dir, spec string) (*records, error) {
	r := &records{used: map[string]bool{}}
	if dir == "" {
		return r, nil
	}
	r.dir = filepath.Join(dir, stateKey(spec))
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("sink %s: the directory for uploads under way: %w", spec, err)
	}
	return r, nil
}

// take claims name until release.
func (r *records) take(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used[name] {
		return protocol.Errorf(protocol.CodeConflict, "%q is in use by another push", name)
	}
	r.used[name] = true
	return nil
}

func (r *records) release(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, name)
}

func (r *records) path(name string) string { return filepath.Join(r.dir, stateKey(name)+recordExt) }

// load reads the record of name into v and reports whether there is one.
func (r *records) load(name string, v any) bool {
	if r.dir == "" {
		return false
	}
	b, err := os.ReadFile(r.path(name))
	return err == nil && parseLine(b, v)
}

// save replaces the record of name. A kill leaves the old one or the new one;
// a power loss may leave neither.
func (r *records) save(name string, v any) error {
	if r.dir == "" {
		return nil
	}
	path := r.path(name)
	b := appendLine(nil, v)
	if err := os.WriteFile(path+".new", b[:len(b)-1], 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// drop forgets the record of name.
func (r *records) drop(name string) error {
	if r.dir == "" {
		return nil
	}
	if err := os.Remove(r.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// expired calls each with the records that were not saved for ttl, and drops
// those that it says are done with.
func (r *records) expired(ttl time.Duration, each func(record json.RawMessage) (done bool)) error {
	if r.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasSuffix(e.Name(), recordExt) || time.Since(info.ModTime()) < ttl {
			continue
		}
		path := filepath.Join(r.dir, e.Name())
		b, err := os.ReadFile(path)
		var record json.RawMessage
		if err == nil && (!parseLine(b, &record) || each(record)) {
			_ = os.Remove(path)
		}
	}
	return nil
}

// goesOnByCRC reports whether a store that cannot read back what it has may
// resume the content of o: the rest is then checked by CRC32C, not by the
// digest, whose state cannot be kept. That finds accidents, as xxh128 does,
// but no forger, whom the user of SHA-256 or BLAKE3 has in mind.
func goesOnByCRC(o *protocol.Offer) bool {
	return o.Digest == protocol.DigestXXH128 || o.Digest == protocol.DigestNone
}
