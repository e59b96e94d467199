// Leaf: what all stores need alike.

package sink

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// suspendFor is how long a transfer that was cut off is held open for its
// sender to come back. After that a store may still be able to resume it from
// what it keeps on disk.
const suspendFor = 2 * time.Minute

// drainTimeout is how long a transfer that was cut off may go on storing what
// had come.
const drainTimeout = 5 * time.Second

// tellEvery is how often a transfer says how far it is: no more is passed on.
const tellEvery = 100 * time.Millisecond

// conflictWait is how long an offer waits for a name that is in use.
const conflictWait = 500 * time.Millisecond

// Leaf is the protocol.Sink of a reader: it puts every transfer into a Store.
// A transfer whose stream was cut off is suspended, with its file open and its
// hash as it is, so that the next attempt goes on at once.
type Leaf struct {
	store  Store
	serial bool // it wants one file after the other

	mu        sync.Mutex
	suspended map[string]*content // by transfer id
	names     map[string]*content // the same, by file name
}

// NewLeaf returns a Leaf over store.
func NewLeaf(store Store) *Leaf {
	_, serial := store.(serialStore)
	return &Leaf{store: store, serial: serial, suspended: map[string]*content{}, names: map[string]*content{}}
}

// content is a file and how far it is. It belongs to one transfer at a time,
// or to the Leaf while it is suspended.
type content struct {
	offer  *protocol.Offer
	file   File
	have   Have
	life   context.Context // of the file
	cancel context.CancelCauseFunc
	hasher *protocol.Hasher
	offset int64
	begun  time.Time
	timer  *time.Timer // while suspended
}

// Begin implements protocol.Sink.
func (l *Leaf) Begin(ctx context.Context, offer *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	c, err := l.content(ctx, offer, up)
	if err != nil {
		return nil, nil, err
	}
	t := &transfer{
		leaf: l, content: c, up: up, resumed: c.offset,
		wake: make(chan struct{}, 1), idle: make(chan struct{}), toldOffset: c.offset,
	}
	go t.work()
	state := t.state()
	state.Serial = l.serial
	return t, &protocol.Accept{Offset: c.offset, Leaves: []protocol.Leaf{state}}, nil
}

// content finds or makes what the transfer goes on with. A name in use is
// waited for a little: the transfer that has it may have been cut off and be
// about to notice.
func (l *Leaf) content(ctx context.Context, offer *protocol.Offer, up protocol.Upstream) (*content, error) {
	for begun := time.Now(); ; {
		if c := l.takeSuspended(offer); c != nil {
			return c, nil
		}
		c, err := l.create(ctx, offer, up)
		if !protocol.HasCode(err, protocol.CodeConflict) || time.Since(begun) > conflictWait {
			return c, err
		}
		select {
		case <-time.After(conflictWait / 20):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (l *Leaf) create(ctx context.Context, offer *protocol.Offer, up protocol.Upstream) (*content, error) {
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) }) // while it is being created
	defer stop()
	c := &content{offer: offer, life: life, cancel: cancel, hasher: protocol.NewHasher(offer.Digest), begun: time.Now()}
	var err error
	c.file, c.have, err = l.store.Create(life, Request{
		Offer: offer, Prefix: c.hasher,
		Tell: func(text string) { up.Progress(protocol.Leaf{State: protocol.LeafWaiting, Text: text}) },
	})
	if err != nil {
		cancel(err)
		return nil, err
	}
	c.offset = c.have.Offset
	return c, nil
}

// suspend keeps c for a later attempt of the same transfer.
func (l *Leaf) suspend(c *content) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspended[c.offer.ID], l.names[c.offer.Name] = c, c
	c.timer = time.AfterFunc(suspendFor, func() {
		if l.remove(c) {
			c.drop(true)
		}
	})
}

// remove takes c out of the suspended ones and reports whether it was there.
func (l *Leaf) remove(c *content) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c == nil || l.suspended[c.offer.ID] != c {
		return false
	}
	c.timer.Stop()
	delete(l.suspended, c.offer.ID)
	delete(l.names, c.offer.Name)
	return true
}

// takeSuspended returns what is suspended of the transfer that offer is an
// attempt of. A suspended transfer of another push of the same name makes way.
func (l *Leaf) takeSuspended(offer *protocol.Offer) *content {
	l.mu.Lock()
	c, other := l.suspended[offer.ID], l.names[offer.Name]
	l.mu.Unlock()
	if other != c && l.remove(other) {
		other.drop(true)
	}
	if !l.remove(c) {
		return nil
	}
	if sourceKey(c.offer) != sourceKey(offer) || c.offer.Size != offer.Size || c.offer.Name != offer.Name || c.offer.Digest != offer.Digest {
		c.drop(false)
		return nil
	}
	return c
}

// Close gives up what is suspended; stores keep what they can resume.
func (l *Leaf) Close() {
	l.mu.Lock()
	var all []*content
	for _, c := range l.suspended {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		if l.remove(c) {
			c.drop(true)
		}
	}
}

// drop ends the file.
func (c *content) drop(keep bool) {
	c.cancel(context.Canceled)
	c.file.Discard(keep)
}

// transfer is one attempt to receive a file. Chunks are queued by the
// Receiver's read loop and stored by a goroutine of the transfer's own, so
// that a slow disk does not keep pings and aborts from being read; the queue
// is bounded by the window that the Receiver holds the sender to.
type transfer struct {
	leaf    *Leaf
	up      protocol.Upstream
	resumed int64
	wake    chan struct{} // capacity 1: the queue or ended changed
	idle    chan struct{} // closed when the goroutine has ended

	// Owned by the goroutine until idle is closed, then by the caller.
	*content
	scratch []byte
	err     error

	toldAt     time.Time // how far it is
	toldOffset int64

	mu    sync.Mutex
	queue []*protocol.Chunk
	ended bool // nothing more will be queued
}

func (t *transfer) state() protocol.Leaf {
	l := protocol.Leaf{State: protocol.LeafReceiving, Offset: t.offset, Text: t.have.Note}
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
	t.up.Ack(t.offset)
	if now := time.Now(); now.Sub(t.toldAt) >= tellEvery {
		t.tell(now)
	}
	return nil
}

// tell says how far the transfer is.
func (t *transfer) tell(now time.Time) {
	t.toldAt, t.toldOffset = now, t.offset
	t.up.Progress(protocol.Leaf{State: protocol.LeafReceiving, Offset: t.offset})
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
	digest := t.hasher.Digest()
	if t.have.Published {
		if digest = t.have.Digest; f.Digest == "" {
			f.Digest = digest
		}
	}
	if digest != "" && digest != f.Digest {
		t.err = protocol.Errorf(protocol.CodeDigest, "the content that arrived has digest %s, the source said %s", digest, f.Digest)
		return nil, t.err
	}
	if t.err = t.file.Stage(ctx, digest); t.err != nil {
		return nil, t.err
	}
	l := t.state()
	if l.State != protocol.LeafUnchanged {
		l.State = protocol.LeafReady
	}
	return []protocol.Leaf{l}, nil
}

// Commit implements protocol.Transfer.
func (t *transfer) Commit(ctx context.Context) []protocol.Receipt {
	r := protocol.Receipt{Status: protocol.LeafPublished, Bytes: t.offset, Digest: t.hasher.Digest(), ResumedFrom: t.resumed}
	if t.have.Published {
		r.Digest, r.ResumedFrom = t.have.Digest, 0
	}
	p, err := t.file.Publish(ctx)
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
	case t.err != nil || context.Cause(t.life) != nil:
		t.drop(true)
	default:
		t.leaf.suspend(t.content)
	}
}
