// Spread: one transfer on its way through a Fanout, over a leg to each hop.

package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// spread is one transfer on its way to all hops.
type spread struct {
	fanout   *Fanout
	up       protocol.Upstream
	policy   protocol.Policy
	strict   bool           // one failed hop fails the transfer
	offer    protocol.Offer // to the hops
	lag      time.Duration
	stall    time.Duration
	legs     []*leg
	ctx      context.Context // ends with the transfer
	cancel   context.CancelCauseFunc
	watching sync.WaitGroup

	mu       sync.Mutex
	accepted int   // leaves, as far as hops have answered
	settled  bool  // Accept is decided: a failure from now on is reported at once
	over     bool  // upstream was told that the transfer has failed
	window   int64 // granted
	maxChunk int   // granted
	received int64
	acked    int64 // by every leg that paces the transfer
	behind   int   // how many of those are no further than acked
	kept     retained
	finished *protocol.Finish // nil while there may be more content

	direct []*protocol.Sender // of Write, reused
}

// enough counts the leaves of one more leg that has accepted, and reports
// whether they meet the policy now.
func (t *spread) enough(l *leg) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accepted += len(l.leaves)
	return t.accepted >= t.policy.Needs(t.accepted)
}

// accept settles the answer to the offer, when all legs have theirs.
func (t *spread) accept() (*protocol.Accept, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settled = true
	a := &protocol.Accept{Offset: -1, Window: t.up.Window(), MaxChunk: protocol.MaxChunk}
	failed, live := false, false
	for _, l := range t.legs {
		a.Leaves = append(a.Leaves, l.leaves...)
		if l.err != nil {
			failed = true
			continue
		}
		if !live || l.accept.Offset < a.Offset {
			a.Offset = l.accept.Offset
		}
		a.Window = min(a.Window, l.accept.Window)
		a.MaxChunk = min(a.MaxChunk, l.accept.MaxChunk)
		a.CRC = a.CRC || l.accept.CRC
		live = true
	}
	if !live || failed && t.strict {
		return nil, protocol.Combine(a.Leaves)
	}
	a.MaxChunk = int(min(int64(a.MaxChunk), a.Window/4))
	t.acked, t.received, t.window, t.maxChunk = a.Offset, a.Offset, a.Window, a.MaxChunk
	t.paceLocked()
	return a, nil
}

// leavesLocked is how every leaf stands.
func (t *spread) leavesLocked() []protocol.Leaf {
	var all []protocol.Leaf
	for _, l := range t.legs {
		all = append(all, l.leaves...)
	}
	return all
}

// Write implements protocol.Transfer. It does not wait: what the window lets
// in here fits into every live hop's window.
func (t *spread) Write(c *protocol.Chunk) error {
	t.mu.Lock()
	t.received = c.End()
	t.kept.keep(c.Retain())
	t.direct = t.direct[:0]
	for _, l := range t.legs {
		switch {
		case l.directLocked():
			t.direct = append(t.direct, l.sender)
		case l.wake != nil:
			l.signalLocked()
		}
	}
	if t.behind == 0 { // all had this before
		t.paceLocked()
	}
	t.mu.Unlock()
	for _, s := range t.direct {
		_ = s.Send(t.ctx, c.Retain()) // what ends a sender is told to its leg
	}
	return nil
}

// Finish implements protocol.Transfer.
func (t *spread) Finish(ctx context.Context, f *protocol.Finish) ([]protocol.Leaf, error) {
	t.mu.Lock()
	t.finished = f
	for _, l := range t.legs {
		if l.wake != nil {
			l.signalLocked()
		}
	}
	t.mu.Unlock()
	t.eachAlive(func(l *leg) { l.finish(ctx, f) })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	leaves := t.leavesLocked()
	ready := false
	for _, l := range leaves {
		if l.State == protocol.LeafFailed && t.strict {
			return nil, protocol.Combine(leaves)
		}
		ready = ready || l.State != protocol.LeafFailed
	}
	if !ready {
		return nil, protocol.Combine(leaves)
	}
	return leaves, nil
}

// Commit implements protocol.Transfer.
func (t *spread) Commit(ctx context.Context) []protocol.Receipt {
	t.eachAlive(func(l *leg) { l.commit(ctx, t.finished) })
	var all []protocol.Receipt
	t.mu.Lock()
	for _, l := range t.legs {
		receipts := l.receiptsLocked()
		for i := range receipts {
			l.hop.stats.receipt(receipts[i].Status)
		}
		all = append(all, receipts...)
	}
	t.mu.Unlock()
	t.retire()
	return all
}

// Abort implements protocol.Transfer. The hops are told only when the
// transfer is to be forgotten, or is over; otherwise the streams just end and
// the leaves hold what they have for the next attempt.
func (t *spread) Abort(cause error) {
	senders := t.hush()
	forget := errors.Is(cause, protocol.ErrForget)
	if forget || errors.Is(cause, protocol.ErrOver) || protocol.AsError(cause).Code.Over() {
		var wg sync.WaitGroup
		for _, sender := range senders { // a hop that is away holds what it has until its time is up
			wg.Go(func() {
				if forget {
					sender.Abort(cause.Error())
				} else {
					sender.GiveUp(cause)
				}
			})
		}
		wg.Wait()
	}
	t.retire()
}

// hush makes what hops report from now on no news. It returns the senders of
// those that are part of the transfer.
func (t *spread) hush() (alive []*protocol.Sender) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.legs {
		if l.aliveLocked() && l.sender != nil {
			alive = append(alive, l.sender)
		}
		l.retired = true
	}
	return alive
}

// retire closes all senders.
func (t *spread) retire() {
	t.fanout.end(t)
	t.hush()
	t.cancel(context.Canceled)
	t.watching.Wait()
	for _, l := range t.legs {
		t.mu.Lock()
		sender := l.sender
		t.mu.Unlock()
		if sender != nil {
			l.hop.retire(sender)
		}
	}
	t.mu.Lock()
	t.kept.drop(t.received)
	t.mu.Unlock()
}

// eachAlive runs f at once on all legs that are part of the transfer, and waits.
func (t *spread) eachAlive(f func(l *leg)) {
	t.mu.Lock()
	var alive []*leg
	for _, l := range t.legs {
		if l.aliveLocked() {
			alive = append(alive, l)
		}
	}
	t.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range alive {
		wg.Go(func() { f(l) })
	}
	wg.Wait()
}
