// Tests of reads of what is in memory.

package client

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// madeFile is a file of n bytes in dir, open for reading.
func madeFile(t *testing.T, dir string, n int) (*os.File, []byte) {
	t.Helper()
	content := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(content)
	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f, content
}

// A file reads the same from memory, from a tmpfs and from a disk.
func TestReadCached(t *testing.T) {
	shm, err := os.MkdirTemp("/dev/shm", "sbcast-test-") //nolint:usetesting // which has no tmpfs
	if err != nil {
		t.Skip("no tmpfs here: ", err)
	}
	t.Cleanup(func() { os.RemoveAll(shm) })
	for name, c := range map[string]struct {
		dir  string
		cold bool
	}{"tmpfs": {dir: shm}, "in memory": {dir: t.TempDir()}, "on disk": {dir: t.TempDir(), cold: true}} {
		t.Run(name, func(t *testing.T) {
			f, content := madeFile(t, c.dir, 3<<20+17)
			if c.cold {
				require.NoError(t, f.Sync())
				require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
			}
			r := readCached(f)
			assert.NotSame(t, f, r)
			b, err := io.ReadAll(io.MultiReader(io.LimitReader(r, 1000), r)) // it goes on where it was
			require.NoError(t, err)
			assert.True(t, bytes.Equal(content, b))
			n, err := r.Read(make([]byte, 1))
			assert.Zero(t, n)
			assert.Equal(t, io.EOF, err)
			n, err = r.Read(nil)
			assert.Zero(t, n)
			assert.NoError(t, err)
		})
	}
}

// What grows or is cut off meanwhile is read as far as it goes.
func TestReadCachedFollowsTheFile(t *testing.T) {
	f, content := madeFile(t, t.TempDir(), 1<<20)
	r := readCached(f)
	b := make([]byte, len(content))
	_, err := io.ReadFull(r, b[:1<<19])
	require.NoError(t, err)
	require.NoError(t, os.Truncate(f.Name(), 1<<19+5))
	n, err := io.ReadFull(r, b[1<<19:])
	assert.Equal(t, io.ErrUnexpectedEOF, err)
	assert.Equal(t, 5, n)
	assert.True(t, bytes.Equal(content[:1<<19+5], b[:1<<19+5]))
}

// Errors are those of the file.
func TestReadCachedFails(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer dir.Close()
	_, err = readCached(dir).Read(make([]byte, 10))
	assert.ErrorIs(t, err, unix.EISDIR)

	f, _ := madeFile(t, t.TempDir(), 10)
	r := readCached(f)
	require.NoError(t, r.Close())
	_, err = r.Read(make([]byte, 10))
	assert.ErrorIs(t, err, os.ErrClosed)
}
