// Link: the connection under smux. smux keeps the session: it numbers streams,
// opens, accepts and ends them, and keeps the connection alive. What streams
// carry goes past it, in the same frames on the wire:
//
//	version u8 = 2 | command u8 | length u16 | stream u32 | payload    little endian
//
// smux hands each of its 64 KiB frames from goroutine to goroutine five times
// and copies it once on the way in; that took more time than the kernel needs
// to move the bytes (docs/performance.md). Here a writer puts a whole sbcast
// frame on the wire in one writev, and what comes in is read to where it
// belongs and handed over by the goroutine that read it.
//
// Nor does smux's own flow control apply, which a peer may ignore: credit for
// content is the Receiver's to give, and it is checked chunk by chunk.

package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	linkVersion    = 2
	linkHeaderSize = 8

	// linkPayload is the most content in one smux frame that we send. It is
	// what fits, in whole words.
	linkPayload = math.MaxUint16 &^ 7
)

// smux's commands.
const (
	cmdSYN = 0 // a stream begins
	cmdFIN = 1 // a direction of a stream ends
	cmdPSH = 2 // content of a stream
	cmdNOP = 3 // keepalive
	cmdUPD = 4 // smux's flow control, which nobody needs here
)

// link implements what smux wants of a connection. Its Read is called by
// smux's one reading goroutine only.
type link struct {
	conn  net.Conn
	opens uint32 // parity of the ids of streams that the peer opens
	most  int    // streams that the peer may have open before it is cut off

	// Owned by the goroutine that reads.
	intake intake
	greet  func() error // before anything else is read; nil: nothing to do
	shown  time.Time    // when smux was last told that there is content

	wmu   sync.Mutex // held while writing
	until time.Time  // write deadline
	parts [][]byte
	out   output
	torn  error // frames were not written, or one only in part: there is nothing to write behind it

	batches batches
	asked   atomic.Bool // the session closes the link, and not smux by itself

	mu      sync.Mutex
	streams map[uint32]*inbound
	theirs  int // of streams: opened by the peer
	err     error
}

func newLink(conn net.Conn, client bool, maxStreams int) *link {
	l := &link{conn: conn, intake: newIntake(conn), out: newOutput(conn), most: 2*maxStreams + 16, streams: map[uint32]*inbound{}}
	if !client { // smux's clients open odd streams
		l.opens = 1
	}
	return l
}

// Close closes the connection, which ends Read, and all streams. When the
// session did not ask for it, smux has seen nothing of the peer for
// keepaliveTimeout.
func (l *link) Close() error {
	why := net.ErrClosed
	if !l.asked.Load() {
		why = Errorf(CodeDead, "nothing came from %s for %v", l.conn.RemoteAddr(), keepaliveTimeout)
	}
	_ = l.fail(why) // before reads and writes fail, which do not know why
	return l.conn.Close()
}

// gaveUp is the error when smux has given the connection up, else nil.
func (l *link) gaveUp() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if HasCode(l.err, CodeDead) {
		return l.err
	}
	return nil
}

// Read reads smux's own frames, and between them hands the content of streams
// to whoever waits for it.
func (l *link) Read(p []byte) (int, error) {
	var h [linkHeaderSize]byte
	if len(p) < len(h) {
		panic("protocol: smux reads something else than a header")
	}
	if greet := l.greet; greet != nil {
		l.greet = nil
		if err := greet(); err != nil {
			return 0, l.fail(err)
		}
	}
	for {
		if err := l.intake.header(&h); err != nil {
			return 0, l.fail(err)
		}
		length, id := int(binary.LittleEndian.Uint16(h[2:])), binary.LittleEndian.Uint32(h[4:])
		forward, err := l.take(h[0], h[1], length, id)
		if err != nil {
			return 0, l.fail(err)
		}
		if forward {
			return copy(p, h[:]), nil
		}
		// smux takes a connection for dead on which it sees nothing, and its
		// peer's keepalive may be waiting behind content on a slow one.
		if now := time.Now(); h[1] == cmdPSH && now.Sub(l.shown) >= keepaliveInterval {
			l.shown = now
			return copy(p, []byte{linkVersion, cmdNOP, 0, 0, 0, 0, 0, 0}), nil
		}
	}
}

