// Tests of the feed, against a receiver that cuts it off.

package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

// text returns n bytes that compress, each line different.
func text(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d all work and no play makes %x a dull boy\n", i, i*7919)
	}
	return b.Bytes()[:n]
}

// noise returns n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// taker is a receiver that keeps what it is sent.
type taker struct {
	feed    *feed
	content []byte
	codecs  map[protocol.Codec]int
	fail    int // fails this Send, counted down; 0: never
	onSend  func()
	done    chan struct{}
}

var errCut = errors.New("cut off")

func (k *taker) Send(ctx context.Context, c *protocol.Chunk) error {
	if k.onSend != nil {
		k.onSend()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if k.fail--; k.fail == 0 {
		return errCut
	}
	has := int64(len(k.content)) - c.Offset // of the chunk: the first may begin before what is wanted
	if has < 0 || has >= int64(c.RawLen) {
		return fmt.Errorf("chunk at %d of %d bytes after %d bytes", c.Offset, c.RawLen, len(k.content))
	}
	b, _, err := c.Decode(nil)
	k.content = append(k.content, b[has:]...)
	k.codecs[c.Codec]++
	k.feed.acked.Store(c.End())
	c.Release()
	return err
}
func (k *taker) Done() <-chan struct{} { return k.done }
func (k *taker) Err() error {
	select {
	case <-k.done:
		return errCut
	default:
		return nil
	}
}

func newTaker(f *feed, have []byte) *taker {
	return &taker{feed: f, content: slices.Clone(have), codecs: map[protocol.Codec]int{}, done: make(chan struct{})}
}

// inMemory is a Source that can be read again.
type inMemory struct {
	Source
	content []byte
	opened  *int
}

func (inMemory) Name() string { return "f" }

func (m inMemory) Open(context.Context) (io.ReadCloser, error) {
	*m.opened++
	return io.NopCloser(bytes.NewReader(m.content)), nil
}

const (
	testChunk  = 4 << 10
	testWindow = 16 * testChunk
)

func accepted(offset int64) *protocol.Accept {
	return &protocol.Accept{Offset: offset, Window: testWindow, MaxChunk: testWindow / 4}
}

func digestOf(alg protocol.DigestAlg, b []byte) protocol.Digest {
	h := protocol.NewHasher(alg)
	_, _ = h.Write(b)
	return h.Digest()
}

// mixed is content of which some chunks shrink and others do not.
func mixed(n int) []byte {
	plain, other := text(n), noise(n)
	for at := 0; at < n; at += 3 * testChunk {
		end := min(at+testChunk, n)
		copy(plain[at:end], other[at:end])
	}
	return plain
}

// A feed is cut off again and again, and never loses, repeats or reorders.
func TestFeedGoesOnWhereTheReadersAre(t *testing.T) {
	content := mixed(100*testChunk + 77)
	for _, mode := range []protocol.Compression{protocol.CompressNone, protocol.CompressAuto, protocol.CompressLZ4} {
		for _, alg := range []protocol.DigestAlg{protocol.DigestXXH128, protocol.DigestSHA256, protocol.DigestBLAKE3} {
			for _, known := range []bool{true, false} {
				f := &feed{src: Stream(bytes.NewReader(content), "f"), size: -1, pace: newPace(testChunk), alg: alg, compress: mode}
				if known {
					f.size = int64(len(content))
				}
				var got []byte
				attempts := 0
				for err := errCut; err != nil; attempts++ {
					k := newTaker(f, got)
					k.fail = 10
					err = f.send(t.Context(), k, accepted(int64(len(got))), func(int) {})
					if err != nil {
						require.ErrorIs(t, err, errCut)
					}
					got = k.content[:len(k.content)-min(len(k.content), attempts%3*1000)] // some is lost
					if err == nil {
						got = k.content
					}
				}
				assert.Greater(t, attempts, 5)
				assert.True(t, bytes.Equal(content, got), "%s %s", mode, alg)
				assert.Equal(t, digestOf(alg, content), f.hasher.Digest(), "%s %s", mode, alg)
				f.close()
			}
		}
	}
}

func TestFeedCompressesWhatShrinks(t *testing.T) {
	content := mixed(90 * testChunk)
	f := &feed{src: inMemory{content: content, opened: new(int)}, size: int64(len(content)), pace: newPace(testChunk), alg: protocol.DigestNone, compress: protocol.CompressLZ4}
	defer f.close()
	k := newTaker(f, nil)
	require.NoError(t, f.send(t.Context(), k, accepted(0), func(int) {}))
	assert.Equal(t, map[protocol.Codec]int{protocol.CodecRaw: 30, protocol.CodecLZ4: 60}, k.codecs)
}

// The readers have lost more than is kept, or want smaller chunks: the source
// is read again, and hashed again.
func TestFeedRewinds(t *testing.T) {
	content := mixed(100 * testChunk)
	opened := 0
	f := &feed{src: inMemory{content: content, opened: &opened}, size: int64(len(content)), pace: newPace(testChunk), alg: protocol.DigestSHA256, compress: protocol.CompressLZ4}
	defer f.close()
	k := newTaker(f, nil)
	k.fail = 60
	require.ErrorIs(t, f.send(t.Context(), k, accepted(0), func(int) {}), errCut)
	for i, c := range []struct{ offset, maxChunk int }{{5 * testChunk, testChunk}, {100, 1000}, {100, 100}} {
		k = newTaker(f, content[:c.offset])
		k.fail = 80
		a := accepted(int64(c.offset))
		a.MaxChunk = c.maxChunk
		require.ErrorIs(t, f.send(t.Context(), k, a, func(int) {}), errCut)
		assert.True(t, bytes.HasPrefix(content, k.content))
		assert.Equal(t, i+2, opened)
	}
	k = newTaker(f, nil)
	require.NoError(t, f.send(t.Context(), k, accepted(0), func(int) {}))
	assert.True(t, bytes.Equal(content, k.content))
	assert.Equal(t, digestOf(protocol.DigestSHA256, content), f.hasher.Digest())
}

// What can be read once and is not kept any more is gone: it is a reader that
// has lost it.
func TestFeedCannotRewindAPipe(t *testing.T) {
	f := &feed{src: Stream(bytes.NewReader(mixed(100*testChunk)), "f"), size: -1, pace: newPace(testChunk), alg: protocol.DigestXXH128}
	defer f.close()
	k := newTaker(f, nil)
	k.fail = 60
	a := accepted(0)
	a.Window = 4 * testChunk
	require.ErrorIs(t, f.send(t.Context(), k, a, func(int) {}), errCut)
	err := f.send(t.Context(), newTaker(f, nil), accepted(0), func(int) {})
	var input *InputError
	require.ErrorAs(t, err, &input)
	require.ErrorContains(t, err, "f cannot be read again")
	assert.True(t, protocol.HasCode(err, protocol.CodeTruncated), err)
}

// A reader that can check by CRC32C alone comes in a later attempt: a source
// that can be read again is, though what the readers want is kept.
func TestFeedSumsForWhoAsksLate(t *testing.T) {
	content := mixed(20 * testChunk)
	want := protocol.NewHasher(protocol.DigestNone)
	want.AddCRC(0)
	_, _ = want.Write(content)
	for _, once := range []bool{false, true} {
		opened := 0
		f := &feed{src: inMemory{content: content, opened: &opened}, size: int64(len(content)), pace: newPace(testChunk), alg: protocol.DigestXXH128}
		if once {
			f.src = Stream(bytes.NewReader(content), "f")
		}
		k := newTaker(f, nil)
		k.fail = 10
		require.ErrorIs(t, f.send(t.Context(), k, accepted(0), func(int) {}), errCut)
		assert.Nil(t, f.finish().CRC)
		have := int64(len(k.content))
		for range 2 { // the second finds it summed
			k = newTaker(f, content[:have])
			a := accepted(have)
			a.CRC = true
			require.NoError(t, f.send(t.Context(), k, a, func(int) {}))
			assert.True(t, bytes.Equal(content, k.content))
			assert.Equal(t, digestOf(protocol.DigestXXH128, content), f.finish().Digest)
			have = int64(len(content))
		}
		if once {
			assert.Nil(t, f.finish().CRC, "its beginning is gone")
		} else {
			assert.Equal(t, want.CRC(), f.finish().CRC)
			assert.Equal(t, 2, opened)
		}
		f.close()
	}
}

// What is kept after an end is a window and what the pipeline held, no more.
func TestFeedKeepsAWindow(t *testing.T) {
	content := mixed(200 * testChunk)
	f := &feed{src: Stream(bytes.NewReader(content), "f"), size: int64(len(content)), pace: newPace(testChunk), alg: protocol.DigestNone, compress: protocol.CompressLZ4}
	defer f.close()
	k := newTaker(f, nil)
	k.fail = 150
	k.onSend = func() {
		assert.LessOrEqual(t, len(f.sent), testWindow/testChunk+1)
		assert.LessOrEqual(t, len(f.sent)+f.pipeline.count, testWindow/testChunk+1+len(f.pipeline.jobs))
	}
	require.ErrorIs(t, f.send(t.Context(), k, accepted(0), func(int) {}), errCut)
	assert.LessOrEqual(t, len(f.sent), testWindow/testChunk+1+len(f.pipeline.jobs))
	assert.Equal(t, f.offset, f.sent[len(f.sent)-1].End(), "all that was read is kept")
}

func TestFeedEndsWithItsContext(t *testing.T) {
	for _, mode := range []protocol.Compression{protocol.CompressNone, protocol.CompressLZ4} {
		f := &feed{src: zeros{content: text(1 << 20), size: 1 << 40}, size: 1 << 40, pace: newPace(testChunk), alg: protocol.DigestBLAKE3, compress: mode}
		ctx, cancel := context.WithCancel(t.Context())
		k := newTaker(f, nil)
		sends := 0
		k.onSend = func() {
			if sends++; sends == 50 {
				cancel()
			}
		}
		require.ErrorIs(t, f.send(ctx, k, accepted(0), func(int) {}), context.Canceled)
		f.close()
	}
}

// A chunk that a compressor has does not wait for more input.
func TestCompressedInputGoesOutAsItComes(t *testing.T) {
	in, out := io.Pipe()
	f := &feed{src: Stream(in, "f"), size: -1, pace: newPace(64 << 10), alg: protocol.DigestSHA256, compress: protocol.CompressLZ4}
	k := newTaker(f, nil)
	came := make(chan struct{}, 100)
	k.onSend = func() { came <- struct{}{} }
	ended := make(chan error)
	go func() { ended <- f.send(t.Context(), k, accepted(0), func(int) {}) }()
	for range 10 {
		_, err := out.Write(text(10_000))
		require.NoError(t, err)
		select {
		case <-came:
		case <-time.After(30 * time.Second):
			require.FailNow(t, "the chunk waits")
		}
	}
	close(k.done) // nobody is left to send to
	require.ErrorIs(t, <-ended, errCut)
	out.Close()
	f.close()
	assert.Len(t, k.content, 100_000)
}
