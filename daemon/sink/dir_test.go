// The directory: how a file comes to its name.

package sink_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

func openDir(t *testing.T) (*sink.Dir, string) {
	t.Helper()
	path := t.TempDir()
	return openDirAt(t, path), path
}

func openDirAt(t *testing.T, path string) *sink.Dir {
	t.Helper()
	d, err := sink.OpenDir(path, sink.DirOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	return d
}

func TestDirFileAppearsOnlyAtPublish(t *testing.T) {
	for _, name := range []string{"file.txt", "a/b/file.txt"} {
		t.Run(name, func(t *testing.T) {
			d, path := openDir(t)
			folder := filepath.Join(path, filepath.Dir(name))
			isPart := func() {
				t.Helper()
				all := entries(t, folder)
				require.Len(t, all, 1, "the part file alone, beside its target")
				assert.True(t, strings.HasPrefix(all[0], protocol.ReservedPrefix), all[0])
				assert.True(t, strings.HasSuffix(all[0], ".part"), all[0])
			}
			content := strings.Repeat("hello world", protocol.MaxEarly/10)
			f, _, err := d.Create(t.Context(), request(offer(name, int64(len(content)))))
			require.NoError(t, err)
			isPart()
			_, err = f.Write([]byte(content[:6]))
			require.NoError(t, err)
			_, err = f.Write([]byte(content[6:]))
			require.NoError(t, err)
			isPart()
			require.NoError(t, f.Stage(t.Context(), ""))
			isPart()

			p, err := f.Publish(t.Context())
			require.NoError(t, err)
			assert.Equal(t, sink.Published{Location: filepath.Join(path, filepath.FromSlash(name))}, p)
			assert.Equal(t, []string{filepath.Base(name)}, entries(t, folder))
			assertContent(t, p.Location, content)
		})
	}
}

func TestDirSizes(t *testing.T) {
	content := strings.Repeat("0123456789", 5000)
	for _, c := range []struct {
		name    string
		size    int64
		content string
	}{
		{"empty", 0, ""},
		{"one byte", 1, "x"},
		{"unknown size", -1, content},
		{"known size", int64(len(content)), content},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, path := openDir(t)
			_, err := put(t, d, offer("f", c.size), c.content)
			require.NoError(t, err)
			assertContent(t, filepath.Join(path, "f"), c.content)
		})
	}
}

func TestDirDiscardLeavesNothing(t *testing.T) {
	for _, when := range []string{"at once", "after content", "after stage", "after a failed publish"} {
		t.Run(when, func(t *testing.T) {
			d, path := openDir(t)
			f, _, err := d.Create(t.Context(), request(offer("f", 4)))
			require.NoError(t, err)
			left := []string{}
			switch when {
			case "after content":
				_, err = f.Write([]byte("data"))
			case "after stage":
				err = fill(t, f, "data")
			case "after a failed publish":
				require.NoError(t, fill(t, f, "data"))
				write(t, filepath.Join(path, "f"), "somebody else's")
				left = []string{"f"}
				_, failed := f.Publish(t.Context())
				assertCode(t, protocol.CodeExists, failed)
			}
			require.NoError(t, err)
			f.Discard(false)
			assert.Equal(t, left, entries(t, path))
		})
	}
}

// A dry run, or a push that is taken back, is to leave the store as it was.
func TestDirDiscardRemovesTheDirectoriesItMade(t *testing.T) {
	d, path := openDir(t)
	write(t, filepath.Join(path, "old", "file"), "kept")
	f, _, err := d.Create(t.Context(), request(offer("old/new/newer/f", 4)))
	require.NoError(t, err)
	require.NoError(t, fill(t, f, "data"))
	f.Discard(false)
	assert.Equal(t, []string{"old/", "old/file"}, entries(t, path))
}

func TestDirForceReplaces(t *testing.T) {
	d, path := openDir(t)
	target := filepath.Join(path, "f")
	write(t, target, "the old content")
	o := offer("f", 3)
	o.Force = true
	f, _, err := d.Create(t.Context(), request(o))
	require.NoError(t, err)
	require.NoError(t, fill(t, f, "new"))
	assertContent(t, target, "the old content")
	p, err := f.Publish(t.Context())
	require.NoError(t, err)
	assert.False(t, p.Unchanged)
	assertContent(t, target, "new")
	assert.Equal(t, []string{"f"}, entries(t, path))
}

