// The sender's window: credit, and the chunks that are not acknowledged yet.

package protocol

import (
	"context"
	"sync"
	"time"
)

// MaxInflight is how many chunks may be unacknowledged in a window: as many as
// fit when each is counted as its smallest buffer, so that a peer that sends
// 1-byte chunks cannot make a window cost more memory than it says.
func MaxInflight(window int64) int { return int(window / minChunkClass) }

// window holds what a sender has sent and must keep until it is acknowledged.
// Its verbs: reserve credit for a chunk, note that it was wrote, ack, close.
type window struct {
	size int64 // fixed after start

	mu      sync.Mutex
	chunks  []*Chunk // reserved and not acknowledged, in order; one reference each
	acked   int64
	wrote   int64 // end of the last chunk whose write has returned
	moved   time.Time
	probe   int64         // end of the chunk whose ack is timed; 0: none is
	probed  time.Time     // when it was sent
	fastest time.Duration // from a chunk to its ack; 0: not known
	err     error
	changed chan struct{} // capacity 1: credit came, or err
}

func newWindow(size, offset int64) *window {
	return &window{size: size, acked: offset, wrote: offset, moved: time.Now(), changed: make(chan struct{}, 1)}
}

// reserve waits until c fits and keeps its reference from then on. One
// goroutine at a time may reserve.
func (w *window) reserve(ctx context.Context, c *Chunk) error {
	for {
		w.mu.Lock()
		err := w.err
		fits := c.End()-w.acked <= w.size && len(w.chunks) < MaxInflight(w.size)
		if err == nil && fits {
			if len(w.chunks) == 0 {
				w.moved = time.Now()
			}
			if w.probe == 0 {
				w.probe, w.probed = c.End(), time.Now()
			}
			w.chunks = append(w.chunks, c)
		}
		w.mu.Unlock()
		if err != nil || fits {
			return err
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sent notes a chunk whose reference it takes, and which was written before
// there was a window: it is small enough for any.
func (w *window) sent(c *Chunk) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chunks, w.wrote = append(w.chunks, c), c.End()
}

// written notes that the write of the chunk that ends at end has returned, and
// so that its buffer is free once it is acknowledged.
func (w *window) written(end int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrote = end
	w.releaseLocked()
}

// ack notes that the receiver has taken all content before offset. Acks that
// go back or repeat are harmless; one for content that was never sent is not.
func (w *window) ack(offset int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := w.acked
	if n := len(w.chunks); n > 0 {
		sent = max(sent, w.chunks[n-1].End())
	}
	if offset > sent {
		return Errorf(CodeProtocol, "ack of offset %d when only %d bytes were sent", offset, sent)
	}
	if offset > w.acked {
		w.acked, w.moved = offset, time.Now()
		w.timedLocked()
		w.releaseLocked()
		w.signal()
	}
	return nil
}

// timedLocked takes the time of the chunk that is timed, when it is acknowledged.
func (w *window) timedLocked() {
	if w.probe == 0 || w.acked < w.probe {
		return
	}
	if took := w.moved.Sub(w.probed); w.fastest == 0 || took < w.fastest {
		w.fastest = took
	}
	w.probe = 0
}

// owed is how much content is not acknowledged.
func (w *window) owed() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.chunks); n > 0 {
		return max(0, w.chunks[n-1].End()-w.acked)
	}
	return 0
}

// round is the shortest time that it took a chunk to be acknowledged, or 0.
func (w *window) round() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fastest
}

// releaseLocked lets go of the chunks that are both acknowledged and out of
// the writer's hands: an ack can overtake the return of the write.
func (w *window) releaseLocked() {
	i := 0
	for i < len(w.chunks) && w.chunks[i].End() <= min(w.acked, w.wrote) {
		w.chunks[i].Release()
		i++
	}
	rest := copy(w.chunks, w.chunks[i:])
	clear(w.chunks[rest:])
	w.chunks = w.chunks[:rest]
	if i > 0 {
		w.signal()
	}
}

// stalled is how long content has been waiting for an ack, and since which offset.
func (w *window) stalled() (time.Duration, int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.chunks) == 0 {
		return 0, w.acked
	}
	return time.Since(w.moved), w.acked
}

// close ends every reserve with err. The chunks are dropped and not released:
// after a failed write the kernel may still read them.
func (w *window) close(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.chunks = nil
		w.signal()
	}
}

func (w *window) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}
