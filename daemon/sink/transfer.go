// One attempt to receive a file into a store.

package sink

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// drainTimeout is how long a transfer that was cut off may go on storing what
// had come.
const drainTimeout = 5 * time.Second

// tellEvery is how often a transfer says how far it is: no more is passed on.
const tellEvery = 100 * time.Millisecond

// transfer is one attempt to receive a file. Chunks are queued by the
// Receiver's read loop and stored by a goroutine of the transfer's own, so
// that a slow disk does not keep pings and aborts from being read; the queue
// is bounded by the window that the Receiver holds the sender to.
type transfer struct {
	leaf    *Leaf
	resumed int64
	clock   protocol.Clock
	stored  atomic.Int64  // offset
	wake    chan struct{} // capacity 1: the queue or ended changed
	idle    chan struct{} // closed when the goroutine has ended

	// Owned by the goroutine until idle is closed, then by the caller.
	*content
	scratch []byte
	err     error
	digest  protocol.Digest // of all content, once it is checked

	toldAt     time.Time // how far it is
	toldOffset int64

	mu    sync.Mutex
	queue []*protocol.Chunk
	ended bool // nothing more will be queued
	busy  bool // content is being stored
	slow  *time.Timer
}

func (t *transfer) state() protocol.Leaf {
	l := protocol.Leaf{State: protocol.LeafReceiving, Offset: t.offset, Text: t.have.Note, Busy: t.busyFor()}
	if t.have.Published {
		l.State = protocol.LeafUnchanged
	}
	return l
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
	late := time.NewTimer(tellEvery) // to tell how far it is, when nothing more comes
	defer late.Stop()
	var batch []*protocol.Chunk
	for {
		t.mu.Lock()
		batch, t.queue = t.queue, batch[:0]
		ended := t.ended
		t.storingLocked(len(batch) > 0)
		t.mu.Unlock()
		if len(batch) == 0 {
			if ended {
				return
			}
			if t.toldOffset != t.offset {
				late.Reset(time.Until(t.toldAt.Add(tellEvery)))
			} else {
				late.Stop()
			}
			select {
			case <-t.wake:
			case <-late.C:
				t.tell(time.Now())
			}
			continue
		}
		for i, c := range batch {
			if t.err == nil {
				if t.err = t.storeChunk(c); t.err != nil {
					t.up.Fail(t.err)
				}
			}
			c.Release()
			batch[i] = nil
		}
	}
}

// storeChunk takes one chunk, without what the file has of it already.
func (t *transfer) storeChunk(c *protocol.Chunk) error {
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
	t.stored.Store(t.offset)
	t.up.Ack(t.offset)
	if now := time.Now(); now.Sub(t.toldAt) >= tellEvery {
		t.tell(now)
	}
	return nil
}

// tell says how far the transfer is.
func (t *transfer) tell(now time.Time) {
	t.toldAt, t.toldOffset = now, t.offset
	t.up.Progress(protocol.Leaf{State: protocol.LeafReceiving, Offset: t.offset, Busy: t.busyFor()})
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
	t.clock.Enter(protocol.StageSync)
	defer t.clock.Enter(protocol.StageNone)
	if t.digest, t.err = t.check(f); t.err != nil {
		return nil, t.err
	}
	if t.err = t.file.Stage(ctx, t.digest); t.err != nil {
		return nil, t.err
	}
	l := t.state()
	if l.State != protocol.LeafUnchanged {
		l.State = protocol.LeafReady
	}
	return []protocol.Leaf{l}, nil
}

// check compares what arrived with what the source says, and returns its digest.
func (t *transfer) check(f *protocol.Finish) (protocol.Digest, error) {
	digest := t.hasher.Digest()
	switch {
	case t.have.Published && f.Digest == "": // nobody has read it
		return t.have.Digest, nil
	case t.have.Published:
		digest = t.have.Digest
	case !t.have.ByCRC || t.have.Offset == 0:
	case f.CRC == nil:
		return "", protocol.Errorf(protocol.CodeTruncated, "the first %d bytes were stored before a restart, and the source did not say by what to check them: it has to try again", t.have.Offset)
	case *f.CRC != *t.hasher.CRC():
		return "", protocol.Errorf(protocol.CodeDigest, "the content that arrived has CRC32C %08x, the source said %08x", *t.hasher.CRC(), *f.CRC)
	default:
		return f.Digest, nil
	}
	if digest != "" && digest != f.Digest {
		return "", protocol.Errorf(protocol.CodeDigest, "the content that arrived has digest %s, the source said %s", digest, f.Digest)
	}
	return digest, nil
}

// Commit implements protocol.Transfer.
func (t *transfer) Commit(ctx context.Context) []protocol.Receipt {
	r := protocol.Receipt{Status: protocol.LeafPublished, Bytes: t.offset, Digest: t.digest, ResumedFrom: t.resumed}
	if t.have.Published {
		r.ResumedFrom = 0
	}
	t.clock.Enter(protocol.StagePublish)
	p, err := t.file.Publish(ctx)
	t.clock.Enter(protocol.StageNone)
	switch {
	case err != nil:
		e := protocol.AsError(err)
		r.Status, r.Code, r.Text = protocol.LeafFailed, e.Code, e.Text
		t.file.Discard(true)
	case p.Unchanged:
		r.Status = protocol.LeafUnchanged
	}
	r.Location = p.Location
	r.Seconds = time.Since(t.begun).Seconds()
	t.cancel(nil)
	_ = Failpoint("receipt")
	return []protocol.Receipt{r}
}

// worthless reports whether a transfer ended for a reason that its content
// is not to be trusted for.
func worthless(cause error) bool {
	switch protocol.AsError(cause).Code {
	case protocol.CodeProtocol, protocol.CodeSize, protocol.CodeWindow, protocol.CodeDigest:
		return true
	default:
		return false
	}
}

// Abort implements protocol.Transfer. What can go on is suspended.
func (t *transfer) Abort(cause error) {
	t.end()
	forget := errors.Is(cause, protocol.ErrForget) || worthless(cause)
	if !forget { // what is queued is good content: let it be stored
		select {
		case <-t.idle:
		case <-time.After(drainTimeout):
		}
	}
	select {
	case <-t.idle:
	default:
		t.cancel(cause) // so that a Write under way returns
		<-t.idle
	}
	switch {
	case forget, t.err != nil && worthless(t.err), t.offset == 0:
		t.drop(false)
	case t.err != nil, context.Cause(t.life) != nil, errors.Is(cause, protocol.ErrOver):
		t.drop(true)
	default:
		t.leaf.suspend(t.content)
	}
}
