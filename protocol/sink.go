// What a Receiver asks of the sink behind it.

package protocol

import "context"

// Sink is where a daemon puts what it receives: a store, or other daemons.
type Sink interface {
	// Begin decides on an offer. It may take its time, telling why by up, and
	// must return soon after ctx has ended. In the Accept a zero Window or
	// MaxChunk means the largest that the session allows.
	Begin(ctx context.Context, offer *Offer, up Upstream) (Transfer, *Accept, error)
}

// Transfer is one offer that a Sink has accepted. Its methods are called one
// after the other, Abort perhaps while another runs, and end with Commit or
// Abort.
type Transfer interface {
	// Write hands over the next chunk, in order. It lends c: a Transfer that
	// keeps it calls Retain. It must not wait for storage or peers, as the
	// window bounds what it has to queue.
	Write(c *Chunk) error
	// Finish waits until all content is staged: whole, checked, durable, and
	// not visible. It returns how each leaf stands.
	Finish(ctx context.Context, f *Finish) ([]Leaf, error)
	// Commit publishes and returns a receipt for each leaf of the Accept.
	Commit(ctx context.Context) []Receipt
	// Abort gives the transfer up. When cause is ErrForget nothing is to be
	// left of it; else what helps to resume may be kept.
	Abort(cause error)
}

// Describer is a Transfer that says more of itself in a Status. It may be
// called by any goroutine, also when the transfer has ended.
type Describer interface {
	Describe(st *TransferStatus)
}

// Upstream is how a Transfer talks back to its sender. Its methods never
// block and may be called from any goroutine, also before Begin returns.
type Upstream interface {
	// Window is the most that a transfer may grant: that of the session.
	Window() int64
	// Room is how much content a transfer may hold at this moment. It changes
	// with Ack.
	Room() Room
	// Ack says that all content before offset has been taken.
	Ack(offset int64)
	// Progress says how leaves do.
	Progress(leaves ...Leaf)
	// Fail ends the transfer.
	Fail(err error)
}
