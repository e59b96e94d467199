// Push, when all goes well.

package client_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

const chunkSize = 16 << 10

func TestPushIsByteExact(t *testing.T) {
	text := []byte(strings.Repeat("all work and no play makes a dull boy\n", 20000))
	stores := []*store{newStore(t), newStore(t)}
	c := newClient(t, broadcaster(t, stores...).addr)
	for name, content := range map[string][]byte{
		"empty":           {},
		"one byte":        {42},
		"chunk less one":  random(chunkSize - 1),
		"chunk":           random(chunkSize),
		"chunk and one":   random(chunkSize + 1),
		"text":            text,
		"noise":           random(1 << 20),
		"text, then some": append(bytes.Clone(text), random(500000)...),
	} {
		for _, mode := range []protocol.Compression{protocol.CompressNone, protocol.CompressLZ4, protocol.CompressAuto} {
			for _, known := range []bool{true, false} {
				file := fmt.Sprintf("%s/%s/%v", name, mode, known)
				var src client.Source = bytesSource("ignored", content)
				if !known {
					src = client.Stream(bytes.NewReader(content), "ignored")
				}
				receipts, err := c.Push(patient(t), src, client.Options{Name: protocol.Name(file), Compress: mode, ChunkSize: chunkSize})
				require.NoError(t, err, file)
				require.Len(t, receipts, 2)
				for i, r := range receipts {
					assert.Equal(t, fmt.Sprint("r", i+1), r.Leaf)
					assert.Equal(t, protocol.LeafPublished, r.Status)
					assert.Equal(t, int64(len(content)), r.Bytes)
					assert.Equal(t, filepath.Join(stores[i].path, filepath.FromSlash(file)), r.Location)
					stores[i].assertFile(t, file, content)
				}
			}
		}
	}
}

func TestPushWithEveryDigest(t *testing.T) {
	s := newStore(t)
	c := newClient(t, broadcaster(t, s).addr)
	content := random(100000)
	for _, alg := range []protocol.DigestAlg{protocol.DigestXXH128, protocol.DigestSHA256, protocol.DigestBLAKE3, protocol.DigestNone} {
		receipts, err := c.Push(patient(t), bytesSource(string(alg), content), client.Options{Digest: alg})
		require.NoError(t, err)
		h := protocol.NewHasher(alg)
		_, _ = h.Write(content)
		assert.Equal(t, h.Digest(), receipts[0].Digest)
		s.assertFile(t, string(alg), content)
	}
}

func TestPushWithChunksOfAnySize(t *testing.T) {
	s := newStore(t)
	n := serve(t, leafOver(t, s), daemon.Options{Window: 128 << 10}) // chunks of 32 KiB at most
	c := newClient(t, n.addr)
	content := random(200001)
	for _, size := range []int{1, 7, 4096, 32 << 10, 1 << 20, protocol.MaxChunk} {
		name, n := fmt.Sprint("f", size), min(len(content), 500*size)
		_, err := c.Push(patient(t), bytesSource(name, content[:n]), client.Options{ChunkSize: size})
		require.NoError(t, err)
		s.assertFile(t, name, content[:n])
	}
}

// A reader that is pushed to directly has no name but the host's.
func TestPushToAReader(t *testing.T) {
	s := newStore(t)
	addr := reader(t, s).addr
	path := filepath.Join(t.TempDir(), "file.txt")
	require.NoError(t, os.WriteFile(path, []byte("content"), 0o666))
	src, err := client.File(path)
	require.NoError(t, err)
	receipts, err := client.Push(patient(t), src, client.Options{Host: addr})
	require.NoError(t, err)
	assert.Equal(t, map[string]protocol.LeafState{addr: protocol.LeafPublished}, states(receipts))
	s.assertFile(t, "file.txt", []byte("content"))
}

func TestPushAgain(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	c := newClient(t, broadcaster(t, stores...).addr)
	push := func(content string, opts client.Options) ([]client.Receipt, error) {
		return c.Push(patient(t), bytesSource("f", []byte(content)), opts)
	}
	_, err := push("first", client.Options{})
	require.NoError(t, err)
	receipts, err := push("first", client.Options{})
	require.NoError(t, err)
	assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafUnchanged, "r2": protocol.LeafUnchanged}, states(receipts))

	require.NoError(t, os.Remove(filepath.Join(stores[1].path, "f")))
	receipts, err = push("first", client.Options{})
	require.NoError(t, err)
	assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafUnchanged, "r2": protocol.LeafPublished}, states(receipts))
}

func TestPushOfOtherContent(t *testing.T) {
	s := newStore(t)
	c := newClient(t, reader(t, s).addr)
	push := func(content string, force bool) error {
		_, err := c.Push(patient(t), bytesSource("f", []byte(content)), client.Options{Force: force})
		return err
	}
	require.NoError(t, push("first", false))
	assertCode(t, protocol.CodeExists, push("other", false))
	assertCode(t, protocol.CodeExists, push("longer", false))
	s.assertFile(t, "f", []byte("first"))
	require.NoError(t, push("other", true))
	s.assertFile(t, "f", []byte("other"))
	assert.Equal(t, []string{"f"}, s.files(t))
}

