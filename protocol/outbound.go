// The way out of a stream: one goroutine writes, everybody else hands it
// frames and never blocks. Sender and Receiver both have one.

package protocol

import (
	"io"
	"math"
	"runtime"
	"sync"
	"time"
)

// progressEvery is the shortest time between two Progress frames.
const progressEvery = 100 * time.Millisecond

// item is a frame to write: a chunk, or any other.
type item struct {
	chunk *Chunk
	frame []byte
}

// outbound writes frames to a stream in this order of preference: a last word,
// pong and ping, the latest limit and ack, the queue, progress.
type outbound struct {
	w       io.Writer
	closeW  func() error // after finish: ends the write side
	onChunk func(c *Chunk)
	onError func(error)
	clock   *Clock       // nil: nobody asks
	idle    func() Stage // what it is when there is nothing to write

	wake chan struct{} // capacity 1
	done chan struct{} // closed when the goroutine has ended

	ackBuf []byte // owned by the goroutine

	mu       sync.Mutex
	ping     bool
	pong     bool
	urgent   []byte // one last word, before all others
	queue    []item
	head     int   // of queue: what comes before it is written
	handed   int64 // end of the last chunk that was taken to be written
	passed   Traffic
	ack      int64 // latest, -1 when it has been written
	limit    int64 // the same, of what the peer may send
	most     int64 // no chunk that ends behind it goes out, nor what is queued behind that
	opened   bool  // a frame of the queue was written, the Accept: acks may go before others
	progress map[string]Leaf
	order    []string // of progress, by first change
	nextAt   time.Time
	finished bool // end after the queue
	stopped  bool // end now
}

// writeChunk writes c to w, and keeps it meanwhile: the window drops it when
// the transfer fails.
func writeChunk(w io.Writer, c *Chunk) (err error) {
	if m, ok := w.(*muxStream); ok {
		_, err = m.write(c.Frame(), c.mem != nil && len(c.Frame()) >= leastShared)
	} else {
		_, err = w.Write(c.Frame())
	}
	runtime.KeepAlive(c)
	return err
}

// newOutbound returns one that writes to w once its owner has started run.
func newOutbound(w io.Writer, closeW func() error, onChunk func(*Chunk), onError func(error)) *outbound {
	o := &outbound{
		w: w, closeW: closeW, onChunk: onChunk, onError: onError,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		ack: -1, limit: -1, most: math.MaxInt64, progress: map[string]Leaf{},
	}
	return o
}

// sendPing and sendPong queue at most one of each, however often the peer asks.
func (o *outbound) sendPing() { o.with(func() { o.ping = true }) }
func (o *outbound) sendPong() { o.with(func() { o.pong = true }) }

// lastWord forgets the queue and puts frame before all others.
func (o *outbound) lastWord(frame []byte) {
	o.with(func() {
		o.queue, o.head, o.urgent, o.ack, o.limit = nil, 0, frame, -1, -1
		clear(o.progress)
		o.order = nil
	})
}

// push queues a frame.
func (o *outbound) push(frame []byte) { o.enqueue(item{frame: frame}) }

// pushChunk queues a chunk, which must stay valid until onChunk(c).
func (o *outbound) pushChunk(c *Chunk) { o.enqueue(item{chunk: c}) }

func (o *outbound) enqueue(it item) {
	o.with(func() {
		if o.head > 0 && len(o.queue) == cap(o.queue) { // make room instead of growing
			n := copy(o.queue, o.queue[o.head:])
			clear(o.queue[n:])
			o.queue, o.head = o.queue[:n], 0
		}
		o.queue = append(o.queue, it)
	})
}

// pushState queues a frame that says how all leaves stand: progress that is
// not written yet is older news.
func (o *outbound) pushState(frame []byte) {
	o.with(func() {
		clear(o.progress)
		o.order = nil
		o.queue = append(o.queue, item{frame: frame})
	})
}

// sent is the end of the content that was given to the stream.
func (o *outbound) sent() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.handed
}

// setAck replaces the ack that is not written yet.
func (o *outbound) setAck(offset int64) { o.with(func() { o.ack = offset }) }

// setLimit replaces the limit that is not written yet. It goes out before the
// ack, which alone would grant more.
func (o *outbound) setLimit(offset int64) { o.with(func() { o.limit = offset }) }

// setMost lets chunks out that end at or before offset. What was let out once
// stays so.
func (o *outbound) setMost(offset int64) {
	o.with(func() {
		if o.most == math.MaxInt64 || offset > o.most {
			o.most = offset
		}
	})
}

// setProgress replaces what is not written yet of the same leaves.
func (o *outbound) setProgress(leaves []Leaf) {
	o.with(func() {
		for _, l := range leaves {
			if _, ok := o.progress[l.Name]; !ok {
				o.order = append(o.order, l.Name)
			}
			o.progress[l.Name] = l
		}
	})
}

