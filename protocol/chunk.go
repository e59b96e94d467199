// Chunks: runs of content bytes, the only pooled object.

package protocol

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	chunkHeaderSize = 16 // offset 8 + raw length 4 + codec 1 + reserved 3
	chunkOverhead   = headerSize + chunkHeaderSize + checkSize

	// chunkPad is what stands before the frame in a chunk's buffer, so that
	// content begins on a cache line. The kernel copies from a page of a file
	// to a buffer that begins 8 to 24 bytes into one at half its speed.
	chunkPad = 64 - headerSize - chunkHeaderSize

	// maxOffset keeps offset+length inside an int64.
	maxOffset = math.MaxInt64 - MaxChunk

	// minChunkClass is the smallest buffer a chunk gets, in bytes, and so what
	// a chunk of any size is counted as when a window is shared out.
	minChunkClass = 4 << 10

	chunkClasses = 11 // up to minChunkClass << 10, which is MaxChunk
)

// Chunk is a run of content in the form it has on the wire. A chunk is
// immutable once sealed or read, and counted: whoever keeps it past the call
// that lent it calls Retain, and everyone who has a reference calls Release
// once. The buffer goes back to its pool at the last Release; a chunk that is
// dropped without one is left to the garbage collector, which is what to do
// after a failed write (the kernel may still read it). A slice of the buffer
// does not keep the chunk, nor what is in it.
type Chunk struct {
	Offset int64 // of the first content byte, in the whole content
	RawLen int   // content bytes, decoded
	Codec  Codec // how Data is encoded

	buf   []byte  // the pooled buffer, of its class
	mem   *region // what buf is of, for as long as there is the chunk; nil: Go's heap
	frame []byte  // the part of buf that goes on the wire
	refs  atomic.Int32
}

// leastShared is the smallest buffer that is worth memory of its own kind, and
// the shortest frame that is worth a write by reference.
const leastShared = 256 << 10

// chunkPools holds buffers by class: class i has minChunkClass<<i bytes of
// room for data, so that a 1-byte chunk does not cost a 4 MiB buffer.
var chunkPools [chunkClasses]sync.Pool

// sharedKept is how many bytes of buffers in shared memory are kept from the
// collector, which empties pools however much they are used: what it takes
// comes back in small pages. It is more than one push takes with the default
// window, 10 MiB.
const sharedKept = 16 << 20

var kept struct {
	sync.Mutex
	chunks [chunkClasses][]*Chunk
	bytes  int
}

// takeShared returns a chunk that was kept, or nil.
func takeShared(class int) *Chunk {
	if minChunkClass<<class < leastShared {
		return nil
	}
	kept.Lock()
	defer kept.Unlock()
	all := kept.chunks[class]
	if len(all) == 0 {
		return nil
	}
	c := all[len(all)-1]
	all[len(all)-1] = nil
	kept.chunks[class] = all[:len(all)-1]
	kept.bytes -= len(c.buf)
	return c
}

// keepShared keeps c, if there is room.
func keepShared(class int, c *Chunk) bool {
	kept.Lock()
	defer kept.Unlock()
	if kept.bytes+len(c.buf) > sharedKept {
		return false
	}
	kept.bytes += len(c.buf)
	kept.chunks[class] = append(kept.chunks[class], c)
	return true
}

func chunkClass(n int) int {
	if n <= minChunkClass {
		return 0
	}
	return bits.Len(uint(n-1) / minChunkClass)
}

// NewChunk returns an unsealed chunk with room for n content bytes, at most
// MaxChunk, and one reference. Fill Buffer, then Seal it.
func NewChunk(n int) *Chunk { return newChunk(n) }

func newChunk(n int) *Chunk {
	if n < 0 || n > MaxChunk {
		panic(fmt.Sprintf("protocol: chunk of %d bytes, the limit is %d", n, MaxChunk))
	}
	class := chunkClass(n)
	c := takeShared(class)
	if c == nil {
		c, _ = chunkPools[class].Get().(*Chunk)
	}
	if c == nil {
		c = allocChunk(chunkPad + minChunkClass<<class + chunkOverhead)
	}
	c.frame = nil
	c.refs.Store(1)
	return c
}

