// Leaf: what all stores need alike.

package sink

import (
	"context"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// Leaf is the protocol.Sink of a reader: it puts every transfer into Store.
type Leaf struct {
	Store Store
}

// Begin implements protocol.Sink.
func (l *Leaf) Begin(ctx context.Context, offer *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	file, err := l.Store.Create(life, offer)
	if err != nil {
		cancel(err)
		return nil, nil, err
	}
	t := &transfer{
		offer: offer, up: up, file: file, cancel: cancel, begun: time.Now(),
		hasher: protocol.NewHasher(offer.Digest),
		wake:   make(chan struct{}, 1),
		idle:   make(chan struct{}),
	}
	go t.work()
	return t, &protocol.Accept{Leaves: []protocol.Leaf{{State: protocol.LeafReceiving}}}, nil
}

// transfer is one file being received. Chunks are queued by the Receiver's
// read loop and stored by a goroutine of the transfer's own, so that a slow
// disk does not keep pings and aborts from being read; the queue is bounded by
// the window that the Receiver holds the sender to.
type transfer struct {
	offer  *protocol.Offer
	up     protocol.Upstream
	file   File
	cancel context.CancelCauseFunc // ends the file's life
	begun  time.Time
	wake   chan struct{} // capacity 1: the queue or ended changed
	idle   chan struct{} // closed when the goroutine has ended

	// Owned by the goroutine until idle is closed, then by the caller.
	hasher  *protocol.Hasher
	offset  int64
	scratch []byte
	err     error

	mu    sync.Mutex
	queue []*protocol.Chunk
	ended bool // nothing more will be queued
}

// Write implements protocol.Transfer.
func (t *transfer) Write(c *protocol.Chunk) error {
	t.mu.Lock()
	t.queue = append(t.queue, c.Retain())
	t.mu.Unlock()
	t.signal()
	return nil
}

// end says that nothing more will be queued.
func (t *transfer) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.signal()
}

func (t *transfer) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// work stores chunk after chunk, until the last or the first error.
func (t *transfer) work() {
	defer close(t.idle)
	var batch []*protocol.Chunk
	for {
		t.mu.Lock()
		batch, t.queue = t.queue, batch[:0]
		ended := t.ended
		t.mu.Unlock()
		if len(batch) == 0 {
			if ended {
				return
			}
			<-t.wake
			continue
		}
		for i, c := range batch {
			if t.err == nil {
				if t.err = t.store(c); t.err != nil {
					t.up.Fail(t.err)
				}
			}
			c.Release()
			batch[i] = nil
		}
	}
}

// store takes one chunk, without what the file has of it already.
func (t *transfer) store(c *protocol.Chunk) error {
	content, scratch, err := c.Decode(t.scratch)
	t.scratch = scratch
	if err != nil {
		return err
	}
	content = content[t.offset-c.Offset:]
	_, _ = t.hasher.Write(content)
	if _, err := t.file.Write(content); err != nil {
		return err
	}
	t.offset += int64(len(content))
	t.up.Ack(t.offset)
	t.up.Progress(protocol.Leaf{State: protocol.LeafReceiving, Offset: t.offset})
	return nil
}

// Finish implements protocol.Transfer.
func (t *transfer) Finish(ctx context.Context, f *protocol.Finish) ([]protocol.Leaf, error) {
	t.end()
	select {
	case <-t.idle:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if t.err != nil {
		return nil, t.err
	}
	if got := t.hasher.Digest(); got != "" && got != f.Digest {
		return nil, protocol.Errorf(protocol.CodeDigest, "the content that arrived has digest %s, the source said %s", got, f.Digest)
	}
	if err := t.file.Stage(ctx); err != nil {
		return nil, err
	}
	return []protocol.Leaf{{State: protocol.LeafReady, Offset: t.offset}}, nil
}

// Commit implements protocol.Transfer.
func (t *transfer) Commit(ctx context.Context) []protocol.Receipt {
	r := protocol.Receipt{Status: protocol.LeafPublished, Bytes: t.offset, Digest: t.hasher.Digest()}
	p, err := t.file.Publish(ctx)
	switch {
	case err != nil:
		e := protocol.AsError(err)
		r.Status, r.Code, r.Text = protocol.LeafFailed, e.Code, e.Text
		t.file.Discard()
	case p.Unchanged:
		r.Status = protocol.LeafUnchanged
	}
	r.Location = p.Location
	r.Seconds = time.Since(t.begun).Seconds()
	t.cancel(nil)
	return []protocol.Receipt{r}
}

// Abort implements protocol.Transfer.
func (t *transfer) Abort(cause error) {
	t.cancel(cause) // first, so that a Write under way returns
	t.end()
	<-t.idle
	t.file.Discard()
}
