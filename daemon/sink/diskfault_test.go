// Disks that are full, read-only or broken.

package sink

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

var faultErrors = []struct {
	err  error
	code protocol.Code
}{
	{syscall.ENOSPC, protocol.CodeNoSpace},
	{syscall.EDQUOT, protocol.CodeNoSpace},
	{syscall.EROFS, protocol.CodeDenied},
	{syscall.EACCES, protocol.CodeDenied},
	{syscall.EIO, protocol.CodeIO},
	{strictShort{syscall.ENOSPC}, protocol.CodeNoSpace},
	{strictShort{nil}, ""}, // a short write that says nothing
}

// faultScenarios are publishes, each with what is there before.
var faultScenarios = []struct {
	name    string
	small   bool
	prepare func(t *testing.T, disk *strictFS, p *powerPush)
	old     func(p *powerPush) []byte
	change  []func(*protocol.Offer)
}{
	{name: "new"},
	{name: "preserve", change: []func(*protocol.Offer){powerPreserve}},
	{name: "force", change: []func(*protocol.Offer){powerForce}, old: func(*powerPush) []byte { return []byte("old") }},
	{name: "unchanged", old: func(p *powerPush) []byte { return p.content }},
	{name: "known", old: func(p *powerPush) []byte { return p.content }, prepare: func(t *testing.T, disk *strictFS, p *powerPush) {
		d, err := newDir("/fault", disk, strictSame, DirOptions{})
		require.NoError(t, err)
		_, err = p.run(d)
		require.NoError(t, err)
	}},
	{name: "resumed", prepare: func(t *testing.T, disk *strictFS, p *powerPush) {
		d, err := newDir("/fault", disk, strictSame, DirOptions{})
		require.NoError(t, err)
		a, err := p.create(d)
		require.NoError(t, err)
		require.NoError(t, p.write(a, int64(len(p.content))/2))
		a.file.Discard(true)
	}},
	{name: "small", small: true},
	{name: "small unchanged", small: true, old: func(p *powerPush) []byte { return p.content }},
	{name: "small preserve", small: true, change: []func(*protocol.Offer){powerPreserve}},
	{name: "small force", small: true, change: []func(*protocol.Offer){powerForce}, old: func(*powerPush) []byte { return []byte("old") }},
	{name: "small force unchanged", small: true, change: []func(*protocol.Offer){powerForce}, old: func(p *powerPush) []byte { return p.content }},
	{name: "same size and time", change: []func(*protocol.Offer){powerForce, powerPreserve}, old: func(p *powerPush) []byte {
		return powerContent(51, len(p.content))
	}, prepare: func(t *testing.T, disk *strictFS, p *powerPush) {
		require.NoError(t, disk.Chtimes(p.name, p.offer.MTime))
	}},
}

// TestDiskFaults fails every operation of each publish, once, in every way.
func TestDiskFaults(t *testing.T) {
	for _, s := range faultScenarios {
		content := powerContent(50, 45_000)
		if s.small {
			content = powerContent(50, 12_000)
		}
		t.Run(strings.ReplaceAll(s.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			p := newPowerPush("a/file", content, s.change...)
			setUp := func(t *testing.T) (disk *strictFS, old []byte, first int) {
				disk = newStrictFS()
				disk.lent, disk.limit = true, 10_000
				if s.old != nil {
					old = s.old(p)
					disk.put(t, p.name, old, true)
				}
				if s.prepare != nil {
					s.prepare(t, disk, p)
				}
				return disk, old, len(disk.ops)
			}
			disk, _, first := setUp(t)
			d, err := newDir("/fault", disk, strictSame, DirOptions{})
			require.NoError(t, err)
			_, err = p.run(d)
			require.NoError(t, err)
			ops := disk.ops[first:]
			failed := 0
			for i, op := range ops {
				for _, e := range faultErrors {
					var short strictShort
					if errors.As(e.err, &short) && op.Kind != "put" {
						continue
					}
					for _, restart := range []bool{false, true} {
						disk, old, first := setUp(t)
						if faultOnce(t, disk, p, old, first+i, op, e.err, e.code, restart) {
							failed++
						}
						if t.Failed() {
							break // one of an operation is enough
						}
					}
				}
			}
			t.Logf("%d operations, %d failures seen by the push", len(ops), failed)
			require.NotZero(t, failed)
		})
	}
}

