// When the dir store syncs, and how publishes share it.

package sink

import (
	"fmt"
	"path/filepath"
	"sync"
)

// Fsync says when a Dir syncs what it stores.
type Fsync string

// The policies. The zero value is FsyncAlways.
const (
	// FsyncAlways syncs content before Ready, and the directory before the
	// receipt: what a reader said survives a power loss, but that a small file
	// is ready, which is sent again.
	FsyncAlways Fsync = "always"
	// FsyncCommit syncs both at the commit, content before it gets its name.
	// What is published is as durable as with FsyncAlways; what is staged may be
	// lost with the power, and a sync may fail on one reader when others have
	// published.
	FsyncCommit Fsync = "commit"
	// FsyncNever leaves it to the operating system. A file is whole or absent
	// whichever processes die, and may be anything after a power loss.
	FsyncNever Fsync = "never"
)

// ParseFsync reads always, commit or never.
func ParseFsync(s string) (Fsync, error) {
	switch f := Fsync(s); f {
	case FsyncAlways, FsyncCommit, FsyncNever:
		return f, nil
	default:
		return "", fmt.Errorf("%q is not always, commit or never", s)
	}
}

// dirSyncs syncs directories for publishes that go on at the same time: one
// sync serves all whose rename was done before it began. So of 32 files that
// come at once in one directory each waits for two syncs at most, the one
// under way and its own, and they cost not 32 but two or three.
type dirSyncs struct {
	disk disk

	mu      sync.Mutex
	running map[string]*dirSync // by directory
	waiting map[string]*dirSync // for the one that is running
	failed  dirMark             // how often one has
	failure error               // the last
}

// dirSync is one sync of one directory.
type dirSync struct {
	done chan struct{} // closed when err is set
	err  error
}

// dirMark is a moment in the life of a dirSyncs.
type dirMark int

func newDirSyncs(on disk) *dirSyncs {
	return &dirSyncs{disk: on, running: map[string]*dirSync{}, waiting: map[string]*dirSync{}}
}

// mark is taken before a change of a directory that is to be synced.
func (s *dirSyncs) mark() dirMark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// path makes the entry of a new file durable, with the directories that lead
// to it, any of which may be new. A sync that failed after since may have been
// the one that was to write the entry: the kernel takes pages that it could not
// write for written, and the next sync knows nothing of them.
func (s *dirSyncs) path(folder string, since dirMark) error {
	for {
		if err := s.sync(folder); err != nil {
			return err
		}
		if folder == "." {
			break
		}
		folder = filepath.Dir(folder)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != since {
		return s.failure
	}
	return nil
}

// sync returns when a sync of the directory that began after the call has ended.
func (s *dirSyncs) sync(folder string) error {
	s.mu.Lock()
	if next := s.waiting[folder]; next != nil {
		s.mu.Unlock()
		<-next.done
		return next.err
	}
	own := &dirSync{done: make(chan struct{})}
	if before := s.running[folder]; before != nil {
		s.waiting[folder] = own
		s.mu.Unlock()
		<-before.done
		s.mu.Lock()
		delete(s.waiting, folder)
	}
	s.running[folder] = own
	s.mu.Unlock()

	own.err = s.disk.SyncDir(folder)

	s.mu.Lock()
	delete(s.running, folder)
	if own.err != nil {
		s.failed++
		s.failure = own.err
	}
	s.mu.Unlock()
	close(own.done)
	return own.err
}
