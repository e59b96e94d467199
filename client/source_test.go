// Sources, good and bad.

package client_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

func assertInput(t *testing.T, err error, missing bool, text string) {
	t.Helper()
	var input *client.InputError
	require.ErrorAs(t, err, &input)
	assert.Equal(t, missing, input.Missing)
	assert.ErrorContains(t, err, text)
}

func TestFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	_, err := client.File(missing)
	assertInput(t, err, true, missing+": no such file")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = client.File(dir)
	assertInput(t, err, true, "is a directory")
	if runtime.GOOS != "windows" {
		_, err = client.File(os.DevNull)
		assertInput(t, err, true, "not a regular file")
	}
}

func TestFileThatMayNotBeRead(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, nil, 0))
	src, err := client.File(path)
	require.NoError(t, err)
	_, err = src.Open(t.Context())
	assertInput(t, err, false, "permission denied")
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("content"), 0o666))
	require.NoError(t, os.Chmod(path, 0o751))
	mtime := time.Unix(1e9, 5e8)
	require.NoError(t, os.Chtimes(path, mtime, mtime))
	src, err := client.File(path)
	require.NoError(t, err)
	assert.Equal(t, "f", src.Name())
	stat, err := src.Stat()
	require.NoError(t, err)
	assert.True(t, stat.MTime.Equal(mtime))
	stat.MTime = time.Time{}
	assert.Equal(t, client.Stat{Size: 7, Mode: 0o751}, stat)
	for range 2 { // from the beginning each time
		r, err := src.Open(t.Context())
		require.NoError(t, err)
		require.NoError(t, iotest.TestReader(r, []byte("content")))
		require.NoError(t, r.Close())
	}
}

// The file goes between File and Push, or between Push's look at it and the
// reading.
func TestFileThatGoesAway(t *testing.T) {
	s := newStore(t)
	c := newClient(t, broadcaster(t, s).addr)
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("content"), 0o666))
	src, err := client.File(path)
	require.NoError(t, err)
	_, err = c.Push(patient(t), goesAway{src, path}, client.Options{})
	assertInput(t, err, true, "no such file")
	_, err = c.Push(patient(t), src, client.Options{})
	assertInput(t, err, true, "no such file")
	s.assertNothing(t)
}

type goesAway struct {
	client.Source
	path string
}

func (g goesAway) Stat() (client.Stat, error) {
	defer os.Remove(g.path)
	return g.Source.Stat()
}

func TestStream(t *testing.T) {
	src := client.Stream(strings.NewReader("content"), "name")
	assert.Equal(t, "name", src.Name())
	stat, err := src.Stat()
	require.NoError(t, err)
	assert.Equal(t, int64(-1), stat.Size)
	assert.False(t, stat.MTime.IsZero())
	r, err := src.Open(t.Context())
	require.NoError(t, err)
	require.NoError(t, iotest.TestReader(r, []byte("content")))
	require.NoError(t, r.Close())
}

// Slow input goes out as it comes: it does not wait for a chunk to be full.
func TestStreamGoesOutAsItComes(t *testing.T) {
	r, c := newRecorder(t)
	in, out := io.Pipe()
	pushed := make(chan error, 1)
	go func() {
		_, err := c.Push(patient(t), client.Stream(in, "f"), client.Options{})
		pushed <- err
	}()
	for _, n := range []int{3, 1, 5} {
		_, err := out.Write(make([]byte, n))
		require.NoError(t, err)
		assert.Equal(t, n, receive(t, r.chunks, "the chunk"))
	}
	require.NoError(t, out.Close())
	require.NoError(t, receive(t, pushed, "the push"))
}

func TestSourceThatChanges(t *testing.T) {
	for _, c := range []struct {
		name      string
		said, has int
		text      string
	}{
		{"grown", 100000, 100001, "grown beyond the 100000 bytes"},
		{"grown by chunks", 100000, 200000, "grown beyond the 100000 bytes"},
		{"grown from nothing", 0, 1, "grown beyond the 0 bytes"},
		{"shrunk", 100000, 99999, "ended after 99999 of the 100000 bytes"},
		{"shrunk by chunks", 100000, 10, "ended after 10 of the 100000 bytes"},
		{"shrunk to nothing", 1, 0, "ended after 0 of the 1 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stores := []*store{newStore(t), newStore(t)}
			n := broadcaster(t, stores...)
			src := bytesSource("f", random(c.has))
			src.size = int64(c.said)
			receipts, err := newClient(t, n.addr).Push(patient(t), src, client.Options{ChunkSize: chunkSize})
			assertInput(t, err, false, "f changed while it was being read: ")
			assert.ErrorContains(t, err, c.text)
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafFailed, "r2": protocol.LeafFailed}, states(receipts))
			require.ErrorIs(t, receive(t, n.ended, "the end at the broadcaster"), protocol.ErrForget)
			for _, s := range stores {
				s.assertNothing(t)
			}
		})
	}
}

func TestSourceThatCannotBeRead(t *testing.T) {
	broken := errors.New("the tape is torn")
	for _, size := range []int64{-1, 50000} {
		s := newStore(t)
		n := broadcaster(t, s)
		src := &source{"f", size, io.MultiReader(strings.NewReader(strings.Repeat("x", 20000)), iotest.ErrReader(broken))}
		_, err := newClient(t, n.addr).Push(patient(t), src, client.Options{ChunkSize: chunkSize})
		assertInput(t, err, false, "read f: the tape is torn")
		require.ErrorIs(t, err, broken)
		err = receive(t, n.ended, "the end at the broadcaster")
		require.ErrorIs(t, err, protocol.ErrForget)
		assert.ErrorContains(t, err, "the tape is torn", "the readers are told why")
		s.assertNothing(t)
	}
}

// A reader may return content and the end, or nothing at all, in one call.
func TestSourceThatReadsOddly(t *testing.T) {
	s := newStore(t)
	c := newClient(t, reader(t, s).addr)
	content := random(50001)
	for name, odd := range map[string]func(io.Reader) io.Reader{
		"data with end": iotest.DataErrReader,
		"half":          iotest.HalfReader,
		"one byte":      func(r io.Reader) io.Reader { return io.LimitReader(iotest.OneByteReader(r), 700) },
	} {
		for _, size := range []int{-1, len(content)} {
			want := content
			if name == "one byte" {
				want = content[:700]
				size = min(size, 700)
			}
			src := bytesSource(name, content)
			src.size, src.Reader = int64(size), odd(src.Reader)
			_, err := c.Push(patient(t), src, client.Options{ChunkSize: chunkSize, Force: true})
			require.NoError(t, err)
			s.assertFile(t, name, want)
		}
	}
}