func TestDirForceDiscardKeepsTheOldFile(t *testing.T) {
	d, path := openDir(t)
	write(t, filepath.Join(path, "f"), "old")
	o := offer("f", 3)
	o.Force = true
	f, _, err := d.Create(t.Context(), request(o))
	require.NoError(t, err)
	require.NoError(t, fill(t, f, "new"))
	f.Discard(false)
	assert.Equal(t, []string{"f"}, entries(t, path))
	assertContent(t, filepath.Join(path, "f"), "old")
}

func TestDirPreserve(t *testing.T) {
	mtime := time.Date(2001, 2, 3, 4, 5, 6, 789000000, time.UTC)
	for _, c := range []struct {
		name     string
		preserve bool
		mode     uint32
		want     os.FileMode
	}{
		{"mode and time", true, 0o640, 0o640},
		{"no special bits", true, 0o4751, 0o751},
		{"not asked for", false, 0o640, 0},
		{"mode is unknown, as of a pipe", true, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, path := openDir(t)
			write(t, filepath.Join(path, "plain"), "")
			plain, err := os.Stat(filepath.Join(path, "plain"))
			require.NoError(t, err)
			if c.want == 0 {
				c.want = plain.Mode()
			}
			o := offer("f", 4)
			o.Preserve, o.Mode, o.MTime = c.preserve, c.mode, mtime
			_, err = put(t, d, o, "data")
			require.NoError(t, err)
			info, err := os.Stat(filepath.Join(path, "f"))
			require.NoError(t, err)
			assert.Equal(t, c.want, info.Mode())
			assert.Equal(t, c.preserve, info.ModTime().Equal(mtime), "mtime is %v", info.ModTime())
		})
	}
}

func TestDirNameIsTakenUntilTheEnd(t *testing.T) {
	for _, end := range []string{"publish", "discard"} {
		t.Run(end, func(t *testing.T) {
			d, path := openDir(t)
			first, _, err := d.Create(t.Context(), request(offer("a/f", 4)))
			require.NoError(t, err)
			_, _, err = d.Create(t.Context(), request(offer("a/f", 4)))
			assertCode(t, protocol.CodeConflict, err)
			_, err = put(t, d, offer("a/other", 4), "more")
			require.NoError(t, err, "another name is free")

			require.NoError(t, fill(t, first, "data"))
			if end == "publish" {
				_, err = first.Publish(t.Context())
				require.NoError(t, err)
			} else {
				first.Discard(false)
			}
			p, err := put(t, d, offer("a/f", 4), "data")
			require.NoError(t, err)
			assert.Equal(t, end == "publish", p.Unchanged)
			assertContent(t, filepath.Join(path, "a/f"), "data")
		})
	}
}

// A target that comes between Create and Publish belongs to somebody else: to
// another process, or to another daemon on the same directory.
func TestDirTargetThatCameMeanwhile(t *testing.T) {
	for _, large := range []bool{false, true} {
		for _, force := range []bool{false, true} {
			one, path := openDir(t)
			two := openDirAt(t, path)
			first := "first"
			if large {
				first = strings.Repeat("first", protocol.MaxEarly)
			}
			o := offer("f", int64(len(first)))
			o.Force = force
			f, _, err := one.Create(t.Context(), request(o))
			require.NoError(t, err)
			require.NoError(t, fill(t, f, first))
			if large { // its part is locked
				_, err = put(t, two, offer("f", protocol.MaxEarly+1), strings.Repeat("s", protocol.MaxEarly+1))
				assertCode(t, protocol.CodeConflict, err)
			}
			write(t, filepath.Join(path, "f"), "second")

			_, err = f.Publish(t.Context())
			if force {
				require.NoError(t, err)
				assert.Equal(t, []string{"f"}, entries(t, path))
				assertContent(t, filepath.Join(path, "f"), first)
				continue
			}
			assertCode(t, protocol.CodeExists, err)
			f.Discard(false)
			assert.Equal(t, []string{"f"}, entries(t, path))
			assertContent(t, filepath.Join(path, "f"), "second")
		}
	}
}

