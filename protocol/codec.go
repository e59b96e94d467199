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

// The ways to compress: never, every chunk that shrinks, or those for which it
// is faster, as the sender measures.
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

// Encoder seals chunks, compressed where they shrink unless its mode is none.
// It does not measure what is faster: that is for who has several of them and
// knows the link. An Encoder is not safe for concurrent use.
type Encoder struct {
	mode    Compression
	lz4     lz4.Compressor
	scratch []byte // of Sample
}

// NewEncoder returns an Encoder for mode.
func NewEncoder(mode Compression) *Encoder { return &Encoder{mode: mode} }

// Seal makes a sealed chunk of the first n bytes of raw's buffer, which are
// the content at offset. It takes raw's reference and returns one: raw itself,
// or another chunk that holds the same content compressed.
func (e *Encoder) Seal(raw *Chunk, offset int64, n int) *Chunk {
	if e.mode != CompressNone {
		if c := e.compress(raw.Buffer()[:n], offset); c != nil {
			raw.Release()
			return c
		}
	}
	raw.Seal(offset, n, CodecRaw, n)
	return raw
}

// shrunk is the most that content may be compressed to: a sixteenth less.
// LZ4 gives random data up at 10 GB/s and more when it has no more room.
func shrunk(content []byte) int { return len(content) - len(content)/16 - 1 }

// compress returns nil when content does not shrink.
func (e *Encoder) compress(content []byte, offset int64) *Chunk {
	limit := shrunk(content)
	if limit <= 0 {
		return nil
	}
	c := newChunk(limit)
	size, err := e.lz4.CompressBlock(content, c.Buffer()[:limit])
	if err != nil || size == 0 {
		c.Release()
		return nil
	}
	c.Seal(offset, len(content), CodecLZ4, size)
	return c
}

// Sample is the size that content compresses to, or its own when it does not
// shrink. Nothing else is made of it.
func (e *Encoder) Sample(content []byte) int {
	limit := shrunk(content)
	if limit <= 0 {
		return len(content)
	}
	if len(e.scratch) < limit {
		e.scratch = make([]byte, limit)
	}
	size, err := e.lz4.CompressBlock(content, e.scratch[:limit])
	if err != nil || size == 0 {
		return len(content)
	}
	return size
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
