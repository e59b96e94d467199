// Parser: frames, put together from bytes that come in parts of any size.

package protocol

import (
	"encoding/binary"
	"hash/crc32"
	"sync/atomic"
)

// source is where a parser takes its bytes from.
type source interface {
	// fill reads n bytes to the beginning of room, which is of chunk c, if not
	// nil. What it has in the rest of room is its own to use until the next
	// calls have asked for it there.
	fill(room []byte, n int, c *Chunk) error
}

// memory is a source of bytes that have come.
type memory []byte

func (m *memory) fill(room []byte, n int, _ *Chunk) error {
	copy(room[:n], *m)
	*m = (*m)[n:]
	return nil
}

// parser puts frames together from parts of any size. It does what
// [FrameReader] does, which waits for its bytes instead.
type parser struct {
	hdr   [headerSize]byte
	have  int    // bytes of the frame so far
	want  int    // bytes of the frame, once hdr is complete
	frame []byte // room for all of it; its chunk's, or ctl
	chunk *Chunk
	ctl   []byte // reused
	torn  bool   // the source failed

	largest  *atomic.Int64 // data in a Chunk; nil: MaxChunk
	greeting bool          // take nothing but a short Hello or Reject: the peer may be anybody
}

// inside reports whether a frame has begun and not ended.
func (p *parser) inside() bool { return p.have > 0 }

// next takes up to n bytes from src, at most what is missing of one frame, and
// returns that frame when it is complete; its Kind is 0 when it is not, or was
// to be passed over. Payload is valid until the next call.
func (p *parser) next(src source, n int) (used int, f Frame, err error) {
	if p.have < headerSize {
		k := min(n, headerSize-p.have)
		if err := src.fill(p.hdr[p.have:p.have+k], k, nil); err != nil {
			p.torn = true
			return 0, Frame{}, err
		}
		used, n = k, n-k
		if p.have += k; p.have < headerSize {
			return used, Frame{}, nil
		}
		if err := p.begin(); err != nil {
			return used, Frame{}, err
		}
	}
	k := min(n, p.want-p.have)
	if err := src.fill(p.frame[p.have:p.want], k, p.chunk); err != nil {
		p.torn = true
		return used, Frame{}, err
	}
	used += k
	if p.have += k; p.have < p.want {
		return used, Frame{}, nil
	}
	f, err = p.complete()
	return used, f, err
}

// begin makes room for the frame whose header is complete.
func (p *parser) begin() error {
	kind, length, err := parseHeader(p.hdr[:])
	if p.greeting && p.hdr[0] == 22 && p.hdr[1] == 3 { // RFC 8446, 5.1: a handshake record
		return errSpeaksTLS
	}
	if p.greeting && (kind != KindHello && kind != KindReject || length > maxGreeting) {
		return Errorf(CodeProtocol, "the peer does not speak sbcast (its first bytes are %q)", p.hdr[:])
	}
	if err != nil {
		return err
	}
	p.want = headerSize + length + checkSize
	if kind == KindChunk {
		if most := p.largest; most != nil && int64(length-chunkHeaderSize) > most.Load() {
			return Errorf(CodeProtocol, "chunk frame of %d bytes of data, where at most %d may come", length-chunkHeaderSize, most.Load())
		}
		p.chunk = newChunk(length - chunkHeaderSize)
		p.frame = p.chunk.buf[chunkPad : chunkPad+p.want]
	} else {
		if cap(p.ctl) < p.want {
			p.ctl = make([]byte, p.want)
		}
		p.frame = p.ctl[:p.want]
	}
	copy(p.frame, p.hdr[:])
	return nil
}

// complete checks the frame that has come.
func (p *parser) complete() (Frame, error) {
	frame, chunk := p.frame[:p.want], p.chunk
	p.have, p.chunk, p.frame = 0, nil, nil
	kind, flags := Kind(p.hdr[4]), p.hdr[5]
	if chunk != nil {
		chunk.frame = frame
		if err := chunk.parse(); err != nil {
			chunk.Release()
			return Frame{}, err
		}
		return Frame{Kind: kind, Flags: flags, Chunk: chunk}, nil
	}
	end := len(frame) - checkSize
	if err := verifyCheck(kind, crc32.Checksum(frame[:end], castagnoli), frame[end:]); err != nil {
		return Frame{}, err
	}
	if !kind.known() { // to be passed over
		return Frame{}, nil
	}
	return Frame{Kind: kind, Flags: flags, Payload: frame[headerSize:end]}, nil
}

// parseHeader checks the header of a frame against the limits of its kind,
// before anything is allocated for it.
func parseHeader(h []byte) (kind Kind, length int, err error) {
	n := int64(binary.BigEndian.Uint32(h))
	kind, flags := Kind(h[4]), h[5]
	switch {
	case !kind.known() && flags&FlagSkip == 0:
		err = Errorf(CodeProtocol, "frame of unknown kind %d that must not be skipped", uint8(kind))
	case kind == KindChunk && (n < chunkHeaderSize || n > chunkHeaderSize+MaxChunk):
		err = Errorf(CodeProtocol, "chunk frame of %d bytes, the limits are %d and %d", n, chunkHeaderSize, chunkHeaderSize+MaxChunk)
	case kind != KindChunk && n > MaxControl:
		err = Errorf(CodeProtocol, "%s frame of %d bytes, the limit is %d", kind, n, MaxControl)
	}
	return kind, int(n), err
}

func verifyCheck(kind Kind, sum uint32, check []byte) error {
	if want := binary.BigEndian.Uint32(check); sum != want {
		return Errorf(CodeChecksum, "%s frame damaged on the way: its CRC32C is %08x and should be %08x", kind, sum, want)
	}
	return nil
}