// Once Push has returned nothing of it is in the way of the next one, at any reader.
func TestPushAfterOneThatFailed(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	require.NoError(t, os.WriteFile(filepath.Join(stores[0].path, "f"), []byte("old"), 0o666))
	c := newClient(t, broadcaster(t, stores...).addr)
	for range 10 {
		_, err := c.Push(patient(t), bytesSource("f", []byte("changed")), client.Options{})
		require.ErrorContains(t, err, "r1: ")
		assertCode(t, protocol.CodeExists, err)
	}
	_, err := c.Push(patient(t), bytesSource("f", []byte("changed")), client.Options{Force: true})
	require.NoError(t, err)
}

func TestPushPreserves(t *testing.T) {
	s := newStore(t)
	c := newClient(t, broadcaster(t, s).addr)
	_, err := c.Push(patient(t), bytesSource("f", []byte("x")), client.Options{Preserve: true})
	require.NoError(t, err)
	info, err := os.Stat(filepath.Join(s.path, "f"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o640), info.Mode())
	assert.True(t, info.ModTime().Equal(time.Unix(1e9, 0)))
}

// A pipe has no permissions that could be kept: the file gets those of any new file.
func TestPushPreservesNothingOfAPipe(t *testing.T) {
	s := newStore(t)
	c := newClient(t, broadcaster(t, s).addr)
	_, err := c.Push(patient(t), client.Stream(strings.NewReader("x"), "plain"), client.Options{})
	require.NoError(t, err)
	_, err = c.Push(patient(t), client.Stream(strings.NewReader("x"), "kept"), client.Options{Preserve: true})
	require.NoError(t, err)
	plain, err := os.Stat(filepath.Join(s.path, "plain"))
	require.NoError(t, err)
	kept, err := os.Stat(filepath.Join(s.path, "kept"))
	require.NoError(t, err)
	assert.Equal(t, plain.Mode(), kept.Mode())
}

func TestClientKeepsItsSession(t *testing.T) {
	s := newStore(t)
	n := reader(t, s)
	c := newClient(t, n.addr)
	assert.Equal(t, n.addr, c.Addr())
	assert.Zero(t, n.accepted.Load(), "nothing is dialled before it is needed")
	for i := range 5 {
		_, err := c.Push(patient(t), bytesSource(fmt.Sprint("f", i), random(i)), client.Options{})
		require.NoError(t, err)
	}
	all, err := c.Status(patient(t), 0)
	require.NoError(t, err)
	assert.Len(t, all, 1)
	assert.Equal(t, int32(1), n.accepted.Load())
}

func TestManyPushesAtOnce(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	c := newClient(t, broadcaster(t, stores...).addr)
	var pushes sync.WaitGroup
	for i := range 20 {
		pushes.Go(func() {
			_, err := c.Push(patient(t), bytesSource(fmt.Sprint("f", i), random(30011*i)), client.Options{})
			assert.NoError(t, err)
		})
	}
	pushes.Wait()
	for i := range 20 {
		for _, s := range stores {
			s.assertFile(t, fmt.Sprint("f", i), random(30011*i))
		}
	}
}

// Two pushes of one name at once may both fail; what they never make is a mix.
func TestPushesOfOneNameAtOnce(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	addr := broadcaster(t, stores...).addr
	contents := [][]byte{random(300000), random(300001)}
	for round := range 10 {
		name := fmt.Sprint("f", round)
		var errs [2]error
		var pushes sync.WaitGroup
		for i, content := range contents {
			pushes.Go(func() {
				_, errs[i] = client.Push(patient(t), bytesSource(name, content), client.Options{Host: addr})
			})
		}
		pushes.Wait()
		assert.True(t, errs[0] != nil || errs[1] != nil, "they are different: one at most may have the name")
		for i, err := range errs {
			if err != nil {
				assert.Contains(t, []protocol.Code{protocol.CodeConflict, protocol.CodeExists}, protocol.AsError(err).Code, "%v", err)
				continue
			}
			for _, s := range stores {
				s.assertFile(t, name, contents[i])
			}
		}
	}
	for _, s := range stores {
		for _, name := range s.files(t) {
			assert.NotContains(t, name, protocol.ReservedPrefix)
		}
	}
}

func TestBWLimit(t *testing.T) {
	c := newClient(t, reader(t, newStore(t)).addr)
	begun := time.Now()
	_, err := c.Push(patient(t), bytesSource("f", random(20*chunkSize)), client.Options{ChunkSize: chunkSize, BWLimit: 40 * chunkSize})
	require.NoError(t, err)
	// Half a second, less the first chunk, which is free.
	assert.Greater(t, time.Since(begun), 250*time.Millisecond, "it is not faster than twice the limit")
}
