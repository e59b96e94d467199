// Frames: the unit on the wire, and the one reader of them.

package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Kind says what a frame's payload is. Numbers are never reused; 0 is reserved.
type Kind uint8

// The kinds of frames. The package comment has the table of their payloads.
const (
	KindHello    Kind = 1
	KindOffer    Kind = 2
	KindAccept   Kind = 3
	KindReject   Kind = 4
	KindChunk    Kind = 5
	KindAck      Kind = 6
	KindProgress Kind = 7
	KindFinish   Kind = 8
	KindReady    Kind = 9
	KindCommit   Kind = 10
	KindAbort    Kind = 11
	KindReceipt  Kind = 12
	KindQuery    Kind = 13
	KindStatus   Kind = 14
	KindPing     Kind = 15
	KindPong     Kind = 16
	KindLeaves   Kind = 17
)

var kindNames = [...]string{
	KindHello: "hello", KindOffer: "offer", KindAccept: "accept", KindReject: "reject",
	KindChunk: "chunk", KindAck: "ack", KindProgress: "progress", KindFinish: "finish",
	KindReady: "ready", KindCommit: "commit", KindAbort: "abort", KindReceipt: "receipt",
	KindQuery: "query", KindStatus: "status", KindPing: "ping", KindPong: "pong", KindLeaves: "leaves",
}

func (k Kind) String() string {
	if k.known() {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind finds a kind by its name.
func ParseKind(name string) (Kind, bool) {
	for k, n := range kindNames {
		if n == name && n != "" {
			return Kind(k), true
		}
	}
	return 0, false
}

func (k Kind) known() bool { return k >= KindHello && int(k) < len(kindNames) }

// FlagSkip marks a frame that a receiver which does not know its kind may skip.
const FlagSkip = 1 << 0

// Sizes of the fixed parts of a frame, and the limits checked before a payload is read.
const (
	headerSize = 8 // length 4 + kind 1 + flags 1 + reserved 2
	checkSize  = 4 // CRC32C of header and payload

	// MaxControl bounds the payload of every frame that is not a Chunk, in bytes.
	MaxControl = 64 << 10
	// MaxChunk bounds the content bytes of one Chunk, before and after encoding.
	MaxChunk = 4 << 20

	// maxGreeting bounds the first frame of a connection.
	maxGreeting = 4 << 10

	ackSize = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Frame is one frame as read. Payload is valid until the next call of
// [FrameReader.Next]; a Chunk is the caller's to Release.
type Frame struct {
	Kind    Kind
	Flags   uint8
	Payload []byte
	Chunk   *Chunk // set when Kind is KindChunk, then Payload is nil
}

// AppendFrame appends a whole frame with the given payload to b.
func AppendFrame(b []byte, kind Kind, flags uint8, payload []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, headerSize)...)
	putHeader(b[start:], len(payload), kind, flags)
	b = append(b, payload...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// AppendAck appends an Ack frame: the sink has taken all content before offset.
func AppendAck(b []byte, offset int64) []byte {
	var payload [ackSize]byte
	binary.BigEndian.PutUint64(payload[:], uint64(offset))
	return AppendFrame(b, KindAck, 0, payload[:])
}

// ParseAck reads the payload of an Ack frame.
func ParseAck(payload []byte) (offset int64, err error) {
	if len(payload) != ackSize {
		return 0, Errorf(CodeProtocol, "ack of %d bytes, want %d", len(payload), ackSize)
	}
	n := binary.BigEndian.Uint64(payload)
	if n > maxOffset {
		return 0, Errorf(CodeProtocol, "ack of offset %d, past the largest possible %d", n, uint64(maxOffset))
	}
	return int64(n), nil
}

func putHeader(b []byte, length int, kind Kind, flags uint8) {
	binary.BigEndian.PutUint32(b, uint32(length))
	b[4], b[5], b[6], b[7] = byte(kind), flags, 0, 0
}

// FrameReader reads frames from one stream. It is not safe for concurrent use.
type FrameReader struct {
	r        io.Reader
	hdr      [headerSize]byte
	buf      []byte // a control payload and its check, reused
	greeting bool   // take nothing but a short Hello or Reject: the peer may be anybody
}

// NewFrameReader returns a reader of the frames in r.
func NewFrameReader(r io.Reader) *FrameReader { return &FrameReader{r: r} }

// Next reads the next frame of a known kind. It returns io.EOF when the
// stream ended between two frames and io.ErrUnexpectedEOF inside one.
// Frames of unknown kinds with FlagSkip are read and passed over. The length
// is checked against the limit of the kind before anything is allocated.
func (fr *FrameReader) Next() (Frame, error) {
	for {
		if _, err := io.ReadFull(fr.r, fr.hdr[:]); err != nil {
			return Frame{}, err
		}
		length := int64(binary.BigEndian.Uint32(fr.hdr[:]))
		kind, flags := Kind(fr.hdr[4]), fr.hdr[5]
		if fr.greeting && (kind != KindHello && kind != KindReject || length > maxGreeting) {
			return Frame{}, Errorf(CodeProtocol, "the peer does not speak sbcast (its first bytes are %q)", fr.hdr[:])
		}
		if !kind.known() && flags&FlagSkip == 0 {
			return Frame{}, Errorf(CodeProtocol, "frame of unknown kind %d that must not be skipped", uint8(kind))
		}
		if kind == KindChunk {
			c, err := fr.readChunk(length)
			return Frame{Kind: kind, Flags: flags, Chunk: c}, err
		}
		payload, err := fr.readControl(kind, length)
		if err != nil {
			return Frame{}, err
		}
		if kind.known() {
			return Frame{Kind: kind, Flags: flags, Payload: payload}, nil
		}
	}
}

func (fr *FrameReader) readControl(kind Kind, length int64) ([]byte, error) {
	if length > MaxControl {
		return nil, Errorf(CodeProtocol, "%s frame of %d bytes, the limit is %d", kind, length, MaxControl)
	}
	n := int(length)
	if cap(fr.buf) < n+checkSize {
		fr.buf = make([]byte, n+checkSize)
	}
	b := fr.buf[:n+checkSize]
	if err := readRest(fr.r, b); err != nil {
		return nil, fmt.Errorf("in a %s frame: %w", kind, err)
	}
	sum := crc32.Update(crc32.Checksum(fr.hdr[:], castagnoli), castagnoli, b[:n])
	if err := verifyCheck(kind, sum, b[n:]); err != nil {
		return nil, err
	}
	return b[:n], nil
}

func (fr *FrameReader) readChunk(length int64) (*Chunk, error) {
	if length < chunkHeaderSize || length > chunkHeaderSize+MaxChunk {
		return nil, Errorf(CodeProtocol, "chunk frame of %d bytes, the limits are %d and %d",
			length, chunkHeaderSize, chunkHeaderSize+MaxChunk)
	}
	c := newChunk(int(length) - chunkHeaderSize)
	c.frame = c.buf[:headerSize+int(length)+checkSize]
	copy(c.frame, fr.hdr[:])
	if err := readRest(fr.r, c.frame[headerSize:]); err != nil {
		c.Release()
		return nil, fmt.Errorf("in a chunk frame: %w", err)
	}
	if err := c.parse(); err != nil {
		c.Release()
		return nil, err
	}
	return c, nil
}

// readRest fills b; the stream must not end here.
func readRest(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func verifyCheck(kind Kind, sum uint32, check []byte) error {
	if want := binary.BigEndian.Uint32(check); sum != want {
		return Errorf(CodeChecksum, "%s frame damaged on the way: its CRC32C is %08x and should be %08x", kind, sum, want)
	}
	return nil
}
