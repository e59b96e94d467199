// Going on with a file after anything, on a real file system.

package sink

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

var resumeSeed = flag.Uint64("resume.seed", 0, "seed of the tests of resuming; 0: a random one, which is printed")

var errFaultCut = errors.New("the connection was cut")

func faultRand(t *testing.T) *rand.Rand {
	seed := *resumeSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (-resume.seed repeats it)", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// faultReader is a reader's store and Leaf, just started.
func faultReader(t *testing.T, path string) (*Dir, *Leaf, func()) {
	t.Helper()
	d, err := OpenDir(path, DirOptions{})
	require.NoError(t, err)
	l := NewLeaf(d)
	stop := func() {
		l.Close()
		d.Close()
	}
	t.Cleanup(stop)
	return d, l, stop
}

// faultCut begins a push at l and cuts it off at end.
func faultCut(t *testing.T, l *Leaf, p *powerPush, end int64, chunk int) *protocol.Accept {
	t.Helper()
	offer := p.offer
	tr, a, err := l.Begin(strictContext, &offer, &faultUp{})
	require.NoError(t, err)
	faultSend(t, tr, p.content, a.Offset, end, chunk)
	tr.Abort(errFaultCut)
	return a
}

// faultDone does the push and looks at what is there then.
func faultDone(t *testing.T, dir string, l *Leaf, p *powerPush) (*protocol.Accept, protocol.Receipt) {
	t.Helper()
	a, r, err := faultReceive(t, l, p)
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(dir, p.name))
	require.NoError(t, err)
	require.True(t, bytes.Equal(p.content, got), "the name holds %d other bytes", len(got))
	require.Equal(t, powerDigest(p.content), r.Digest)
	require.Equal(t, []string{p.name}, faultFiles(t, dir))
	return a, r
}

// A reader that was killed has what the journal knows; the file is not shut as
// by a process that ends well.
func TestResumeAfterKill(t *testing.T) {
	t.Parallel()
	rng := faultRand(t)
	content := powerContent(60, 5<<20)
	for range 8 {
		dir := t.TempDir()
		p := newPowerPush("sub/file", content)
		chunk := 1000 + rng.IntN(300_000)
		_, l, stop := faultReader(t, dir)
		cut := journalStep + int64(chunk) + rng.Int64N(int64(len(content)-journalStep-chunk))
		faultCut(t, l, p, cut, chunk)
		// A copy of the directory, as it is now, is what a kill leaves.
		killed := t.TempDir()
		require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))
		stop()

		_, l, _ = faultReader(t, killed)
		a, r := faultDone(t, killed, l, p)
		require.Positive(t, a.Offset)
		require.LessOrEqual(t, a.Offset, cut)
		require.GreaterOrEqual(t, a.Offset, cut-journalStep-int64(chunk), "cut at %d, chunks of %d", cut, chunk)
		require.Equal(t, a.Offset, r.ResumedFrom)
		require.Equal(t, protocol.LeafPublished, r.Status)
	}
}

// A reader that ends well loses nothing.
func TestResumeAfterRestart(t *testing.T) {
	t.Parallel()
	rng := faultRand(t)
	content := powerContent(61, 3<<20)
	dir := t.TempDir()
	p := newPowerPush("file", content)
	cut := int64(0)
	for range 20 { // restarted again and again, it never goes back
		_, l, stop := faultReader(t, dir)
		next := min(cut+1+rng.Int64N(200_000), int64(len(content)))
		require.Equal(t, cut, faultCut(t, l, p, next, 70_000).Offset)
		cut = next
		stop()
	}
	_, l, _ := faultReader(t, dir)
	a, _ := faultDone(t, dir, l, p)
	require.Equal(t, cut, a.Offset)
}