// finish lets the goroutine write what it has, close the write side and end.
func (o *outbound) finish() { o.with(func() { o.finished = true }) }

// stop lets the goroutine end after the write under way.
func (o *outbound) stop() { o.with(func() { o.stopped = true }) }

func (o *outbound) with(f func()) {
	o.mu.Lock()
	f()
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbound) run() {
	defer close(o.done)
	for {
		next, wait, end := o.next()
		switch {
		case end:
			o.mu.Lock()
			clean := !o.stopped
			o.mu.Unlock()
			if clean {
				_ = o.closeW() // the peer's answer, or its absence, is what counts
			}
			return
		case next.chunk != nil:
			o.enter(StageLink)
			if err := writeChunk(o.w, next.chunk); err != nil {
				o.onError(err)
				return
			}
			o.onChunk(next.chunk)
		case next.frame != nil:
			if _, err := o.w.Write(next.frame); err != nil {
				o.onError(err)
				return
			}
		case wait > 0:
			o.rest()
			t := time.NewTimer(wait)
			select {
			case <-o.wake:
			case <-t.C:
			}
			t.Stop()
		default:
			o.rest()
			<-o.wake
		}
	}
}

// enter notes that a chunk is being written, rest that nothing is.
func (o *outbound) enter(s Stage) {
	if o.clock != nil {
		o.clock.Enter(s)
	}
}

func (o *outbound) rest() {
	if o.clock != nil {
		o.clock.Enter(o.idle())
	}
}

// next picks what to write. With nothing to write it says how long to wait at
// most (0: until woken), or that it is over.
func (o *outbound) next() (it item, wait time.Duration, end bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.stopped:
		return item{}, 0, true
	case o.urgent != nil:
		it.frame, o.urgent = o.urgent, nil
		return it, 0, false
	case o.pong:
		o.pong = false
		return item{frame: pongFrame}, 0, false
	case o.ping:
		o.ping = false
		return item{frame: pingFrame}, 0, false
	case o.limit >= 0 || o.ackableLocked():
		o.ackBuf = o.ackBuf[:0]
		if o.limit >= 0 {
			o.ackBuf = AppendLimit(o.ackBuf, o.limit)
		}
		if o.ackableLocked() {
			o.ackBuf, o.ack = AppendAck(o.ackBuf, o.ack), -1
		}
		it.frame, o.limit = o.ackBuf, -1
		return it, 0, false
	case o.head < len(o.queue) && !o.heldLocked():
		it, o.opened = o.queue[o.head], true
		if it.chunk != nil {
			o.handed = it.chunk.End()
			o.passed = o.passed.Add(Traffic{int64(it.chunk.RawLen), int64(len(it.chunk.Frame()))})
		}
		o.queue[o.head] = item{}
		if o.head++; o.head == len(o.queue) {
			o.queue, o.head = o.queue[:0], 0
		}
		return it, 0, false
	case o.finished && o.head == len(o.queue):
		return item{}, 0, true
	case len(o.order) > 0:
		if wait = time.Until(o.nextAt); wait > 0 {
			return item{}, wait, false
		}
		if it.frame = o.progressLocked(); it.frame != nil {
			return it, 0, false
		}
		return item{}, progressEvery, false
	}
	return item{}, 0, false
}

// heldLocked reports whether what is next waits for a higher limit.
func (o *outbound) heldLocked() bool {
	c := o.queue[o.head].chunk
	return c != nil && c.End() > o.most
}

// isHeld reports whether there is content that may not go yet.
func (o *outbound) isHeld() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.head < len(o.queue) && o.heldLocked()
}

// traffic is the content that was given to the stream.
func (o *outbound) traffic() Traffic {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.passed
}

// ackableLocked reports whether there is an ack that may go: behind the Accept.
func (o *outbound) ackableLocked() bool {
	return o.ack >= 0 && (o.opened || o.head == len(o.queue))
}

// progressLeaves is how many leaves one Progress frame carries at most, so
// that it fits into MaxControl with the longest texts that daemons write.
const progressLeaves = 64

// progressLocked makes a frame of what changed, or nil.
func (o *outbound) progressLocked() []byte {
	n := min(len(o.order), progressLeaves)
	m := &Progress{}
	for _, name := range o.order[:n] {
		m.Leaves = append(m.Leaves, o.progress[name])
		delete(o.progress, name)
	}
	if o.order = o.order[n:]; len(o.order) == 0 {
		o.order = nil
		o.nextAt = time.Now().Add(progressEvery)
	}
	frame, err := AppendMessage(nil, m)
	if err != nil { // a name too long to tell: progress may be missed
		return nil
	}
	return frame
}
