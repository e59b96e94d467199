package protocol

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sample is a good frame of each kind; chunks in both codecs.
type sample struct {
	name string
	kind Kind
	raw  []byte
}

func sampleFrames(t testing.TB) []sample {
	t.Helper()
	all := []sample{
		{"ack", KindAck, AppendAck(nil, 123_456_789_012)},
		{"limit", KindLimit, AppendLimit(nil, 123_456_789_012)},
		{"ping", KindPing, AppendFrame(nil, KindPing, 0, nil)},
		{"pong", KindPong, AppendFrame(nil, KindPong, 0, nil)},
		{"chunk raw", KindChunk, rawChunk(1<<40, []byte("content as it is")).Frame()},
	}
	c := NewChunk(300)
	copy(c.Buffer(), text(300))
	all = append(all, sample{"chunk lz4", KindChunk, NewEncoder(CompressLZ4).Seal(c, 77, 300).Frame()})
	for _, m := range sampleMessages() {
		raw, err := AppendMessage(nil, m)
		require.NoError(t, err)
		all = append(all, sample{m.Kind().String(), m.Kind(), raw})
	}
	return all
}

func TestEveryKindHasASample(t *testing.T) {
	have := map[Kind]bool{}
	for _, s := range sampleFrames(t) {
		have[s.kind] = true
	}
	for k := KindHello; k.known(); k++ {
		assert.True(t, have[k], "no sample of %s: the tests of frames do not cover it", k)
	}
}

func TestFrameRoundTrip(t *testing.T) {
	for _, s := range sampleFrames(t) {
		t.Run(s.name, func(t *testing.T) {
			fr := NewFrameReader(bytes.NewReader(s.raw))
			f, err := fr.Next()
			require.NoError(t, err)
			assert.Equal(t, s.kind, f.Kind)
			assert.Equal(t, s.raw[5], f.Flags)
			if s.kind == KindChunk {
				assert.Nil(t, f.Payload)
				assert.Equal(t, s.raw, f.Chunk.Frame())
				f.Chunk.Release()
			} else {
				assert.Nil(t, f.Chunk)
				assert.Equal(t, s.raw, AppendFrame(nil, f.Kind, f.Flags, f.Payload))
			}
			_, err = fr.Next()
			assert.Equal(t, io.EOF, err, "the stream ended between two frames")
		})
	}
}

func TestFramesFollowEachOther(t *testing.T) {
	var stream []byte
	samples := sampleFrames(t)
	for _, s := range samples {
		stream = append(stream, s.raw...)
	}
	fr := NewFrameReader(bytes.NewReader(stream))
	for _, s := range samples {
		f, err := fr.Next()
		require.NoError(t, err)
		assert.Equal(t, s.kind, f.Kind)
	}
}

func TestFrameCutAtEveryByte(t *testing.T) {
	for _, s := range sampleFrames(t) {
		t.Run(s.name, func(t *testing.T) {
			for n := range s.raw {
				f, err := NewFrameReader(bytes.NewReader(s.raw[:n])).Next()
				if n == 0 {
					assert.Equal(t, io.EOF, err)
				} else {
					assert.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", n)
				}
				assert.Nil(t, f.Payload, "cut at %d", n)
				assert.Nil(t, f.Chunk, "cut at %d", n)
			}
		})
	}
}

// A flip in the length makes a frame swallow what follows or end early, so
// each is tried with nothing behind it and with another frame.
func TestEverySingleBitFlipIsNoticed(t *testing.T) {
	behind := AppendFrame(nil, KindAbort, 0, bytes.Repeat([]byte(" "), 1000))
	for _, s := range sampleFrames(t) {
		t.Run(s.name, func(t *testing.T) {
			for bit := range 8 * len(s.raw) {
				for _, tail := range [][]byte{nil, behind} {
					damaged := append(bytes.Clone(s.raw), tail...)
					damaged[bit/8] ^= 1 << (bit % 8)
					f, err := NewFrameReader(bytes.NewReader(damaged)).Next()
					require.Error(t, err, "bit %d of byte %d, read as %s", bit%8, bit/8, f.Kind)
				}
			}
		})
	}
}

func TestUnknownKinds(t *testing.T) {
	known := AppendAck(nil, 7)
	for _, kind := range []Kind{0, Kind(len(kindNames)), 99, 255} {
		t.Run(kind.String(), func(t *testing.T) {
			skippable := AppendFrame(nil, kind, FlagSkip, []byte("from the future"))
			f := readFrame(t, append(skippable, known...))
			assert.Equal(t, KindAck, f.Kind, "the unknown frame was not passed over")

			required := AppendFrame(nil, kind, FlagSkip<<1, []byte("from the future"))
			_, err := NewFrameReader(bytes.NewReader(append(required, known...))).Next()
			assert.True(t, HasCode(err, CodeProtocol), "%v", err)
			assert.ErrorContains(t, err, fmt.Sprint(uint8(kind)))
		})
	}
}

