// Legs: one transfer on its way over one hop.

package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/sbcast/sbcast/protocol"
)

// Backoff between attempts to reach a hop.
const (
	redialFirst = 100 * time.Millisecond
	redialMost  = 5 * time.Second
)

// leg is one transfer over one hop.
type leg struct {
	spread *spread
	hop    *Hop

	reached bool // of the goroutine that opens the leg: there is a connection

	// Fixed once the offer is answered.
	sender *protocol.Sender
	accept *protocol.Accept

	// Guarded by spread.mu.
	leaves     []protocol.Leaf // under their names here
	acked      int64
	receipts   []protocol.Receipt
	err        *protocol.Error // why the leg failed
	holds      time.Time       // since when it holds the others up; zero: it does not
	committing bool            // commit says how the leg ends
	retired    bool            // nothing more is expected of it
}

// live reports whether the leg can still carry the transfer.
func (l *leg) live() bool {
	l.spread.mu.Lock()
	defer l.spread.mu.Unlock()
	return l.err == nil && l.sender != nil && !l.retired
}

// open offers the transfer over the hop and reports whether it was accepted.
// When every leaf is needed a hop that cannot be reached is tried again until
// stall is over; otherwise one try decides, so as not to hold the others up.
func (l *leg) open(ctx context.Context, offer *protocol.Offer, stall time.Duration) bool {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = redialFirst, redialMost
	begun := time.Now()
	for again := 0; ; again++ {
		below := *offer
		below.Redial = again // so that what is left of an earlier try does not stand in the way
		err := l.try(ctx, &below, stall)
		if err == nil {
			return true
		}
		if errors.Is(err, errLate) && l.reached {
			err = protocol.Errorf(protocol.CodeParked, "parked: it was not ready when the others were, and is fed after them")
		}
		wait := pause.NextBackOff()
		if !l.spread.strict || !protocol.AsError(err).Code.Retryable() || time.Since(begun)+wait > stall {
			l.fail(err)
			return false
		}
		l.tell(protocol.Leaf{Name: l.hop.name, State: protocol.LeafWaiting, Code: protocol.AsError(err).Code, Text: err.Error()})
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			l.fail(err)
			return false
		}
	}
}

// try dials and offers once.
func (l *leg) try(ctx context.Context, offer *protocol.Offer, stall time.Duration) error {
	stream, err := l.hop.dialer.Open(ctx)
	if err != nil {
		return err
	}
	l.reached = true
	sender := protocol.NewSender(stream, protocol.SenderConfig{
		OnAck:      l.onAck,
		OnProgress: l.onProgress,
		OnEnd:      l.ended,
		Stall:      stall,
	})
	accept, err := sender.Offer(ctx, offer)
	if err != nil {
		if errors.Is(context.Cause(ctx), protocol.ErrForget) {
			sender.Abort(context.Cause(ctx).Error())
		}
		l.hop.retire(sender)
		return err
	}
	t := l.spread
	t.mu.Lock()
	defer t.mu.Unlock()
	l.sender, l.accept, l.acked = sender, accept, accept.Offset
	l.leaves = l.hop.leaves(accept.Leaves)
	t.up.Progress(l.leaves...)
	return nil
}

// tell sets the state of the hop as a whole, before its leaves are known.
func (l *leg) tell(leaf protocol.Leaf) {
	l.spread.mu.Lock()
	l.leaves = []protocol.Leaf{leaf}
	l.spread.mu.Unlock()
	l.spread.up.Progress(leaf)
}

func (l *leg) onAck(offset int64) {
	t := l.spread
	t.mu.Lock()
	defer t.mu.Unlock()
	if before := l.acked; offset > before {
		l.acked = offset
		t.ackLocked(before)
	}
}

// onProgress passes the progress of known leaves on; before Accept, when a
// broadcaster below is waiting for its own, of any.
func (l *leg) onProgress(below []protocol.Leaf) {
	t := l.spread
	here := l.hop.leaves(below)
	t.mu.Lock()
	if l.sender != nil {
		known := here[:0]
		for _, leaf := range here {
			for i := range l.leaves {
				if l.leaves[i].Name == leaf.Name {
					if leaf.State == protocol.LeafReceiving && leaf.Text == "" {
						leaf.Text = l.leaves[i].Text // what is said of it here
					}
					l.leaves[i] = leaf
					known = append(known, leaf)
				}
			}
		}
		here = known
	}
	t.mu.Unlock()
	t.up.Progress(here...)
}