// Of two daemons on one directory with the same small file one is first, and
// the other one finds it there.
func TestDirTwoSmallFilesOfOneName(t *testing.T) {
	one, path := openDir(t)
	two := openDirAt(t, path)
	var files []sink.File
	for _, d := range []*sink.Dir{one, two} {
		f, _, err := d.Create(t.Context(), request(offer("a/f", 5)))
		require.NoError(t, err)
		require.NoError(t, fill(t, f, "small"))
		assert.Empty(t, onlyFiles(t, path), "nothing has a name before it is published")
		files = append(files, f)
	}
	third, _, err := openDirAt(t, path).Create(t.Context(), request(offer("a/f", 5)))
	require.NoError(t, err)
	require.NoError(t, fill(t, third, "other"))
	p, err := files[1].Publish(t.Context())
	require.NoError(t, err)
	assert.False(t, p.Unchanged)
	p, err = files[0].Publish(t.Context())
	require.NoError(t, err)
	assert.True(t, p.Unchanged, "it has what is there")
	_, err = third.Publish(t.Context())
	assertCode(t, protocol.CodeExists, err)
	third.Discard(true)
	assert.Equal(t, []string{"a/", "a/f"}, entries(t, path))
	assert.Empty(t, entries(t, filepath.Join(path, ".sbcast-state")), "a small file needs no notes")

	p, err = put(t, one, offer("a/f", 5), "small")
	require.NoError(t, err)
	assert.True(t, p.Unchanged)
	_, err = put(t, one, offer("a/f", 5), "other")
	assertCode(t, protocol.CodeExists, err)
	assertContent(t, filepath.Join(path, "a/f"), "small")
}

// A file that is given up takes the directory away that was made for it, even
// if another one without a name is to be there.
func TestDirSmallFileAfterItsFolderWent(t *testing.T) {
	d, path := openDir(t)
	var files []sink.File
	for _, name := range []string{"a/b/one", "a/b/two"} {
		f, _, err := d.Create(t.Context(), request(offer(name, 5)))
		require.NoError(t, err)
		require.NoError(t, fill(t, f, "small"))
		files = append(files, f)
	}
	files[0].Discard(false)
	_, err := files[1].Publish(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"a/", "a/b/", "a/b/two"}, entries(t, path))
}

// onlyFiles lists the files beneath dir that are not directories.
func onlyFiles(t *testing.T, dir string) (files []string) {
	t.Helper()
	for _, e := range entries(t, dir) {
		if !strings.HasSuffix(e, "/") {
			files = append(files, e)
		}
	}
	return files
}

// A small file replaces another one under force, and leaves an equal one alone.
func TestDirSmallFileUnderForce(t *testing.T) {
	d, path := openDir(t)
	target := filepath.Join(path, "f")
	write(t, target, "small")
	before, err := os.Stat(target)
	require.NoError(t, err)
	o := offer("f", 5)
	o.Force = true
	p, err := put(t, d, o, "small")
	require.NoError(t, err)
	assert.True(t, p.Unchanged)
	after, err := os.Stat(target)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))

	for _, content := range []string{"other", "longer", ""} {
		o := offer("f", int64(len(content)))
		o.Force = true
		p, err = put(t, d, o, content)
		require.NoError(t, err)
		assert.False(t, p.Unchanged)
		assertContent(t, target, content)
	}
	assert.Equal(t, []string{"f"}, entries(t, path))

	o = offer("f", 0)
	o.Force, o.Preserve, o.Mode, o.MTime = true, true, 0o640, time.Unix(1e9, 0)
	p, err = put(t, d, o, "")
	require.NoError(t, err)
	assert.False(t, p.Unchanged, "the time is to be changed")
	after, err = os.Stat(target)
	require.NoError(t, err)
	assert.True(t, after.ModTime().Equal(o.MTime))
}

func TestDirTwoStoresShareNothing(t *testing.T) {
	one, onePath := openDir(t)
	two, twoPath := openDir(t)
	f, _, err := one.Create(t.Context(), request(offer("f", 3)))
	require.NoError(t, err)
	_, err = put(t, two, offer("f", 3), "two")
	require.NoError(t, err)
	f.Discard(false)
	assert.Empty(t, entries(t, onePath))
	assertContent(t, filepath.Join(twoPath, "f"), "two")
}
