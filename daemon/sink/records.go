// Notes of stores whose uploads live elsewhere: how to go on after a restart.

package sink

import (
	"context"
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

	life     context.Context // of tidying
	end      context.CancelFunc
	tidying  sync.WaitGroup
	lockFile *os.File // dir, nil before lock

	mu   sync.Mutex
	used map[string]error // by file: what others are told
	tidy time.Time        // when tidying began
}

// openRecords opens the records of the store that spec describes, beneath
// dir, which is made when it is missing.
func openRecords(dir, spec string) (*records, error) {
	r := &records{used: map[string]error{}}
	r.life, r.end = context.WithCancel(context.Background())
	if dir == "" {
		return r, nil
	}
	r.dir = filepath.Join(dir, stateKey(spec))
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("the directory for uploads under way, another of which --state may name: %w", err)
	}
	return r, nil
}

// lock keeps other processes from these records until close, for a store
// whose uploads two must not go on with. Where the file system has no locks
// nothing is kept.
func (r *records) lock() error {
	if r.dir == "" {
		return nil
	}
	f, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	if errors.Is(tryLock(f), errLocked) {
		f.Close()
		return fmt.Errorf("another reader has its uploads to there under way in %s: give each a directory of its own with --state", filepath.Dir(r.dir))
	}
	r.lockFile = f
	return nil
}

// close ends tidying and lets other processes have the records.
func (r *records) close() {
	r.end()
	r.tidying.Wait()
	if r.lockFile != nil {
		r.lockFile.Close()
	}
}

// take claims name until release.
func (r *records) take(name string) error {
	return r.claim(fileOf(name), protocol.Errorf(protocol.CodeConflict, "%q is in use by another push", name))
}

func (r *records) claim(file string, tell error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.used[file]; err != nil {
		return err
	}
	r.used[file] = tell
	return nil
}

func (r *records) release(name string) { r.free(fileOf(name)) }

func (r *records) free(file string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, file)
}

func fileOf(name string) string { return stateKey(name) + recordExt }

func (r *records) path(name string) string { return filepath.Join(r.dir, fileOf(name)) }

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

// expire calls each, in the background and once an hour, with the records that
// are not in use and were not saved for ttl, and drops those that it says are
// done with.
func (r *records) expire(ttl time.Duration, each func(ctx context.Context, record json.RawMessage) (done bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir == "" || r.life.Err() != nil || time.Since(r.tidy) < cleanEvery {
		return
	}
	r.tidy = time.Now()
	r.tidying.Go(func() {
		ctx, cancel := context.WithTimeout(r.life, cleanEvery/2)
		defer cancel()
		entries, _ := os.ReadDir(r.dir) // what cannot be read is not expired
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), recordExt) && ctx.Err() == nil {
				r.expireOne(ctx, e, ttl, each)
			}
		}
	})
}

func (r *records) expireOne(ctx context.Context, e fs.DirEntry, ttl time.Duration, each func(context.Context, json.RawMessage) bool) {
	if r.claim(e.Name(), protocol.Errorf(protocol.CodeBusy, "what is left of an old push of that name is being removed")) != nil {
		return
	}
	defer r.free(e.Name())
	info, err := e.Info()
	if err != nil || time.Since(info.ModTime()) < ttl {
		return
	}
	path := filepath.Join(r.dir, e.Name())
	b, err := os.ReadFile(path)
	var record json.RawMessage
	if err == nil && (!parseLine(b, &record) || each(ctx, record)) {
		_ = os.Remove(path)
	}
}

// goesOnByCRC reports whether a store that cannot read back what it has may
// resume the content of o: the rest is then checked by CRC32C, not by the
// digest, whose state cannot be kept. That finds accidents, as xxh128 does,
// but no forger, whom the user of SHA-256 or BLAKE3 has in mind.
func goesOnByCRC(o *protocol.Offer) bool {
	return o.Digest == protocol.DigestXXH128 || o.Digest == protocol.DigestNone
}
