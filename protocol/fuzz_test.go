package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mend gives the frames in stream the checks they should have, as a fuzzer
// does not find a CRC by itself.
func mend(stream []byte) []byte {
	stream = bytes.Clone(stream)
	for rest := stream; len(rest) >= headerSize; {
		n := int64(binary.BigEndian.Uint32(rest)) + headerSize
		if n+checkSize > int64(len(rest)) {
			break
		}
		binary.BigEndian.PutUint32(rest[n:], crc32.Checksum(rest[:n], castagnoli))
		rest = rest[n+checkSize:]
	}
	return stream
}

func FuzzFrameReader(f *testing.F) {
	var all []byte
	for _, s := range sampleFrames(f) {
		f.Add(s.raw, false)
		f.Add(s.raw[:len(s.raw)/2], false)
		all = append(all, s.raw...)
	}
	f.Add(all, true)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), false)
	f.Add(AppendFrame(AppendFrame(nil, 99, FlagSkip, []byte("news")), KindPing, 0, nil), true)
	f.Fuzz(func(t *testing.T, stream []byte, good bool) {
		if good {
			stream = mend(stream)
		}
		r := bytes.NewReader(stream)
		fr := NewFrameReader(r)
		for {
			before := len(stream) - r.Len()
			fm, err := fr.Next()
			if err != nil {
				require.Nil(t, fm.Chunk)
				require.Nil(t, fm.Payload)
				if errors.Is(err, io.EOF) {
					require.Zero(t, r.Len(), "the end came early")
				}
				return
			}
			read := stream[before : len(stream)-r.Len()]
			require.True(t, fm.Kind.known())
			if fm.Chunk != nil {
				require.True(t, bytes.HasSuffix(read, fm.Chunk.Frame()))
				fm.Chunk.Release()
				continue
			}
			again := AppendFrame(nil, fm.Kind, fm.Flags, fm.Payload)
			tail := bytes.Clone(read[len(read)-len(again):]) // what comes before it was skipped
			if tail[6] == 0 && tail[7] == 0 {                // else a later version knows what is reserved in this one
				require.Equal(t, tail, again)
			}
			if fm.Kind == KindAck {
				if offset, err := ParseAck(fm.Payload); err == nil {
					require.Equal(t, again[headerSize:headerSize+ackSize], AppendAck(nil, offset)[headerSize:headerSize+ackSize])
				}
			}
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		payload, err := json.Marshal(m)
		require.NoError(f, err)
		f.Add(uint8(m.Kind()), payload)
		f.Add(uint8(m.Kind()), []byte("{}"))
		f.Add(uint8(m.Kind()), []byte("null"))
	}
	f.Add(uint8(KindOffer), []byte(`{"name":"../x","size":-2}`))
	f.Add(uint8(KindOffer), []byte(`{"name":"f","policy":"+1","mtime":"0000-01-01T00:00:00+23:59"}`))
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		m, err := ParseMessage(Kind(kind), payload)
		if err != nil {
			require.Nil(t, m)
			require.NotEqual(t, Code(""), AsError(err).Code)
			return
		}
		require.Equal(t, Kind(kind), m.Kind())
		require.NoError(t, m.validate())
		if o, ok := m.(*Offer); ok {
			require.NoError(t, o.Name.validate())
		}
		raw, err := AppendMessage(nil, m)
		if err != nil {
			require.True(t, HasCode(err, CodeInternal) && len(payload) > 1<<10, "what was parsed cannot be sent: %v", err) // JSON can grow
			return
		}
		again, err := ParseMessage(m.Kind(), readFrame(t, raw).Payload)
		require.NoError(t, err)
		twice, err := AppendMessage(nil, again)
		require.NoError(t, err)
		require.Equal(t, string(raw), string(twice))
	})
}

func FuzzChunkDecode(f *testing.F) {
	for _, content := range [][]byte{text(100), text(5_000), make([]byte, 70_000)} {
		c := seal(NewEncoder(CompressLZ4), 0, content)
		f.Add(c.Data(), uint32(c.RawLen), uint8(c.Codec))
		f.Add(c.Data(), uint32(c.RawLen+1), uint8(c.Codec))
		f.Add(c.Data()[:len(c.Data())/2], uint32(c.RawLen), uint8(c.Codec))
	}
	f.Add([]byte("raw"), uint32(3), uint8(CodecRaw))
	f.Add([]byte{}, uint32(0), uint8(9))
	f.Fuzz(func(t *testing.T, data []byte, rawLen uint32, codec uint8) {
		if len(data) > MaxChunk {
			return
		}
		c := NewChunk(len(data))
		copy(c.Buffer(), data)
		c.Seal(1<<40, int(rawLen), Codec(codec), len(data))
		fm, err := NewFrameReader(bytes.NewReader(c.Frame())).Next()
		if err != nil {
			require.True(t, HasCode(err, CodeProtocol), "%v", err)
			return
		}
		got := fm.Chunk
		require.Equal(t, c.Frame(), got.Frame())
		require.Positive(t, got.RawLen)
		require.LessOrEqual(t, got.RawLen, MaxChunk)
		const guard = 64
		scratch := bytes.Repeat([]byte{0xa5}, got.RawLen+guard)
		content, _, err := got.Decode(scratch)
		require.Equal(t, guard, bytes.Count(scratch[got.RawLen:], []byte{0xa5}), "written behind the chunk's raw length")
		if err != nil {
			require.Nil(t, content)
			return
		}
		require.Len(t, content, got.RawLen)
	})
}

func FuzzName(f *testing.F) {
	for _, name := range []string{
		"f", "a/b", "../x", "/a", "a/", "a//b", ".", "-rf", `a\b`, "a\x00b", "\u202egpj", ".sbcast-x", "CON", "c:", "größe", "\xff",
		strings.Repeat("n", 256), strings.Repeat("d/", 33) + "f",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if err := Name(name).validate(); err != nil {
			require.True(t, HasCode(err, CodeName))
			return
		}
		local := filepath.FromSlash(name)
		assert.True(t, filepath.IsLocal(local))
		assert.Equal(t, local, filepath.Clean(local), "two names for one file")
		assert.Equal(t, filepath.Join("root", local), filepath.Clean(filepath.Join("root", local)))
		assert.LessOrEqual(t, len(name), maxNameLen)
		assert.NotContains(t, name, `\`)
		assert.False(t, strings.HasPrefix(name, "-"))
		assert.Equal(t, -1, strings.IndexFunc(name, unicode.IsControl))
		for _, part := range strings.Split(name, "/") {
			assert.NotContains(t, []string{"", ".", ".."}, part)
			assert.LessOrEqual(t, len(part), maxPartLen)
			assert.False(t, len(part) >= len(ReservedPrefix) && strings.EqualFold(part[:len(ReservedPrefix)], ReservedPrefix), part)
		}
		_, err := AppendMessage(nil, &Offer{Name: Name(name)})
		assert.NoError(t, err, "a good name that cannot be offered")
	})
}
