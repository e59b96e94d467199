// Syncs of directories that are shared, and when files are synced.

package sink

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lazyDisk makes durable what a directory has when its sync begins, and takes
// its time to say so: what came in between is not durable.
type lazyDisk struct {
	*strictFS
	syncs   atomic.Int32
	entered chan struct{} // gets a value when a sync has begun, unless nil
	gate    chan error    // each sync ends with a value of it, unless nil
}

func (d *lazyDisk) SyncDir(name string) error {
	err := d.strictFS.SyncDir(name)
	d.syncs.Add(1)
	if d.gate == nil {
		time.Sleep(100 * time.Microsecond)
		return err
	}
	d.entered <- struct{}{}
	return <-d.gate
}

func newGatedDisk() *lazyDisk {
	return &lazyDisk{strictFS: newStrictFS(), entered: make(chan struct{}), gate: make(chan error)}
}

// serve lets all syncs succeed until wg is done.
func (d *lazyDisk) serve(wg *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	for {
		select {
		case <-d.entered:
			d.gate <- nil
		case <-done:
			return
		}
	}
}

// asleep waits until n syncs of the root wait for the one that is running.
func (s *dirSyncs) asleep(t *testing.T, n int, arrived *atomic.Int32) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.waiting["."] != nil && int(arrived.Load()) == n
	}, 30*time.Second, time.Millisecond)
}

func TestDirSyncsAreShared(t *testing.T) {
	d := newGatedDisk()
	s := newDirSyncs(d)
	var arrived atomic.Int32
	var wg sync.WaitGroup
	wg.Go(func() { assert.NoError(t, s.sync(".")) })
	<-d.entered
	for range 30 {
		wg.Go(func() {
			arrived.Add(1)
			assert.NoError(t, s.sync("."))
		})
	}
	s.asleep(t, 30, &arrived)
	require.EqualValues(t, 1, d.syncs.Load(), "a second one begins only when the first has ended")
	d.gate <- nil
	d.serve(&wg)
	require.Less(t, int(d.syncs.Load()), 10) // 2, but for goroutines that were late to join
	require.Empty(t, s.running)
	require.Empty(t, s.waiting)
}

// A sync that fails fails all whose change it may have been to write: those that
// waited for it, and those that came too late for it but had changed the
// directory before.
func TestDirSyncsFailTogether(t *testing.T) {
	d := newGatedDisk()
	s := newDirSyncs(d)
	var arrived atomic.Int32
	var wg sync.WaitGroup
	errs := make([]error, 10)
	before := s.mark()
	wg.Go(func() { errs[0] = s.path(".", before) })
	<-d.entered
	for i := 1; i < len(errs); i++ {
		wg.Go(func() {
			arrived.Add(1)
			errs[i] = s.path(".", before)
		})
	}
	s.asleep(t, len(errs)-1, &arrived)
	d.gate <- strictEIO
	d.serve(&wg)
	for i, err := range errs {
		require.ErrorIs(t, err, strictEIO, "%d", i)
	}
	wg.Go(func() { errs[0] = s.path(".", s.mark()) })
	d.serve(&wg)
	require.NoError(t, errs[0], "a later change has nothing to do with it")
}

// Many pushes at once, each durable when it is published, on fewer syncs of the
// directory than files.
func TestPublishTogether(t *testing.T) {
	for _, fsync := range []Fsync{FsyncAlways, FsyncCommit} {
		t.Run(string(fsync), func(t *testing.T) {
			disk := &lazyDisk{strictFS: newStrictFS()}
			d, err := newDir("/together", disk, strictSame, DirOptions{Fsync: fsync})
			require.NoError(t, err)
			const workers, each = 16, 8
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					for i := range each {
						p := newPowerPush(fmt.Sprintf("file-%d-%d", w, i), powerContent(byte(w), 5_000))
						if _, err := p.run(d); !assert.NoError(t, err) {
							return
						}
						assert.True(t, disk.crash(strictNothing, strictNothing).holds(p.name, p.content), "%s is published and not durable", p.name)
					}
				})
			}
			wg.Wait()
			t.Logf("%d files, %d syncs of their directory", workers*each, disk.syncs.Load())
			require.Less(t, int(disk.syncs.Load()), workers*each)
			for _, name := range disk.list() {
				require.NotContains(t, name, ".part")
				require.NotContains(t, name, journalExt)
			}
		})
	}
}