// faultOnce fails the operation of that index, once, and does the push again.
func faultOnce(t *testing.T, disk *strictFS, p *powerPush, old []byte, index int, op strictOp, fault error, code protocol.Code, restart bool) (failed bool) {
	check := func(ok bool, what string, args ...any) {
		t.Helper()
		if !ok {
			t.Errorf("%s %s fails with %v, restart %v: "+what, append([]any{op.Kind, op.Name, fault, restart}, args...)...)
		}
	}
	disk.fail = strictFailAt(index, fault)
	hadPart := disk.content(partPath(p.name)) != nil
	var taken int64
	var created bool
	d, err := newDir("/fault", disk, strictSame, DirOptions{})
	if err == nil {
		var a *powerAttempt
		if a, err = p.create(d); err == nil {
			created = true
			err = p.write(a, int64(len(p.content)))
			taken = a.taken
			if err == nil {
				err = a.file.Stage(strictContext, powerDigest(p.content))
			}
			if err == nil {
				_, err = a.file.Publish(strictContext)
			}
			if err != nil {
				a.file.Discard(true)
			}
		}
	}
	disk.fail = nil
	switch {
	case err == nil:
		check(disk.holds(p.name, p.content), "published, but it is not there")
		check(disk.crash(strictNothing, strictNothing).holds(p.name, p.content), "published, but it is not durable")
	case code != "":
		check(protocol.HasCode(err, code), "the code is %s, want %s: %v", protocol.AsError(err).Code, code, err)
	}
	check(disk.holds(p.name, old) || disk.holds(p.name, p.content), "the name holds %d bytes", len(disk.content(p.name)))
	check(disk.open == 0, "%d files are open", disk.open)

	if restart || d == nil {
		var again error
		d, again = newDir("/fault", disk, strictSame, DirOptions{})
		require.NoError(t, again)
	}
	have, again := p.run(d)
	check(again == nil, "pushing again: %v", again)
	check(disk.holds(p.name, p.content), "pushing again did not publish")
	check(disk.crash(strictNothing, strictNothing).holds(p.name, p.content), "pushing again is not durable")
	check(disk.open == 0, "%d files are open in the end", disk.open)
	check(disk.resyncs == 0 || old != nil, "synced again after the sync failed")
	if err := powerLeft(disk, p); err != nil {
		check(restart, "%v", err) // a restart cleans more than a push
	}
	// What was taken is not taken again: not after a sync that failed, and not
	// beyond what the journal could note.
	whole := taken == int64(len(p.content))
	if err != nil && whole && op.Kind != "sync" && old == nil && len(p.content) > smallSize {
		check(have.Published || have.Offset == taken || disk.count("rename", p.name) > 0, "%d bytes were taken, it goes on from %d", taken, have.Offset)
	}
	if err != nil && !created && hadPart {
		check(have.Offset > 0, "what was received before is lost, without need: %v", err)
	}
	return err != nil
}

// A disk that fails for good is an error, not a loop.
func TestDiskFaultsThatStay(t *testing.T) {
	t.Parallel()
	p := newPowerPush("file", powerContent(52, 20_000))
	kinds := []string{"lstat", "open", "create", "read-only", "readdir", "mkdir", "rename", "syncdir", "put", "truncate", "seek", "stat", "sync", "allocate", "lock"}
	for _, kind := range kinds {
		for _, e := range faultErrors[:5] {
			t.Run(kind+"_"+e.err.Error(), func(t *testing.T) {
				disk := newStrictFS()
				d, err := newDir("/fault", disk, strictSame, DirOptions{})
				require.NoError(t, err)
				a, err := p.create(d)
				require.NoError(t, err)
				require.NoError(t, p.write(a, 10_000))
				a.file.Discard(true)
				disk.limit = 5_000
				disk.fail = strictFailAlways(kind, "", e.err)
				require.NotPanics(t, func() { _, err = p.run(d) })
				if err != nil {
					require.True(t, protocol.HasCode(err, e.code), "the code is %s, want %s: %v", protocol.AsError(err).Code, e.code, err)
				}
				if kind != "readdir" && kind != "mkdir" && kind != "read-only" && kind != "create" {
					require.Error(t, err)
				}
				require.Zero(t, disk.open, "files are open")
				disk.fail = nil
				_, err = p.run(d)
				require.NoError(t, err)
				require.True(t, disk.holds("file", p.content))
			})
		}
	}
}