// ended is told by the sender that the transfer cannot go on over this hop.
func (l *leg) ended(err error) {
	l.spread.mu.Lock()
	over := l.retired || l.sender == nil || l.err != nil || l.committing
	l.spread.mu.Unlock()
	if !over {
		l.fail(err)
	}
}

// fail takes the leg out of the transfer: its leaves have failed, unless what
// the hop said of them is worse news already.
func (l *leg) fail(err error) {
	t := l.spread
	e := l.hop.failure(err)
	t.mu.Lock()
	if l.err != nil {
		t.mu.Unlock()
		return
	}
	t.failLocked(l, e)
	sender := l.sender
	t.mu.Unlock()
	if sender != nil {
		sender.Close() // the leaf keeps what it has
	}
}

func (t *spread) failLocked(l *leg, e *protocol.Error) {
	l.err = e
	said := map[string]protocol.Leaf{}
	for _, leaf := range e.Leaves {
		if leaf.State == protocol.LeafFailed {
			said[leaf.Name] = leaf
		}
	}
	if l.sender == nil && len(e.Leaves) > 0 { // refused by a broadcaster below, which names its leaves
		l.leaves = e.Leaves
	}
	for i := range l.leaves {
		leaf := &l.leaves[i]
		if s, ok := said[leaf.Name]; ok {
			*leaf = s
			continue
		}
		leaf.State, leaf.Code, leaf.Text = protocol.LeafFailed, e.Code, e.Text
		if e.Leaf != leaf.Name && e.Leaf != l.hop.name {
			leaf.Code, leaf.Text = protocol.CodePolicy, "not published because of "+e.Error()
		}
	}
	t.up.Progress(l.leaves...)
	if t.settled {
		t.lostLocked(l)
	}
}

// lostLocked decides what the loss of l means for the whole transfer.
func (t *spread) lostLocked(l *leg) {
	live := false
	for _, other := range t.legs {
		live = live || other.err == nil
	}
	if t.strict || !live {
		t.up.Fail(protocol.Combine(t.leavesLocked()))
		return
	}
	t.ackLocked(l.acked)
}

// finish ends the content on this hop and notes how its leaves stand.
func (l *leg) finish(ctx context.Context, f *protocol.Finish) {
	ready, err := l.sender.Finish(ctx, f)
	if ctx.Err() != nil {
		return // the transfer ends; Abort tells the hop how
	}
	if err != nil {
		l.fail(err)
		return
	}
	t := l.spread
	t.mu.Lock()
	defer t.mu.Unlock()
	stands := map[string]protocol.Leaf{}
	for _, leaf := range l.hop.leaves(ready.Leaves) {
		stands[leaf.Name] = leaf
	}
	for i := range l.leaves {
		if leaf, ok := stands[l.leaves[i].Name]; ok {
			l.leaves[i] = leaf
			continue
		}
		l.leaves[i].State = protocol.LeafFailed
		l.leaves[i].Code, l.leaves[i].Text = protocol.CodeProtocol, "the hop said nothing of this reader"
	}
}

// commit lets the leaves behind this hop publish and notes their receipts.
func (l *leg) commit(ctx context.Context) {
	t := l.spread
	t.mu.Lock()
	l.committing = true
	t.mu.Unlock()
	receipts, err := l.sender.Commit(ctx)
	t.mu.Lock()
	for _, r := range receipts {
		r.Leaf = l.hop.leafName(r.Leaf)
		l.receipts = append(l.receipts, r)
	}
	t.mu.Unlock()
	if err != nil {
		l.fail(protocol.Errorf(protocol.AsError(err).Code, "lost before its receipt came, it holds the whole file: push again to find out (%w)", err))
	}
}

// receiptsLocked is a receipt for each leaf of the hop: its own, or one that
// says why there is none.
func (l *leg) receiptsLocked() []protocol.Receipt {
	all := l.receipts
	have := map[string]bool{}
	for _, r := range all {
		have[r.Leaf] = true
	}
	for _, leaf := range l.leaves {
		if !have[leaf.Name] {
			all = append(all, protocol.Receipt{
				Leaf: leaf.Name, Status: protocol.LeafFailed, Bytes: leaf.Offset, Code: leaf.Code, Text: leaf.Text,
			})
		}
	}
	return all
}