// A part that was touched is noticed, however it was.
func TestResumeOfTouchedPart(t *testing.T) {
	t.Parallel()
	rng := faultRand(t)
	const cut = 2_500_000
	for _, c := range []struct {
		name  string
		touch func(t *testing.T, part string)
		most  int64 // that it may go on from
		note  string
	}{
		{"edited at its start", func(t *testing.T, part string) { faultEdit(t, part, 7) }, 0, "only 0 of the 2500000 bytes"},
		{"edited in the middle", func(t *testing.T, part string) { faultEdit(t, part, 1_200_000+rng.Int64N(800_000)) }, 1_200_000, "of the 2500000 bytes"},
		{"edited at its end", func(t *testing.T, part string) { faultEdit(t, part, cut-1) }, 2_200_000, "of the 2500000 bytes"},
		{"truncated", func(t *testing.T, part string) { require.NoError(t, os.Truncate(part, 1_900_000)) }, 1_200_000, "of the 2500000 bytes"},
		{"emptied", func(t *testing.T, part string) { require.NoError(t, os.Truncate(part, 0)) }, 0, "only 0 of the"},
		{"grown", func(t *testing.T, part string) { require.NoError(t, os.Truncate(part, 2_900_000)) }, cut, ""},
		{"grown beyond the file", func(t *testing.T, part string) { require.NoError(t, os.Truncate(part, 9_000_000)) }, cut, ""},
		{"removed", func(t *testing.T, part string) { require.NoError(t, os.Remove(part)) }, 0, ""},
		{"replaced by other content", func(t *testing.T, part string) {
			require.NoError(t, os.WriteFile(part, powerContent(63, cut), 0o666))
		}, 0, "only 0 of the"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			p := newPowerPush("file", powerContent(62, 3_000_000))
			_, l, stop := faultReader(t, dir)
			faultCut(t, l, p, cut, 100_000)
			stop()
			c.touch(t, filepath.Join(dir, partPath("file")))
			_, l, _ = faultReader(t, dir)
			a, _ := faultDone(t, dir, l, p)
			require.LessOrEqual(t, a.Offset, c.most)
			require.Contains(t, a.Leaves[0].Text, c.note)
		})
	}
}

func faultEdit(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
	require.NoError(t, err)
}

// What stands where a part should be and is no file is neither followed nor
// removed: it is for a person to look at.
func TestResumeOfReplacedPart(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"symlink", "directory"} {
		t.Run(kind, func(t *testing.T) {
			dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
			p := newPowerPush("file", powerContent(64, 100_000))
			_, l, stop := faultReader(t, dir)
			faultCut(t, l, p, 60_000, 30_000)
			stop()
			part := filepath.Join(dir, partPath("file"))
			if kind == "symlink" {
				require.NoError(t, os.Rename(part, outside))
				if err := os.Symlink(outside, part); err != nil {
					t.Skip(err)
				}
			} else {
				require.NoError(t, os.Remove(part))
				require.NoError(t, os.MkdirAll(filepath.Join(part, "sub"), 0o777))
			}
			_, l, _ = faultReader(t, dir)
			_, _, err := faultReceive(t, l, p)
			require.True(t, protocol.HasCode(err, protocol.CodeExists), "%v", err)
			require.NoFileExists(t, filepath.Join(dir, "file"))
			if kind == "symlink" {
				got, err := os.ReadFile(outside)
				require.NoError(t, err)
				require.Equal(t, p.content[:60_000], got, "it was written to through the link")
			}
			require.NoError(t, os.RemoveAll(part))
			faultDone(t, dir, l, p)
		})
	}
}

// A source that has changed starts from zero, and says so.
func TestResumeOfChangedSource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, l, stop := faultReader(t, dir)
	faultCut(t, l, newPowerPush("file", powerContent(65, 3_000_000)), 2_000_000, 100_000)
	stop()
	_, l, _ = faultReader(t, dir)
	changed := newPowerPush("file", powerContent(66, 3_000_000), func(o *protocol.Offer) { o.ID = "two" })
	a, r := faultDone(t, dir, l, changed)
	require.Zero(t, a.Offset)
	require.Contains(t, a.Leaves[0].Text, "the source has changed since 1.9 MiB of it were received: starting again from zero")
	require.Zero(t, r.ResumedFrom)
}

// A pipe is known by its transfer: another one does not go on with it.
func TestResumeOfPipe(t *testing.T) {
	t.Parallel()
	pipe := func(o *protocol.Offer) { o.Size, o.Fingerprint = -1, "" }
	dir := t.TempDir()
	p := newPowerPush("file", powerContent(67, 300_000), pipe)
	_, l, stop := faultReader(t, dir)
	faultCut(t, l, p, 200_000, 50_000)
	stop()
	_, l, stop = faultReader(t, dir)
	require.EqualValues(t, 200_000, faultCut(t, l, p, 250_000, 50_000).Offset)
	stop()
	_, l, _ = faultReader(t, dir)
	p.offer.ID = "two"
	a, _ := faultDone(t, dir, l, p)
	require.Zero(t, a.Offset)
}