// A sync that failed leaves pages in the cache that the disk does not have. A
// disk that is read-only from then on, as Linux makes it, does not let the part
// be removed; it is not to be trusted all the same.
func TestDiskFaultsSyncThenReadOnly(t *testing.T) {
	t.Parallel()
	p := newPowerPush("file", powerContent(53, 1_200_000))
	disk := newStrictFS()
	d, err := newDir("/fault", disk, strictSame, DirOptions{})
	require.NoError(t, err)
	broken := false
	disk.fail = func(op strictOp) error {
		switch {
		case op.Kind == "sync":
			broken = true
			return syscall.EIO
		case broken && slices.Contains([]string{"remove", "rename", "put", "truncate", "create"}, op.Kind):
			return syscall.EROFS
		}
		return nil
	}
	_, err = p.run(d)
	require.ErrorIs(t, err, syscall.EIO)
	disk.fail = nil
	have, err := p.run(d)
	require.NoError(t, err)
	require.Zero(t, have.Offset, "it goes on from a part whose sync failed")
	require.Zero(t, disk.resyncs)
	require.True(t, disk.crash(strictNothing, strictNothing).holds("file", p.content), "published, but it is not durable")
}

// A transfer that is cut off while its part is checked loses nothing of it.
func TestDiskFaultsCutWhileChecking(t *testing.T) {
	t.Parallel()
	p := newPowerPush("file", powerContent(54, 3_500_000))
	for cut := range 4 {
		disk := newStrictFS()
		disk.lent = true
		d, err := newDir("/fault", disk, strictSame, DirOptions{})
		require.NoError(t, err)
		a, err := p.create(d)
		require.NoError(t, err)
		require.NoError(t, p.write(a, 3_400_000))
		a.file.Discard(true)

		ctx, cancel := context.WithCancel(strictContext)
		offer, told := p.offer, 0
		f, _, err := d.Create(ctx, Request{Offer: &offer, Prefix: &bytes.Buffer{}, Tell: func(string) {
			if told == cut {
				cancel()
			}
			told++
		}})
		if err == nil {
			f.Discard(true)
		}
		cancel()
		require.Zero(t, disk.open)
		a, err = p.create(d)
		require.NoError(t, err)
		require.EqualValues(t, 3_400_000, a.have.Offset, "cut off when %d records were checked", cut)
		a.file.Discard(true)
	}
}

// A part that cannot be looked at when a reader starts stays known.
func TestDiskFaultsWhileCleaning(t *testing.T) {
	t.Parallel()
	p := newPowerPush("file", powerContent(55, 20_000))
	for _, e := range faultErrors[:5] {
		disk := newStrictFS()
		d, err := newDir("/fault", disk, strictSame, DirOptions{})
		require.NoError(t, err)
		a, err := p.create(d)
		require.NoError(t, err)
		require.NoError(t, p.write(a, 10_000))
		a.file.Discard(true)
		disk.fail = strictFailAlways("lstat", partPath("file"), e.err)
		d, err = newDir("/fault", disk, strictSame, DirOptions{})
		require.NoError(t, err)
		disk.fail = nil
		a, err = p.create(d)
		require.NoError(t, err)
		require.EqualValues(t, 10_000, a.have.Offset, "after %v", e.err)
		a.file.Discard(false)
		require.NoError(t, powerLeft(disk, p))
	}
}

// More than a disk can have is an answer to the offer, and leaves nothing.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	d, err := OpenDir(dir, DirOptions{})
	require.NoError(t, err)
	defer d.Close()
	p := newPowerPush("file", nil, func(o *protocol.Offer) { o.Size = 1 << 60 })
	a, err := p.create(d)
	if err == nil {
		a.file.Discard(false)
		t.Skip("this file system does not allocate")
	}
	require.True(t, protocol.HasCode(err, protocol.CodeNoSpace), "%v", err)
	require.ErrorContains(t, err, "1152921504606846976 bytes")
	require.Empty(t, faultFiles(t, dir))

	p = newPowerPush("file", []byte("small"))
	_, err = p.run(d)
	require.NoError(t, err)
}

func TestDiskReadOnly(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root writes anywhere")
	}
	dir := t.TempDir()
	d, err := OpenDir(dir, DirOptions{})
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, os.Chmod(dir, 0o555))
	defer os.Chmod(dir, 0o755)
	_, err = newPowerPush("file", []byte("content")).run(d)
	require.True(t, protocol.HasCode(err, protocol.CodeDenied), "%v", err)
	require.NoError(t, os.Chmod(dir, 0o755))
	_, err = newPowerPush("file", []byte("content")).run(d)
	require.NoError(t, err)
}

// faultFiles lists what is in dir besides manifests.
func faultFiles(t *testing.T, dir string) (names []string) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.HasSuffix(path, manifestExt) {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	}))
	return names
}
