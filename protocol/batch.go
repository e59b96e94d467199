// Batches: small frames of many streams that go out with one system call.
//
// With many small files under way nearly all frames are small, and a system
// call for each, with what it wakes at the other end, was a third of the CPU
// time of a broadcaster. Whoever has a frame to write lets those run who may
// have one too, and writes what has come together. A stream that is alone on
// its connection waits for nobody.

package protocol

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// batchFrame is the most payload that is batched, in bytes: a small file
	// whose content goes with its offer.
	batchFrame = 20 << 10
	// batchMost is from how many bytes on a batch takes no more content.
	batchMost = 128 << 10
	// batchKept is the most that a connection keeps for its next batch.
	batchKept = 32 << 10
)

// batch is what is written together.
type batch struct {
	frames  []byte
	written chan struct{} // closed when that is over; err says how
	err     error
}

// batches are those of one link: one at most takes frames.
type batches struct {
	mu   sync.Mutex
	open *batch // nil: none
	free []byte // for the frames of the next one
}

// errBatchFull says that the batch has to be written first.
var errBatchFull = errors.New("the batch is full")

// add adds a frame to the batch that takes frames, unless the stream is closed,
// and reports whether that is the first in it.
func (q *batches) add(h, p []byte, closed *atomic.Bool) (b *batch, first bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b = q.open
	switch {
	case closed != nil && closed.Load():
		return nil, false, io.ErrClosedPipe
	case b == nil:
		b, first = &batch{frames: q.free[:0], written: make(chan struct{})}, true
		q.open, q.free = b, nil
	case len(p) > 0 && len(b.frames) >= batchMost:
		return nil, false, errBatchFull
	}
	b.frames = append(append(b.frames, h...), p...)
	return b, first, nil
}

// take returns the batch that takes frames, which does so no longer, or nil.
func (q *batches) take() *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.open
	q.open = nil
	return b
}

// end tells everybody that b was written, or why not.
func (q *batches) end(b *batch, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cap(b.frames) <= batchKept {
		q.free = b.frames
	}
	b.frames = nil
	b.err = err
	close(b.written)
}

// batched writes a frame with those of others: before all frames that anybody
// writes after it has returned. It returns when that is done, if wait is set.
func (l *link) batched(h, p []byte, wait bool, closed *atomic.Bool) error {
	b, first, err := l.batches.add(h, p, closed)
	for errors.Is(err, errBatchFull) {
		l.flushBatch()
		b, first, err = l.batches.add(h, p, closed)
	}
	switch {
	case err != nil:
		return err
	case first:
		runtime.Gosched()
		l.flushBatch()
	case !wait:
		return nil
	}
	<-b.written // by now, or soon: who began it writes it
	return b.err
}

func (l *link) flushBatch() {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.flushBatchLocked()
}

// flushBatchLocked writes the batch that takes frames. When it fails, frames
// are missing that nobody may have waited for: nothing can be written behind it.
func (l *link) flushBatchLocked() {
	b := l.batches.take()
	if b == nil {
		return
	}
	l.parts = append(l.parts[:0], b.frames)
	_, err := l.flushLocked(false)
	if err != nil && l.torn == nil {
		l.torn = err
	}
	l.batches.end(b, err)
}

// shared reports whether more than one stream is open: there may be more to
// write at any moment.
func (l *link) shared() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.streams) > 1
}