func allocChunk(size int) *Chunk {
	if mem := sharedMemory(size); mem != nil {
		return &Chunk{buf: mem.bytes[:size], mem: mem}
	}
	return &Chunk{buf: make([]byte, size)}
}

// Buffer is the room for data of a chunk that is not sealed yet. It may be
// larger than what NewChunk was asked for.
func (c *Chunk) Buffer() []byte {
	return c.buf[chunkPad+headerSize+chunkHeaderSize : len(c.buf)-checkSize]
}

// Seal makes the first n bytes of Buffer the chunk's data: rawLen content
// bytes at offset, encoded by codec. From then on the chunk is immutable.
func (c *Chunk) Seal(offset int64, rawLen int, codec Codec, n int) {
	c.Offset, c.RawLen, c.Codec = offset, rawLen, codec
	c.frame = c.buf[chunkPad : chunkPad+chunkOverhead+n]
	putHeader(c.frame, chunkHeaderSize+n, KindChunk, 0)
	h := c.frame[headerSize:]
	binary.BigEndian.PutUint64(h, uint64(offset))
	binary.BigEndian.PutUint32(h[8:], uint32(rawLen))
	h[12], h[13], h[14], h[15] = byte(codec), 0, 0, 0
	end := len(c.frame) - checkSize
	binary.BigEndian.PutUint32(c.frame[end:], crc32.Checksum(c.frame[:end], castagnoli))
}

// parse reads the chunk header of a frame that came in whole, and checks it.
func (c *Chunk) parse() error {
	end := len(c.frame) - checkSize
	if err := verifyCheck(KindChunk, crc32.Checksum(c.frame[:end], castagnoli), c.frame[end:]); err != nil {
		return err
	}
	h := c.frame[headerSize:]
	offset, rawLen := binary.BigEndian.Uint64(h), binary.BigEndian.Uint32(h[8:])
	c.Codec = Codec(h[12])
	n := len(c.Data())
	switch {
	case offset > maxOffset:
		return Errorf(CodeProtocol, "chunk at offset %d, past the largest possible %d", offset, uint64(maxOffset))
	case rawLen == 0 || rawLen > MaxChunk:
		return Errorf(CodeProtocol, "chunk at %d of %d content bytes, the limits are 1 and %d", offset, rawLen, MaxChunk)
	case !c.Codec.known():
		return Errorf(CodeProtocol, "chunk at %d has unknown codec %d", offset, uint8(c.Codec))
	case c.Codec == CodecRaw && n != int(rawLen):
		return Errorf(CodeProtocol, "chunk at %d says %d content bytes and carries %d", offset, rawLen, n)
	case c.Codec != CodecRaw && n >= int(rawLen):
		return Errorf(CodeProtocol, "chunk at %d is %s-encoded to %d bytes, not less than its %d content bytes", offset, c.Codec, n, rawLen)
	}
	c.Offset, c.RawLen = int64(offset), int(rawLen)
	return nil
}

// Data is the encoded content. It is valid while the caller has a reference.
func (c *Chunk) Data() []byte {
	return c.frame[headerSize+chunkHeaderSize : len(c.frame)-checkSize]
}

// End is the offset behind the chunk's last content byte.
func (c *Chunk) End() int64 { return c.Offset + int64(c.RawLen) }

// Frame is the whole frame as it goes on the wire, valid like Data.
func (c *Chunk) Frame() []byte { return c.frame }

// Retain takes one more reference and returns c.
func (c *Chunk) Retain() *Chunk {
	if c.refs.Add(1) <= 1 {
		panic("protocol: Retain of a released chunk")
	}
	return c
}

// Release gives up one reference.
func (c *Chunk) Release() {
	switch n := c.refs.Add(-1); {
	case n < 0:
		panic("protocol: Release of a released chunk")
	case n == 0:
		class := chunkClass(len(c.buf) - chunkOverhead - chunkPad)
		if c.mem == nil || !keepShared(class, c) {
			chunkPools[class].Put(c)
		}
	}
}
