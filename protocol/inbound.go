// Inbound: what comes in on one stream of a link.

package protocol

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// maxUnread is what a stream may hold that nobody reads. What comes then waits
// in the connection, and all its other streams with it; but before an Offer
// is answered, and while it has no handler, an honest peer sends no more than
// a small file.
const maxUnread = 2 * (MaxControl + headerSize + checkSize)

// inbound is one direction of a stream. Its bytes wait to be read, a few of
// them, until each takes over: from then on frames are put together as they
// come, and handed over by the goroutine that reads the connection.
type inbound struct {
	mu      sync.Mutex
	changed *sync.Cond
	unread  []byte
	err     error             // nothing more comes
	handle  func(Frame) error // set once
	busy    bool              // handle runs

	// Owned by the goroutine that reads the connection, once handle is set.
	parser parser
	told   time.Time // when a handler was last called
}

// partEvery is how often a handler is told that a part of a frame came: on a
// slow link a Chunk can take longer than a peer may be silent.
const partEvery = time.Second

func newInbound() *inbound {
	in := &inbound{told: time.Now()}
	in.changed = sync.NewCond(&in.mu)
	return in
}

// receive takes the next n bytes from l. An error is the connection's.
func (in *inbound) receive(l *link, n int) error {
	if in.ready() {
		return in.pass(l, &l.intake, n)
	}
	b, err := l.intake.drain(n)
	if err != nil {
		return err
	}
	in.mu.Lock()
	for in.handle == nil && in.err == nil && len(in.unread)+n > maxUnread {
		in.changed.Wait()
	}
	if in.handle == nil && in.err == nil {
		in.unread = append(in.unread, b...)
		in.changed.Broadcast()
		in.mu.Unlock()
		return nil
	}
	in.mu.Unlock()
	return in.pass(l, (*memory)(&b), n) // each has just taken over
}

// ready reports whether what comes is handed over, or dropped.
func (in *inbound) ready() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.handle != nil || in.err != nil
}

// pass hands over the frames that end in the next n bytes of src.
func (in *inbound) pass(l *link, src source, n int) error {
	for n > 0 {
		if in.over() {
			return skip(l, src, n)
		}
		used, f, err := in.parser.next(src, n)
		if in.parser.torn {
			return err
		}
		n -= used
		if now := time.Now(); err == nil && (f.Kind != 0 || now.Sub(in.told) >= partEvery) {
			in.told = now
			err = in.call(f)
		}
		if err != nil {
			in.end(err)
		}
	}
	return nil
}

// skip drops n bytes of src.
func skip(l *link, src source, n int) error {
	if src == source(&l.intake) {
		_, err := l.intake.drain(n)
		return err
	}
	return nil
}

func (in *inbound) over() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err != nil
}

// call hands f over, unless the stream has ended here: when each has returned
// no handler runs.
func (in *inbound) call(f Frame) error {
	in.mu.Lock()
	if in.err != nil {
		in.mu.Unlock()
		if f.Chunk != nil {
			f.Chunk.Release()
		}
		return nil
	}
	in.busy = true
	in.mu.Unlock()
	err := in.handle(f)
	in.mu.Lock()
	in.busy = false
	if in.err != nil {
		in.changed.Broadcast()
	}
	in.mu.Unlock()
	return err
}

// each hands every frame to f, until the stream ends or f returns an error,
// and returns that. It can be called once. F runs on the goroutine that reads
// the connection: it must not wait for anything that comes on it, nor for long.
// Largest is as in FrameReader.LimitChunks.
func (in *inbound) each(largest *atomic.Int64, f func(Frame) error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.parser.largest = largest
	// What has come already is handled here, before the reader is let loose.
	for len(in.unread) > 0 {
		_, frame, err := in.parser.next((*memory)(&in.unread), len(in.unread))
		if err == nil && frame.Kind != 0 {
			in.mu.Unlock()
			err = f(frame)
			in.mu.Lock()
		}
		if err != nil {
			in.endLocked(err)
			return err // not in.err: the stream may have ended behind the frame
		}
	}
	in.unread, in.handle = nil, f
	in.changed.Broadcast()
	for in.err == nil || in.busy {
		in.changed.Wait()
	}
	if errors.Is(in.err, io.EOF) && in.parser.inside() {
		return io.ErrUnexpectedEOF
	}
	return in.err
}

// read returns bytes that nobody has taken.
func (in *inbound) read(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.unread) == 0 && in.err == nil {
		in.changed.Wait()
	}
	if len(in.unread) == 0 {
		return 0, in.err
	}
	n := copy(p, in.unread)
	in.unread = in.unread[:copy(in.unread, in.unread[n:])]
	in.changed.Broadcast()
	return n, nil
}

// end ends the stream here: what comes from now on is dropped.
func (in *inbound) end(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.endLocked(err)
}

func (in *inbound) endLocked(err error) {
	if in.err == nil {
		in.err = err
		in.changed.Broadcast()
	}
}
