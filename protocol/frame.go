// Frames: the unit on the wire, and the one reader of them.

package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sync/atomic"
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
	KindLimit    Kind = 18
)

var kindNames = [...]string{
	KindHello: "hello", KindOffer: "offer", KindAccept: "accept", KindReject: "reject",
	KindChunk: "chunk", KindAck: "ack", KindProgress: "progress", KindFinish: "finish",
	KindReady: "ready", KindCommit: "commit", KindAbort: "abort", KindReceipt: "receipt",
	KindQuery: "query", KindStatus: "status", KindPing: "ping", KindPong: "pong", KindLeaves: "leaves",
	KindLimit: "limit",
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

	ackSize = 8 // of an Ack, and of a Limit
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
func AppendAck(b []byte, offset int64) []byte { return appendOffset(b, KindAck, offset) }

// ParseAck reads the payload of an Ack frame.
func ParseAck(payload []byte) (offset int64, err error) { return parseOffset(KindAck, payload) }

// AppendLimit appends a Limit frame: no chunk may end behind offset, until a
// later one says more.
func AppendLimit(b []byte, offset int64) []byte { return appendOffset(b, KindLimit, offset) }

// ParseLimit reads the payload of a Limit frame.
func ParseLimit(payload []byte) (offset int64, err error) { return parseOffset(KindLimit, payload) }

func appendOffset(b []byte, kind Kind, offset int64) []byte {
	var payload [ackSize]byte
	binary.BigEndian.PutUint64(payload[:], uint64(offset))
	return AppendFrame(b, kind, 0, payload[:])
}

func parseOffset(kind Kind, payload []byte) (offset int64, err error) {
	if len(payload) != ackSize {
		return 0, Errorf(CodeProtocol, "%s of %d bytes, want %d", kind, len(payload), ackSize)
	}
	n := binary.BigEndian.Uint64(payload)
	if n > maxOffset {
		return 0, Errorf(CodeProtocol, "%s of offset %d, past the largest possible %d", kind, n, uint64(maxOffset))
	}
	return int64(n), nil
}

func putHeader(b []byte, length int, kind Kind, flags uint8) {
	binary.BigEndian.PutUint32(b, uint32(length))
	b[4], b[5], b[6], b[7] = byte(kind), flags, 0, 0
}

// FrameReader reads frames from one stream. It is not safe for concurrent use,
// but for LimitChunks.
type FrameReader struct {
	src     reader
	parser  parser
	largest atomic.Int64
}

// NewFrameReader returns a reader of the frames in r, with Chunks of up to
// MaxChunk.
func NewFrameReader(r io.Reader) *FrameReader {
	fr := &FrameReader{src: reader{r}}
	fr.parser.largest = &fr.largest
	fr.LimitChunks(MaxChunk)
	return fr
}

// LimitChunks makes a Chunk of more than n bytes of data an error, before
// anything is allocated for it: a peer costs the memory that was granted to it
// and no more. With 0 there are to be none.
func (fr *FrameReader) LimitChunks(n int) { fr.largest.Store(int64(n)) }

// Next reads the next frame of a known kind. It returns io.EOF when the
// stream ended between two frames and io.ErrUnexpectedEOF inside one.
// Frames of unknown kinds with FlagSkip are read and passed over. The length
// is checked against the limit of the kind before anything is allocated.
func (fr *FrameReader) Next() (Frame, error) {
	for {
		_, f, err := fr.parser.next(&fr.src, math.MaxInt)
		if errors.Is(err, io.EOF) && fr.parser.inside() {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && fr.parser.have >= headerSize && fr.parser.torn {
			err = fmt.Errorf("in a %s frame: %w", Kind(fr.parser.hdr[4]), err)
		}
		if err != nil || f.Kind != 0 {
			return f, err
		}
	}
}

// Each hands all further frames to f, and now and then one of Kind 0, which
// says that a part of one came, until the stream ends or f returns an
// error, and returns that. On a stream of a Session f runs on the goroutine
// that reads the connection: it must not wait for what comes on it, nor long.
func (fr *FrameReader) Each(f func(Frame) error) error {
	if s, ok := fr.src.r.(interface {
		each(largest *atomic.Int64, f func(Frame) error) error
	}); ok {
		return s.each(&fr.largest, f)
	}
	for {
		frame, err := fr.Next()
		if err == nil {
			err = f(frame)
		}
		if err != nil {
			return err
		}
	}
}

// reader is a source that waits for its bytes.
type reader struct{ r io.Reader }

func (r *reader) fill(b []byte, n int, _ *Chunk) error {
	_, err := io.ReadFull(r.r, b[:n])
	return err
}