func TestLengthIsCheckedBeforeAllocation(t *testing.T) {
	const chunkMost = chunkHeaderSize + MaxChunk
	tests := []struct {
		name     string
		kind     Kind
		flags    uint8
		length   uint32
		greeting bool
	}{
		{"control over the limit", KindOffer, 0, MaxControl + 1, false},
		{"control of 4 GiB", KindReady, 0, 1<<32 - 1, false},
		{"ack of 4 GiB", KindAck, 0, 1<<32 - 1, false},
		{"skippable and unknown", 99, FlagSkip, MaxControl + 1, false},
		{"chunk over the limit", KindChunk, 0, chunkMost + 1, false},
		{"chunk of 4 GiB", KindChunk, 0, 1<<32 - 1, false},
		{"chunk shorter than its header", KindChunk, 0, chunkHeaderSize - 1, false},
		{"greeting over the limit", KindHello, 0, maxGreeting + 1, true},
		{"greeting with a chunk", KindChunk, 0, chunkMost, true},
		{"greeting with an offer", KindOffer, 0, 100, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hdr := make([]byte, headerSize)
			putHeader(hdr, int(tt.length), tt.kind, tt.flags)
			fr := NewFrameReader(bytes.NewReader(hdr))
			fr.parser.greeting = tt.greeting
			var err error
			took := allocated(func() { _, err = fr.Next() })
			assert.True(t, HasCode(err, CodeProtocol), "%v", err)
			assert.Less(t, took, uint64(64<<10))
			if !tt.greeting {
				assert.ErrorContains(t, err, fmt.Sprint(tt.length), "the error does not say what came")
			}
		})
	}
}

func TestLargestFramesPass(t *testing.T) {
	f := readFrame(t, AppendFrame(nil, KindStatus, 0, make([]byte, MaxControl)))
	assert.Len(t, f.Payload, MaxControl)

	content := random(MaxChunk, 1)
	f = readFrame(t, rawChunk(0, content).Frame())
	assert.True(t, bytes.Equal(content, f.Chunk.Data()))
}

func TestPayloadLastsUntilNext(t *testing.T) {
	stream := append(AppendFrame(nil, KindAbort, 0, []byte("first")), AppendFrame(nil, KindAbort, 0, []byte("other"))...)
	fr := NewFrameReader(bytes.NewReader(stream))
	first, err := fr.Next()
	require.NoError(t, err)
	kept := bytes.Clone(first.Payload)
	second, err := fr.Next()
	require.NoError(t, err)
	assert.Equal(t, "first", string(kept))
	assert.Equal(t, "other", string(second.Payload))
}

func TestAck(t *testing.T) {
	for _, offset := range []int64{0, 1, 1 << 40, maxOffset} {
		f := readFrame(t, AppendAck(nil, offset))
		got, err := ParseAck(f.Payload)
		require.NoError(t, err)
		assert.Equal(t, offset, got)
	}
	tooFar := binary.BigEndian.AppendUint64(nil, maxOffset+1)
	for _, payload := range [][]byte{nil, make([]byte, ackSize-1), make([]byte, ackSize+1), tooFar, bytes.Repeat([]byte{0xff}, ackSize)} {
		_, err := ParseAck(payload)
		assert.True(t, HasCode(err, CodeProtocol), "%x: %v", payload, err)
	}
}

func TestKindNames(t *testing.T) {
	for k := KindHello; k.known(); k++ {
		got, ok := ParseKind(k.String())
		assert.True(t, ok)
		assert.Equal(t, k, got)
	}
	for _, name := range []string{"", "kind(0)", "kind(99)", "Offer"} {
		_, ok := ParseKind(name)
		assert.False(t, ok, name)
	}
	assert.Equal(t, "kind(99)", Kind(99).String())
}

func TestChunkFramesDoNotAllocate(t *testing.T) {
	content := random(100_000, 2)
	var r bytes.Reader
	fr := NewFrameReader(&r)
	zeroAllocs(t, func() {
		c := NewChunk(len(content))
		copy(c.Buffer(), content)
		c.Seal(0, len(content), CodecRaw, len(content))
		r.Reset(c.Frame())
		f, err := fr.Next()
		if err != nil || f.Chunk.RawLen != len(content) {
			t.Fatal(err)
		}
		f.Chunk.Release()
		c.Release()
	})
}

func TestAckFramesDoNotAllocate(t *testing.T) {
	var buf []byte
	var r bytes.Reader
	fr := NewFrameReader(&r)
	zeroAllocs(t, func() {
		buf = AppendAck(buf[:0], 1<<33)
		r.Reset(buf)
		f, err := fr.Next()
		if err != nil {
			t.Fatal(err)
		}
		if offset, err := ParseAck(f.Payload); err != nil || offset != 1<<33 {
			t.Fatal(offset, err)
		}
	})
}

// A chunk costs no more than was granted: a header that says more is refused
// before there is room for it, wherever the frame is put together.
func TestChunkBeyondTheLimitAllocatesNothing(t *testing.T) {
	header := make([]byte, headerSize)
	putHeader(header, chunkHeaderSize+MaxChunk, KindChunk, 0)
	for _, most := range []int{0, MaxEarly, MaxChunk - 1} {
		fr := NewFrameReader(bytes.NewReader(header))
		fr.LimitChunks(most)
		_, err := fr.Next()
		assert.True(t, HasCode(err, CodeProtocol), "%v", err)
		assert.Nil(t, fr.parser.chunk)

		in := newInbound()
		in.unread = bytes.Clone(header)
		assert.True(t, HasCode(in.each(&fr.largest, func(Frame) error { return nil }), CodeProtocol))
		assert.Nil(t, in.parser.chunk)
	}
	fr := NewFrameReader(bytes.NewReader(header))
	_, err := fr.Next()
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF, "the limit of the protocol")
}