// take deals with one frame of the peer's and reports whether smux is to see
// it. What no honest peer sends is an error, before anything is made of it.
func (l *link) take(version, cmd byte, length int, id uint32) (forward bool, err error) {
	damaged := func(format string, args ...any) (bool, error) {
		return false, Errorf(CodeChecksum, "connection to %s damaged: %s", l.conn.RemoteAddr(), fmt.Sprintf(format, args...))
	}
	switch {
	case version != linkVersion:
		return damaged("smux version %d, want %d", version, linkVersion)
	case cmd == cmdPSH:
		return false, l.content(id, length)
	case cmd == cmdUPD && length == 8:
		_, err := l.intake.drain(length)
		return false, err
	case length != 0:
		return damaged("smux command %d with %d bytes", cmd, length)
	case cmd == cmdNOP:
		return true, nil
	case cmd == cmdFIN:
		if in := l.stream(id); in != nil {
			in.end(io.EOF)
		}
		return true, nil
	case cmd == cmdSYN:
		l.mu.Lock()
		defer l.mu.Unlock()
		switch {
		case id == 0 || id%2 != l.opens:
			return damaged("stream %d is not the peer's to open", id)
		case l.streams[id] != nil:
			return damaged("stream %d is open already", id)
		case l.theirs >= l.most:
			return false, Errorf(CodeBusy, "%s opens more than %d streams", l.conn.RemoteAddr(), l.most)
		}
		l.theirs++
		l.streams[id] = newInbound()
		return true, nil
	default:
		return damaged("unknown smux command %d", cmd)
	}
}

// content hands the next n bytes to a stream. Those of a stream that is gone
// are dropped.
func (l *link) content(id uint32, n int) error {
	in := l.stream(id)
	if in == nil {
		_, err := l.intake.drain(n)
		return err
	}
	return in.receive(l, n)
}

func (l *link) stream(id uint32) *inbound {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.streams[id]
}

// fail ends all streams with the first error.
func (l *link) fail(err error) error {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	err = l.err
	all := make([]*inbound, 0, len(l.streams))
	for _, in := range l.streams {
		all = append(all, in)
	}
	l.mu.Unlock()
	for _, in := range all {
		in.end(err)
	}
	return err
}

// add notes a stream that this end opens, or finds one that the peer opened.
func (l *link) add(id uint32) *inbound {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.streams[id]
	if in == nil {
		in = newInbound()
		l.streams[id] = in
		if l.err != nil {
			in.end(l.err)
		}
	}
	return in
}

// remove forgets a stream: what still comes for it is dropped.
func (l *link) remove(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[id] != nil && id%2 == l.opens {
		l.theirs--
	}
	delete(l.streams, id)
}

// WriteBuffers writes a frame of smux's. A stream is known from its SYN on, as
// the peer may answer at once.
func (l *link) WriteBuffers(v [][]byte) (int, error) {
	if h := v[0]; h[1] == cmdSYN {
		l.add(binary.LittleEndian.Uint32(h[4:]))
	}
	if len(v) == 2 && len(v[1]) <= batchFrame && l.shared() {
		// Smux need not wait behind what others write: when its frame is lost,
		// nothing can be written behind it, and all streams learn that.
		return len(v[0]) + len(v[1]), l.batched(v[0], v[1], false, nil)
	}
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.flushBatchLocked()
	l.parts = append(l.parts[:0], v...)
	return l.flushLocked(false)
}

// Write is for what smux does not write by WriteBuffers, which is nothing.
func (l *link) Write(p []byte) (int, error) { return l.WriteBuffers([][]byte{p}) }

// send writes p as content of stream id, unless it is closed. Lasting says that
// p is all of a chunk from shared memory, and stays as it is until the peer has
// acknowledged it.
func (l *link) send(id uint32, p []byte, lasting bool, closed *atomic.Bool) error {
	if len(p) <= batchFrame && l.shared() {
		var h [linkHeaderSize]byte
		psh(h[:], id, len(p))
		return l.batched(h[:], p, true, closed)
	}
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.flushBatchLocked()
	if closed.Load() {
		return io.ErrClosedPipe
	}
	frames := (len(p) + linkPayload - 1) / linkPayload
	headers, lasting := l.out.headers(frames*linkHeaderSize, lasting)
	l.parts = l.parts[:0]
	for i := range frames {
		part := p[i*linkPayload : min((i+1)*linkPayload, len(p))]
		h := headers[i*linkHeaderSize : (i+1)*linkHeaderSize]
		psh(h, id, len(part))
		l.parts = append(l.parts, h, part)
	}
	_, err := l.flushLocked(lasting)
	return err
}

// psh makes h the header of n bytes of content of stream id.
func psh(h []byte, id uint32, n int) {
	h[0], h[1] = linkVersion, cmdPSH
	binary.LittleEndian.PutUint16(h[2:], uint16(n))
	binary.LittleEndian.PutUint32(h[4:], id)
}

// flushLocked writes the parts. The peer may take its time, but not take
// nothing for WriteTimeout.
func (l *link) flushLocked(lasting bool) (total int, err error) {
	defer clear(l.parts)
	if l.torn != nil {
		return 0, l.torn
	}
	l.out.load(l.parts, lasting)
	for l.out.left() > 0 {
		if now := time.Now(); l.until.Sub(now) < WriteTimeout-time.Second {
			l.until = now.Add(WriteTimeout)
			l.conn.SetWriteDeadline(l.until)
		}
		n, err := l.out.flush()
		total += n
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			l.out.abandon()
			if total > 0 {
				l.torn = err
			}
			return total, err
		}
	}
	return total, nil
}