// In one process a transfer that was cut off goes on at once, at the very byte.
func TestResumeSuspended(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, l, _ := faultReader(t, dir)
	p := newPowerPush("file", powerContent(68, 500_000))
	faultCut(t, l, p, 123_457, 10_000)
	p.offer.Attempt++
	require.EqualValues(t, 123_457, faultCut(t, l, p, 200_001, 10_000).Offset)

	// Cut off between Ready and Commit, it is staged again and published.
	offer := p.offer
	tr, a, err := l.Begin(strictContext, &offer, &faultUp{})
	require.NoError(t, err)
	require.EqualValues(t, 200_001, a.Offset)
	faultSend(t, tr, p.content, a.Offset, 500_000, 10_000)
	_, err = tr.Finish(strictContext, &protocol.Finish{Size: 500_000, Digest: powerDigest(p.content)})
	require.NoError(t, err)
	tr.Abort(errFaultCut)
	a, r := faultDone(t, dir, l, p)
	require.EqualValues(t, 500_000, a.Offset)
	require.Equal(t, protocol.LeafPublished, r.Status)
}

// A suspended transfer makes way for another push of the name, which goes on
// with what it has of the same source.
func TestResumeSuspendedMakesWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, l, _ := faultReader(t, dir)
	p := newPowerPush("file", powerContent(69, 500_000))
	faultCut(t, l, p, 300_000, 10_000)
	p.offer.ID = "two"
	require.EqualValues(t, 300_000, faultCut(t, l, p, 310_000, 10_000).Offset)
	other := newPowerPush("file", powerContent(70, 400_000), func(o *protocol.Offer) { o.ID = "three" })
	a, _ := faultDone(t, dir, l, other)
	require.Zero(t, a.Offset)

	// The same id with another source is not taken for the same.
	p.offer.Name, p.name = "second", "second"
	faultCut(t, l, p, 50_000, 10_000)
	changed := newPowerPush("second", powerContent(71, 500_000), func(o *protocol.Offer) { o.ID = "two" })
	a, _, err := faultReceive(t, l, changed)
	require.NoError(t, err)
	require.Zero(t, a.Offset)
	got, err := os.ReadFile(filepath.Join(dir, "second"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(changed.content, got))
}

// What the user took back is forgotten.
func TestResumeForgotten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, l, _ := faultReader(t, dir)
	p := newPowerPush("file", powerContent(72, 500_000))
	offer := p.offer
	tr, _, err := l.Begin(strictContext, &offer, &faultUp{})
	require.NoError(t, err)
	faultSend(t, tr, p.content, 0, 300_000, 10_000)
	tr.Abort(protocol.ErrForget)
	require.Empty(t, faultFiles(t, dir))
	a, _ := faultDone(t, dir, l, p)
	require.Zero(t, a.Offset)
}

// Content that was damaged before it got here is not gone on with.
func TestResumeNotOfWrongDigest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, l, _ := faultReader(t, dir)
	p := newPowerPush("file", powerContent(73, 300_000))
	offer := p.offer
	tr, a, err := l.Begin(strictContext, &offer, &faultUp{})
	require.NoError(t, err)
	wrong := bytes.Clone(p.content)
	wrong[1000] ^= 4
	faultSend(t, tr, wrong, a.Offset, 300_000, 100_000)
	_, err = tr.Finish(strictContext, &protocol.Finish{Size: 300_000, Digest: powerDigest(p.content)})
	require.True(t, protocol.HasCode(err, protocol.CodeDigest), "%v", err)
	tr.Abort(err)
	require.Empty(t, faultFiles(t, dir))
	a, _ = faultDone(t, dir, l, p)
	require.Zero(t, a.Offset)
}

// Two readers on one directory do not share a part.
func TestResumeNotByTwoReaders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, _, _ := faultReader(t, dir)
	second, _, _ := faultReader(t, dir)
	p := newPowerPush("file", powerContent(74, 300_000))
	a, err := p.create(first)
	require.NoError(t, err)
	require.NoError(t, p.write(a, 200_000))
	_, err = p.create(second)
	require.True(t, protocol.HasCode(err, protocol.CodeConflict), "%v", err)
	_, err = p.create(first)
	require.True(t, protocol.HasCode(err, protocol.CodeConflict), "%v", err)

	// A reader that starts leaves the part in use alone, however old.
	faultAge(t, dir, 100*24*time.Hour)
	faultReader(t, dir)
	require.NoError(t, p.write(a, 250_000))
	a.file.Discard(true)
	b, err := p.create(second)
	require.NoError(t, err)
	require.EqualValues(t, 250_000, b.have.Offset)
	b.file.Discard(true)
}

// faultAge makes all files in dir old.
func faultAge(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	for _, name := range faultFiles(t, dir) {
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), then, then))
	}
}

