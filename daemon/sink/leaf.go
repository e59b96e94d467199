// Leaf: what all stores need alike.

package sink

import (
	"context"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// suspendFor is how long a transfer that was cut off is held open for its
// sender to come back. After that a store may still be able to resume it from
// what it keeps on disk.
const suspendFor = 2 * time.Minute

// mostSuspended bounds the transfers that are held open so: each has two file
// descriptors. The one that has waited longest is closed when there are more.
const mostSuspended = 256

// conflictWait is how long an offer waits for a name that is in use.
const conflictWait = 500 * time.Millisecond

// Leaf is the protocol.Sink of a reader: it puts every transfer into a Store.
// A transfer whose stream was cut off is suspended, with its file open and its
// hash as it is, so that the next attempt goes on at once.
type Leaf struct {
	store  Store
	serial bool // it wants one file after the other

	mu        sync.Mutex
	suspended map[string]*content        // by transfer id
	names     map[protocol.Name]*content // the same, by file name
}

// NewLeaf returns a Leaf over store.
func NewLeaf(store Store) *Leaf {
	_, serial := store.(serialStore)
	return &Leaf{store: store, serial: serial, suspended: map[string]*content{}, names: map[protocol.Name]*content{}}
}

// content is a file and how far it is. It belongs to one transfer at a time,
// or to the Leaf while it is suspended.
type content struct {
	offer  *protocol.Offer
	up     protocol.Upstream // of the attempt under way
	file   File
	have   Have
	life   context.Context // of the file
	cancel context.CancelCauseFunc
	hasher *protocol.Hasher
	offset int64
	begun  time.Time
	since  time.Time   // suspended
	timer  *time.Timer // while suspended
}

// Begin implements protocol.Sink.
func (l *Leaf) Begin(ctx context.Context, offer *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	c, err := l.content(ctx, offer, up)
	if err != nil {
		return nil, nil, err
	}
	c.up = up
	t := &transfer{
		leaf: l, content: c, resumed: c.offset,
		wake: make(chan struct{}, 1), idle: make(chan struct{}), toldOffset: c.offset,
	}
	t.stored.Store(c.offset)
	t.slow = newSlow(t.tellSlow)
	go t.work()
	state := t.state()
	state.Serial = l.serial
	return t, &protocol.Accept{Offset: c.offset, Leaves: []protocol.Leaf{state}, CRC: c.have.ByCRC}, nil
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
	c := &content{offer: offer, up: up, life: life, cancel: cancel, hasher: protocol.NewHasher(offer.Digest), begun: time.Now()}
	var err error
	c.file, c.have, err = l.store.Create(life, Request{
		Offer: offer, Prefix: c.hasher,
		Tell: func(text string) {
			c.up.Progress(protocol.Leaf{State: protocol.LeafWaiting, Offset: c.offset, Text: text})
		},
	})
	if err != nil {
		cancel(err)
		return nil, err
	}
	c.offset = c.have.Offset
	if c.have.ByCRC {
		c.hasher.AddCRC(c.have.CRC)
	}
	return c, nil
}

// suspend keeps c for a later attempt of the same transfer.
func (l *Leaf) suspend(c *content) {
	l.hold(c)
	if oldest := l.oldest(); l.remove(oldest) {
		oldest.drop(true)
	}
}

func (l *Leaf) hold(c *content) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.since = time.Now()
	l.suspended[c.offer.ID], l.names[c.offer.Name] = c, c
	c.timer = time.AfterFunc(suspendFor, func() {
		if l.remove(c) {
			c.drop(true)
		}
	})
}

// oldest is what has to make way because there are too many, or nil.
func (l *Leaf) oldest() (oldest *content) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.suspended) <= mostSuspended {
		return nil
	}
	for _, c := range l.suspended {
		if oldest == nil || c.since.Before(oldest.since) {
			oldest = c
		}
	}
	return oldest
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
	var dropping sync.WaitGroup
	for _, c := range all {
		if l.remove(c) {
			dropping.Go(func() { c.drop(true) })
		}
	}
	dropping.Wait()
}

// drop ends the file.
func (c *content) drop(keep bool) {
	c.cancel(context.Canceled)
	c.file.Discard(keep)
}
