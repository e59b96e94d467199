// Codecs: how a chunk's data is encoded, and when a sender bothers. The only
// file that imports lz4.

package protocol

import (
	"fmt"

	"github.com/pierrec/lz4/v4"
)

// Codec says how a chunk's data is encoded. Numbers are never reused.
type Codec uint8

// The codecs. LZ4 is one LZ4 block without a frame around it.
const (
	CodecRaw Codec = 0
	CodecLZ4 Codec = 1
)

func (c Codec) known() bool { return c <= CodecLZ4 }

func (c Codec) String() string {
	switch c {
	case CodecRaw:
		return "raw"
	case CodecLZ4:
		return "lz4"
	default:
		return fmt.Sprintf("codec(%d)", uint8(c))
	}
}

// MarshalText implements encoding.TextMarshaler.
func (c Codec) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Codec) UnmarshalText(b []byte) error {
	switch string(b) {
	case "raw", "":
		*c = CodecRaw
	case "lz4":
		*c = CodecLZ4
	default:
		return Errorf(CodeUnsupported, "unknown codec %q", b)
	}
	return nil
}

// Compression says when a sender compresses.
type Compression string

// The ways to compress: never, every chunk that shrinks, or every chunk for as
// long as chunks do shrink.
const (
	CompressNone Compression = "none"
	CompressLZ4  Compression = "lz4"
	CompressAuto Compression = "auto"
)

// ParseCompression reads none, lz4 or auto.
func ParseCompression(s string) (Compression, error) {
	switch c := Compression(s); c {
	case CompressNone, CompressLZ4, CompressAuto:
		return c, nil
	default:
		return "", fmt.Errorf("%q is not auto, lz4 or none", s)
	}
}

// Codec is the codec that an Offer announces for c.
func (c Compression) Codec() Codec {
	if c == CompressLZ4 || c == CompressAuto {
		return CodecLZ4
	}
	return CodecRaw
}

// maxSkip bounds how many chunks auto passes over before it tries again: at
// the default chunk size that is one try every 16 MiB.
const maxSkip = 64

// Encoder seals chunks, compressed where that pays. It is not safe for
// concurrent use.
type Encoder struct {
	mode Compression
	lz4  lz4.Compressor
	skip int // auto: chunks to pass over before the next try
	back int // auto: what skip becomes after the next failed try
}

// NewEncoder returns an Encoder for mode.
func NewEncoder(mode Compression) *Encoder { return &Encoder{mode: mode, back: 1} }

// Seal makes a sealed chunk of the first n bytes of raw's buffer, which are
// the content at offset. It takes raw's reference and returns one: raw itself,
// or another chunk that holds the same content compressed.
func (e *Encoder) Seal(raw *Chunk, offset int64, n int) *Chunk {
	if e.try() {
		if c := e.compress(raw.Buffer()[:n], offset); c != nil {
			raw.Release()
			return c
		}
	}
	raw.Seal(offset, n, CodecRaw, n)
	return raw
}

func (e *Encoder) try() bool {
	switch e.mode {
	case CompressLZ4:
		return true
	case CompressAuto:
		if e.skip > 0 {
			e.skip--
			return false
		}
		return true
	case CompressNone:
	}
	return false
}

// compress returns nil when content does not shrink by at least a sixteenth:
// LZ4 gives random data up at 50 GB/s when dst is that short.
func (e *Encoder) compress(content []byte, offset int64) *Chunk {
	limit := len(content) - len(content)/16 - 1
	if limit > 0 {
		c := newChunk(limit)
		size, err := e.lz4.CompressBlock(content, c.Buffer()[:limit])
		if err == nil && size > 0 {
			c.Seal(offset, len(content), CodecLZ4, size)
			e.back = 1
			return c
		}
		c.Release()
	}
	e.skip = e.back
	e.back = min(2*e.back, maxSkip)
	return nil
}

// Decode returns the chunk's content. It is either the chunk's own data, valid
// while the caller has a reference, or scratch, grown when it is too short;
// the second result is the scratch to use next time. Nothing longer than
// RawLen is ever written.
func (c *Chunk) Decode(scratch []byte) (content, next []byte, err error) {
	if c.Codec == CodecRaw {
		return c.Data(), scratch, nil
	}
	if cap(scratch) < c.RawLen {
		scratch = make([]byte, c.RawLen)
	}
	n, err := lz4.UncompressBlock(c.Data(), scratch[:c.RawLen])
	if err != nil {
		return nil, scratch, Errorf(CodeProtocol, "chunk at %d: %w", c.Offset, err)
	}
	if n != c.RawLen {
		return nil, scratch, Errorf(CodeProtocol, "chunk at %d decodes to %d bytes, it says %d", c.Offset, n, c.RawLen)
	}
	return scratch[:n], scratch, nil
}
