package protocol

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestChunkSizeClasses(t *testing.T) {
	tests := []struct{ ask, room int }{
		{0, minChunkClass},
		{1, minChunkClass},
		{minChunkClass, minChunkClass},
		{minChunkClass + 1, 2 * minChunkClass},
		{2 * minChunkClass, 2 * minChunkClass},
		{2*minChunkClass + 1, 4 * minChunkClass},
		{256 << 10, 256 << 10},
		{256<<10 + 1, 512 << 10},
		{MaxChunk - 1, MaxChunk},
		{MaxChunk, MaxChunk},
	}
	for _, tt := range tests {
		c := NewChunk(tt.ask)
		assert.Len(t, c.Buffer(), tt.room, "room for %d bytes", tt.ask)
		assert.Equal(t, chunkClass(tt.ask), chunkClass(len(c.buf)-chunkOverhead-chunkPad), "%d bytes go back to another pool", tt.ask)
		c.Release()
	}
	assert.Equal(t, chunkClasses-1, chunkClass(MaxChunk))
}

func TestNewChunkRefusesSizesOutOfBounds(t *testing.T) {
	assert.Panics(t, func() { NewChunk(-1) })
	assert.Panics(t, func() { NewChunk(MaxChunk + 1) })
}

func TestSealedChunk(t *testing.T) {
	c := rawChunk(1<<40, []byte("hello"))
	assert.Equal(t, "hello", string(c.Data()))
	assert.Equal(t, int64(1<<40+5), c.End())
	assert.Len(t, c.Frame(), chunkOverhead+5)

	got := readFrame(t, c.Frame()).Chunk
	assert.Equal(t, c.Offset, got.Offset)
	assert.Equal(t, c.RawLen, got.RawLen)
	assert.Equal(t, c.Codec, got.Codec)
	assert.Equal(t, c.Data(), got.Data())
	assert.Equal(t, c.Frame(), got.Frame(), "a broadcaster passes on other bytes than it got")
}

// A frame with a good checksum can still lie about what is in it.
func TestChunkHeaderIsChecked(t *testing.T) {
	frame := func(offset uint64, rawLen uint32, codec byte, data int) []byte {
		p := binary.BigEndian.AppendUint64(nil, offset)
		p = binary.BigEndian.AppendUint32(p, rawLen)
		p = append(p, codec, 0, 0, 0)
		return AppendFrame(nil, KindChunk, 0, append(p, make([]byte, data)...))
	}
	bad := map[string][]byte{
		"offset past the largest":       frame(maxOffset+1, 5, 0, 5),
		"offset negative as int64":      frame(math.MaxUint64, 5, 0, 5),
		"no content":                    frame(0, 0, 0, 0),
		"no content but data":           frame(0, 0, 0, 5),
		"more content than allowed":     frame(0, MaxChunk+1, 1, 5),
		"content of 4 GiB":              frame(0, math.MaxUint32, 1, 5),
		"unknown codec":                 frame(0, 5, 2, 5),
		"raw with less than it says":    frame(0, 6, 0, 5),
		"raw with more than it says":    frame(0, 4, 0, 5),
		"lz4 that did not shrink":       frame(0, 5, 1, 5),
		"lz4 that grew":                 frame(0, 5, 1, 6),
		"nothing but the header, raw":   frame(0, 1, 0, 0),
		"offset so that the end is far": frame(1<<63, 5, 0, 5),
	}
	for name, raw := range bad {
		t.Run(name, func(t *testing.T) {
			f, err := NewFrameReader(bytes.NewReader(raw)).Next()
			assert.True(t, HasCode(err, CodeProtocol), "%v", err)
			assert.Nil(t, f.Chunk)
		})
	}
	f := readFrame(t, frame(maxOffset, 5, 0, 5))
	assert.Equal(t, int64(maxOffset+5), f.Chunk.End(), "the largest offset overflows")
}

func TestEveryReferenceIsReleasedOnce(t *testing.T) {
	c := rawChunk(0, []byte("hello"))
	assert.Same(t, c, c.Retain())
	c.Retain()
	c.Release()
	c.Release()
	assert.Equal(t, "hello", string(c.Data()), "gone while there was a reference")
	c.Release()
	assert.PanicsWithValue(t, "protocol: Release of a released chunk", c.Release)
}

func TestRetainOfAReleasedChunkPanics(t *testing.T) {
	c := rawChunk(0, []byte("hello"))
	c.Release()
	assert.PanicsWithValue(t, "protocol: Retain of a released chunk", func() { c.Retain() })
}

// What one holder still reads must not be handed to the next NewChunk.
func TestRetainedChunkIsNotReused(t *testing.T) {
	c := rawChunk(0, []byte("hello"))
	c.Retain()
	c.Release()
	for range 100 {
		other := rawChunk(0, []byte("other"))
		require.NotSame(t, c, other)
		other.Release()
	}
	assert.Equal(t, "hello", string(c.Data()))
	c.Release()
}

func TestReferencesAreCountedAcrossGoroutines(t *testing.T) {
	const holders = 64
	c := rawChunk(0, []byte("hello"))
	for range holders {
		c.Retain()
	}
	var wg sync.WaitGroup
	for range holders {
		wg.Go(func() {
			if c.Retain(); string(c.Data()) != "hello" {
				t.Error("gone while there was a reference")
			}
			c.Release()
			c.Release()
		})
	}
	wg.Wait()
	assert.EqualValues(t, 1, c.refs.Load())
	c.Release()
}