// At the start a store deletes what is stale of its own, and nothing else.
func TestResumeUntilTTL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, l, stop := faultReader(t, dir)
	for _, name := range []string{"stale", "sub/stale"} {
		faultCut(t, l, newPowerPush(name, powerContent(75, 300_000), func(o *protocol.Offer) { o.ID = name }), 200_000, 50_000)
	}
	stop()
	foreign := []string{
		".sbcast-0123456789abcdef0123456789abcdef.part", ".sbcast-mine", "file", "sub/.sbcast-x.part",
		filepath.Join(stateDir, "notes.txt"), filepath.Join(stateDir, "sub.journal", "file"),
	}
	for _, name := range foreign {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o777))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("foreign"), 0o666))
	}
	// A journal that names a part which is not its own is not obeyed.
	victim := appendLine(nil, header{Name: "file", Part: "file", Source: "x", Size: 7, Begun: time.Now()})
	require.NoError(t, os.WriteFile(filepath.Join(dir, stateDir, "0000.journal"), victim, 0o666))
	faultAge(t, dir, DefaultPartTTL+time.Hour)
	_, l, stop = faultReader(t, dir)
	for _, name := range []string{"stale", "sub/stale"} {
		require.NoFileExists(t, filepath.Join(dir, partPath(name)))
		require.NoFileExists(t, filepath.Join(dir, journalPath(name)))
	}
	for _, name := range foreign {
		require.FileExists(t, filepath.Join(dir, name))
	}

	// One that is fresh stays, and one of which either file is.
	p := newPowerPush("fresh", powerContent(76, 300_000))
	faultCut(t, l, p, 200_000, 50_000)
	stop()
	then := time.Now().Add(-DefaultPartTTL - time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(dir, journalPath("fresh")), then, then))
	_, l, _ = faultReader(t, dir)
	a, _, err := faultReceive(t, l, p)
	require.NoError(t, err)
	require.EqualValues(t, 200_000, a.Offset)
}

// The manifest of a file that is gone goes too.
func TestResumeManifestOfGoneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, l, stop := faultReader(t, dir)
	for _, name := range []string{"gone", "here"} {
		_, _, err := faultReceive(t, l, newPowerPush(name, powerContent(77, 30_000), func(o *protocol.Offer) { o.ID = name }))
		require.NoError(t, err)
		require.FileExists(t, filepath.Join(dir, manifestPath(name)))
	}
	stop()
	require.NoError(t, os.Remove(filepath.Join(dir, "gone")))
	faultReader(t, dir)
	require.NoFileExists(t, filepath.Join(dir, manifestPath("gone")))
	require.FileExists(t, filepath.Join(dir, manifestPath("here")))
}

// A published file is known as such until somebody touches it.
func TestResumePublishedAndTouched(t *testing.T) {
	t.Parallel()
	content := powerContent(78, 200_000)
	for _, c := range []struct {
		name      string
		touch     func(t *testing.T, path string)
		published bool // by the manifest
		code      protocol.Code
	}{
		{name: "not", touch: func(*testing.T, string) {}, published: true},
		{name: "its time", touch: func(t *testing.T, path string) {
			then := time.Now().Add(-time.Hour)
			require.NoError(t, os.Chtimes(path, then, then))
		}},
		{name: "its content", code: protocol.CodeExists, touch: func(t *testing.T, path string) {
			faultEdit(t, path, 150_000)
			then := time.Now().Add(time.Hour) // later than the tick of a coarse clock
			require.NoError(t, os.Chtimes(path, then, then))
		}},
		{name: "its size", code: protocol.CodeExists, touch: func(t *testing.T, path string) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, 199_999))
			require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		}},
		{name: "removed", touch: func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			p := newPowerPush("file", content)
			_, l, _ := faultReader(t, dir)
			faultDone(t, dir, l, p)
			path := filepath.Join(dir, "file")
			c.touch(t, path)
			before, _ := os.Stat(path)

			a, r, err := faultReceive(t, l, p)
			if c.code != "" {
				require.True(t, protocol.HasCode(err, c.code), "%v", err)
				p.offer.Force = true
				_, r = faultDone(t, dir, l, p)
				require.Equal(t, protocol.LeafPublished, r.Status)
				return
			}
			require.NoError(t, err)
			want := protocol.LeafUnchanged
			if before == nil {
				want = protocol.LeafPublished
			}
			require.Equal(t, want, r.Status)
			require.Equal(t, powerDigest(content), r.Digest)
			require.Equal(t, c.published, a.Leaves[0].State == protocol.LeafUnchanged)
			require.Equal(t, c.published, a.Offset == int64(len(content)))
			if before != nil {
				after, err := os.Stat(path)
				require.NoError(t, err)
				require.True(t, os.SameFile(before, after) && before.ModTime().Equal(after.ModTime()), "it was written again")
			}
			faultDone(t, dir, l, p)
		})
	}
}