// Each policy syncs when it says, and not otherwise.
func TestFsyncPolicies(t *testing.T) {
	for _, c := range []struct {
		fsync                     Fsync
		staged, published, folder int // syncs
	}{
		{"", 1, 1, 1},
		{FsyncAlways, 1, 1, 1},
		{FsyncCommit, 0, 1, 1},
		{FsyncNever, 0, 0, 0},
	} {
		t.Run("policy_"+string(c.fsync), func(t *testing.T) {
			disk := newStrictFS()
			d, err := newDir("/policy", disk, strictSame, DirOptions{Fsync: c.fsync})
			require.NoError(t, err)
			p := newPowerPush("file", powerContent(70, 5_000))
			a, err := p.create(d)
			require.NoError(t, err)
			require.NoError(t, p.write(a, int64(len(p.content))))
			require.NoError(t, a.file.Stage(strictContext, powerDigest(p.content)))
			require.Equal(t, c.staged, disk.kinds("sync"))
			require.Zero(t, disk.kinds("syncdir"))
			_, err = a.file.Publish(strictContext)
			require.NoError(t, err)
			require.Equal(t, c.published, disk.kinds("sync"))
			require.Equal(t, c.folder, disk.kinds("syncdir"))
			require.Equal(t, c.folder == 1, disk.crash(strictNothing, strictNothing).holds(p.name, p.content))
		})
	}
}

// With commit a sync that fails is a failed receipt, and no file.
func TestFsyncCommitFails(t *testing.T) {
	disk := newStrictFS()
	disk.fail = strictFailNth("sync", 1, syscall.ENOSPC) // room is found only then on some systems
	d, err := newDir("/policy", disk, strictSame, DirOptions{Fsync: FsyncCommit})
	require.NoError(t, err)
	first, p := newPowerPush("first", powerContent(74, 25_000)), newPowerPush("file", powerContent(71, 25_000))
	_, err = first.run(d)
	require.NoError(t, err)
	_, err = p.run(d)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, []string{manifestPath(first.name), first.name}, disk.list(), "something is left of it")
	_, err = p.run(d)
	require.NoError(t, err)
	require.True(t, disk.crash(strictNothing, strictNothing).holds(p.name, p.content))
	require.Zero(t, disk.resyncs)
}

// What was published without a sync is not taken for durable by a reader that
// syncs: it is compared and synced.
func TestFsyncNeverIsNotTrusted(t *testing.T) {
	disk := newStrictFS()
	p := newPowerPush("file", powerContent(72, 25_000))
	for _, c := range []struct {
		fsync     Fsync
		published bool
	}{{FsyncNever, false}, {FsyncNever, true}, {FsyncAlways, false}, {FsyncCommit, true}} {
		d, err := newDir("/policy", disk, strictSame, DirOptions{Fsync: c.fsync})
		require.NoError(t, err)
		have, err := p.run(d)
		require.NoError(t, err)
		require.Equal(t, c.published, have.Published, "known by its manifest")
		require.Equal(t, c.fsync != FsyncNever, disk.crash(strictNothing, strictNothing).holds(p.name, p.content))
	}
}

// A small file is one new entry, any other one two, and nothing is removed.
func TestFileCosts(t *testing.T) {
	for name, c := range map[string]struct {
		size  int
		costs map[string]int
		files []string
	}{
		"small": {smallSize, map[string]int{
			"lstat": 1, "create": 1, "put": 1, "sync": 1, "link": 1, "close": 1, "syncdir": 1,
		}, []string{"file"}},
		"large": {smallSize + 1, map[string]int{
			"lstat": 3, "open": 1, "lock": 1, "stat": 2, "allocate": 1, "create": 1, "put": 5,
			"sync": 1, "close": 2, "rename": 2, "syncdir": 1,
		}, []string{manifestPath("file"), "file"}},
	} {
		t.Run(name, func(t *testing.T) {
			disk := newStrictFS()
			d, err := newDir("/small", disk, strictSame, DirOptions{})
			require.NoError(t, err)
			first := len(disk.ops)
			_, err = newPowerPush("file", powerContent(73, c.size)).run(d)
			require.NoError(t, err)
			count := map[string]int{}
			for _, op := range disk.ops[first:] {
				count[op.Kind]++
			}
			require.Equal(t, c.costs, count)
			require.Equal(t, c.files, disk.list())
		})
	}
}
