// Credit: what a Receiver lets its sender send, when the daemon's memory is
// bounded. The window of the Accept is then only the most it can become.

package protocol

import "math/bits"

const (
	// creditLeast is what an offer is let in with, unless it is for less: room
	// for four of the smallest chunks that a daemon asks for.
	creditLeast = minWindow
	// creditChunk is the largest chunk that a transfer may send under a
	// Budget: it is the least that the transfer can shrink to. It is what
	// clients send by default; larger ones are hardly faster.
	creditChunk = 256 << 10
)

// Room is what a transfer may hold at this moment. The zero value says that
// there is no bound but its window.
type Room struct {
	Capped bool
	Window int64 // of content that it has not acknowledged
	Tail   int64 // of content before that
}

// credit is the account of one transfer. Its portion of the Budget is the
// content that the sender may still send or that has not been acknowledged,
// its window, and a quarter of that beyond: a broadcaster's tail for readers
// that come back, or the buffer that a reader decodes into.
//
// What was granted cannot be taken back. A transfer that is to have less gets
// no new credit for what it acknowledges, until its window is small enough.
// Its verbs: open, ack, finish, close. It is guarded by its Receiver's mu.
type credit struct {
	portion *portion
	most    int64 // the window of the Accept
	chunk   int64 // largest chunk: the window is never less, so that the transfer goes on
	end     int64 // of the content, as far as known
	limit   int64 // the sender may send what ends at or before it
	tail    int64 // of the portion
	room    Room
	done    bool // nothing more will come
	closed  bool
}

// whole is the portion for a window, and share the window of a portion:
// share(whole(n)) >= n.
func whole(window int64) int64  { return window + window/4 }
func share(portion int64) int64 { return portion - portion/5 }

// firstPortion is what an offer of size bytes has to wait for.
func firstPortion(size int64) int64 {
	if size < 0 || size > creditLeast {
		size = creditLeast
	}
	return whole(size)
}

// open notes what was accepted and returns the largest chunk to ask for.
func (c *credit) open(offset, size, window int64) int {
	c.most, c.end, c.limit = window, maxOffset, offset
	if size >= 0 {
		c.end = size
	}
	least := min(creditLeast, c.left(offset), window)
	fair := share(c.portion.resize(whole(least), whole(window)))
	c.chunk = min(max(fair/4, creditLeast/4), creditChunk, window/4)
	if n := c.chunk; n >= minChunkClass { // whole buffers
		c.chunk = 1 << (bits.Len64(uint64(n)) - 1)
	}
	c.ack(offset)
	return int(c.chunk)
}

// left is how much can still come behind offset.
func (c *credit) left(offset int64) int64 { return max(0, c.end-offset) }

// ack notes that all before offset was taken, and grants what is fair.
func (c *credit) ack(offset int64) {
	if c.closed {
		return
	}
	if c.done {
		c.settle(offset)
		return
	}
	left := c.left(offset)
	least := max(c.limit-offset, min(c.chunk, left))
	most := max(least, min(c.most, left))
	n := c.portion.resize(whole(least), whole(most))
	window := min(share(n), most)
	// Whoever keeps a tail keeps whole chunks of it.
	c.tail = n - window
	c.room = Room{Capped: true, Window: window, Tail: max(0, c.tail-c.chunk+1)}
	c.limit = offset + window
}

// finish notes that the content ends at end: what was granted beyond is void.
func (c *credit) finish(acked, end int64) {
	c.done, c.end = true, end
	if !c.closed {
		c.settle(acked)
	}
}

// settle keeps what is not acknowledged, and the tail as it is.
func (c *credit) settle(offset int64) {
	c.room.Window = c.left(offset)
	n := c.room.Window + c.tail
	c.portion.resize(n, n)
}

// close gives all memory back: the transfer has none any more.
func (c *credit) close() {
	c.closed = true
	c.portion.leave()
	c.room = Room{Capped: true}
}
