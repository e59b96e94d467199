package protocol

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// seal passes content through e as a sender does.
func seal(e *Encoder, offset int64, content []byte) *Chunk {
	c := NewChunk(len(content))
	copy(c.Buffer(), content)
	return e.Seal(c, offset, len(content))
}

func TestEncoder(t *testing.T) {
	plain, noise := text(100_000), random(100_000, 3)
	tests := []struct {
		name    string
		mode    Compression
		content []byte
		want    Codec
	}{
		{"none leaves text", CompressNone, plain, CodecRaw},
		{"lz4 shrinks text", CompressLZ4, plain, CodecLZ4},
		{"auto shrinks text", CompressAuto, plain, CodecLZ4},
		{"lz4 gives up noise", CompressLZ4, noise, CodecRaw},
		{"auto gives up noise", CompressAuto, noise, CodecRaw},
		{"lz4 shrinks zeros", CompressLZ4, make([]byte, MaxChunk), CodecLZ4},
		{"one byte", CompressLZ4, []byte("x"), CodecRaw},
		{"sixteen bytes", CompressLZ4, []byte("0123456789abcdef"), CodecRaw},
		{"largest chunk of noise", CompressLZ4, random(MaxChunk, 4), CodecRaw},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := seal(NewEncoder(tt.mode), 42, tt.content)
			assert.Equal(t, tt.want, c.Codec)
			assert.Equal(t, len(tt.content), c.RawLen)
			if tt.want == CodecLZ4 {
				assert.Less(t, len(c.Data()), len(tt.content)*15/16, "compressed for less than a sixteenth")
			}
			got := readFrame(t, c.Frame()).Chunk
			assert.Equal(t, int64(42), got.Offset)
			content, _, err := got.Decode(nil)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(tt.content, content))
		})
	}
}

func TestEncoderTakesTheReference(t *testing.T) {
	raw := NewChunk(10_000)
	copy(raw.Buffer(), text(10_000))
	c := NewEncoder(CompressLZ4).Seal(raw, 0, 10_000)
	assert.NotSame(t, raw, c)
	assert.Zero(t, raw.refs.Load(), "the chunk that was compressed is still held")

	raw = NewChunk(10_000)
	copy(raw.Buffer(), random(10_000, 5))
	c = NewEncoder(CompressLZ4).Seal(raw, 0, 10_000)
	assert.Same(t, raw, c)
	assert.EqualValues(t, 1, c.refs.Load())
}

func TestEncoderGivesUpNothingForGood(t *testing.T) {
	for _, mode := range []Compression{CompressLZ4, CompressAuto} {
		e := NewEncoder(mode)
		for i := range 10 {
			require.Equal(t, CodecRaw, seal(e, 0, random(8_000, uint64(i))).Codec)
			require.Equal(t, CodecLZ4, seal(e, 0, text(8_000)).Codec)
		}
	}
}

func TestSample(t *testing.T) {
	e := NewEncoder(CompressNone)
	for _, n := range []int{0, 1, 16, 1000, 64 << 10, 5, 100_000} {
		plain := text(n)
		want := len(seal(NewEncoder(CompressLZ4), 0, plain).Data())
		assert.Equal(t, want, e.Sample(plain), "%d bytes of text", n)
		assert.Equal(t, n, e.Sample(random(n, 9)), "%d bytes of noise", n)
	}
}

func TestDecodeUsesScratch(t *testing.T) {
	plain := text(50_000)
	c := seal(NewEncoder(CompressLZ4), 0, plain)
	content, scratch, err := c.Decode(nil)
	require.NoError(t, err)
	require.True(t, bytes.Equal(plain, content))

	again, next, err := c.Decode(scratch)
	require.NoError(t, err)
	assert.Same(t, &scratch[0], &again[0], "scratch that is long enough was not used")
	assert.Same(t, &scratch[0], &next[0])

	raw := rawChunk(0, plain)
	content, next, err = raw.Decode(scratch)
	require.NoError(t, err)
	assert.Same(t, &raw.Data()[0], &content[0], "raw data was copied")
	assert.Same(t, &scratch[0], &next[0], "scratch was lost")
}

// decodeGuarded decodes into a scratch that is longer than needed, and
// requires that nothing is written behind RawLen.
func decodeGuarded(t *testing.T, c *Chunk) ([]byte, error) {
	t.Helper()
	const guard = 4096
	scratch := bytes.Repeat([]byte{0xa5}, c.RawLen+guard)
	content, next, err := c.Decode(scratch)
	assert.Len(t, next, len(scratch), "scratch was lost")
	assert.Equal(t, guard, bytes.Count(scratch[c.RawLen:], []byte{0xa5}), "written behind the chunk's raw length")
	return content, err
}

func TestDecodeRefusesLies(t *testing.T) {
	plain := text(20_000)
	good := seal(NewEncoder(CompressLZ4), 0, plain)
	require.Equal(t, CodecLZ4, good.Codec)
	encoded := good.Data()
	forge := func(rawLen int, data []byte) *Chunk {
		c := NewChunk(len(data))
		copy(c.Buffer(), data)
		c.Seal(4096, rawLen, CodecLZ4, len(data))
		return c
	}

	content, err := decodeGuarded(t, forge(len(plain), encoded))
	require.NoError(t, err)
	require.True(t, bytes.Equal(plain, content))

	lies := map[string]*Chunk{
		"one byte less than it says": forge(len(plain)+1, encoded),
		"one byte more than it says": forge(len(plain)-1, encoded),
		"far more than it says":      forge(len(encoded)+1, encoded),
		"far less than it says":      forge(MaxChunk, encoded),
		"no data":                    forge(len(plain), nil),
		"zeros":                      forge(len(plain), make([]byte, 100)),
		"trailing byte":              forge(len(plain), append(bytes.Clone(encoded), 0)),
	}
	for i := range uint64(20) {
		lies["noise "+string(rune('a'+i))] = forge(len(plain), random(200, i))
	}
	for name, c := range lies {
		t.Run(name, func(t *testing.T) {
			content, err := decodeGuarded(t, c)
			assert.True(t, HasCode(err, CodeProtocol), "%v", err)
			assert.ErrorContains(t, err, "chunk at 4096")
			assert.Nil(t, content)
		})
	}
	for n := range encoded {
		_, err := decodeGuarded(t, forge(len(plain), encoded[:n]))
		require.Error(t, err, "a block cut at %d of %d bytes passes", n, len(encoded))
	}
}

func TestCodecNames(t *testing.T) {
	for _, c := range []Codec{CodecRaw, CodecLZ4} {
		name, err := c.MarshalText()
		require.NoError(t, err)
		got := Codec(99)
		require.NoError(t, got.UnmarshalText(name))
		assert.Equal(t, c, got)
	}
	c := Codec(99)
	assert.Equal(t, "codec(99)", c.String())
	assert.True(t, HasCode(c.UnmarshalText([]byte("zstd")), CodeUnsupported))
}

func TestParseCompression(t *testing.T) {
	for name, codec := range map[string]Codec{"none": CodecRaw, "lz4": CodecLZ4, "auto": CodecLZ4} {
		c, err := ParseCompression(name)
		require.NoError(t, err)
		assert.Equal(t, codec, c.Codec())
	}
	for _, name := range []string{"", "LZ4", "zstd", "auto "} {
		_, err := ParseCompression(name)
		assert.ErrorContains(t, err, "is not auto, lz4 or none", name)
	}
}
