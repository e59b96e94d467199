// Legs: one transfer on its way over one hop.

package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/sbcast/sbcast/protocol"
)

// Backoff between attempts to reach a hop.
const (
	redialFirst = 100 * time.Millisecond
	redialMost  = 5 * time.Second
)

func newRedialPause() *backoff.ExponentialBackOff {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = redialFirst, redialMost
	return pause
}

// leg is one transfer over one hop.
type leg struct {
	spread *spread
	hop    *Hop

	// Owned by whoever opens the leg or redials the hop.
	reached bool // there was a connection
	dials   int

	// Owned by comeBack, one at a time.
	furthest int64 // the most that was acknowledged when the hop was lost
	since    time.Time
	pause    *backoff.ExponentialBackOff

	// Guarded by spread.mu.
	sender     *protocol.Sender   // nil before the offer is answered, and while the hop is being redialled
	accept     *protocol.Accept   // the latest
	gen        int                // of the stream: what a sender of an earlier one says is not news
	away       chan struct{}      // not nil while the hop is redialled and catches up; closed then
	wake       chan struct{}      // not nil while it catches up; capacity 1: there is more, or more room
	giveUp     context.CancelFunc // ends the redialling
	overdue    *time.Timer        // not nil while an offer is made again: ends that, put off by each word of progress
	leaves     []protocol.Leaf    // under their names here
	index      map[string]int     // of leaves, once it was needed; they keep their places until the next Accept
	acked      int64
	receipts   []protocol.Receipt
	err        *protocol.Error // why the leg failed
	holds      time.Time       // since when it holds the others up; zero: it does not
	ready      bool            // it has answered Finish
	committing bool            // commit says how the leg ends
	retired    bool            // nothing more is expected of it

	// What Describe tells, guarded by spread.mu too.
	opened    time.Time      // when the offer was first accepted
	start     int64          // at which offset
	spent     protocol.Spent // by senders that are gone
	busy      float64        // seconds that leaves had been storing when those went
	downSince time.Time      // not zero while there is no sender any more
}

// aliveLocked reports whether the leg is still part of the transfer.
func (l *leg) aliveLocked() bool { return l.err == nil && l.accept != nil && !l.retired }

// directLocked reports whether what comes in is to be sent as it comes.
func (l *leg) directLocked() bool { return l.aliveLocked() && l.sender != nil && l.wake == nil }

// pacesLocked reports whether the transfer waits for what the leg takes. One
// that is away is waited for only when every leaf is needed.
func (l *leg) pacesLocked() bool {
	return l.aliveLocked() && (l.sender != nil || l.spread.strict)
}

// open offers the transfer over the hop and reports whether it was accepted.
// When every leaf is needed a hop that cannot be reached is tried again until
// the stall timeout is over; otherwise one try decides, so as not to hold the others up.
func (l *leg) open(ctx context.Context) bool {
	pause := newRedialPause()
	begun := time.Now()
	for {
		err := l.try(ctx)
		if err == nil {
			return true
		}
		if errors.Is(err, errLate) && l.reached {
			err = protocol.Errorf(protocol.CodeParked, "parked: it was not ready when the others were, and is fed after them")
		}
		wait := pause.NextBackOff()
		code := protocol.AsError(err).Code
		// One that is busy is there: its answer is worth waiting for.
		if !l.spread.strict && code != protocol.CodeBusy || !code.Retryable() || time.Since(begun)+wait > l.spread.stall {
			l.fail(err)
			return false
		}
		l.tell(protocol.Leaf{Name: l.hop.name, State: protocol.LeafWaiting, Code: code, Text: err.Error()})
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			l.fail(err)
			return false
		}
	}
}

// try offers once, for the first time.
func (l *leg) try(ctx context.Context) error {
	sender, accept, _, err := l.propose(ctx)
	if err != nil {
		return err
	}
	t := l.spread
	t.mu.Lock()
	if err = sender.Err(); err == nil { // it may have been lost before there was anybody to tell
		l.upLocked(sender, accept)
		t.up.Progress(l.leaves...)
	}
	t.mu.Unlock()
	if err != nil {
		l.hop.retire(sender)
	}
	return err
}

// propose makes the offer on a new stream. What the sender reports from then
// on is of the generation that is returned.
func (l *leg) propose(ctx context.Context) (*protocol.Sender, *protocol.Accept, int, error) {
	t := l.spread
	stream, err := l.hop.dialer.Open(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	l.reached = true
	t.mu.Lock()
	l.gen++
	gen := l.gen
	t.mu.Unlock()
	sender := protocol.NewSender(stream, protocol.SenderConfig{
		OnAck:      func(offset int64) { l.onAck(gen, offset) },
		OnProgress: l.onProgress,
		OnEnd:      func(err error) { l.lost(gen, err) },
		Stall:      t.stall,
	})
	l.hop.stats.begin(sender)
	offer := t.offer
	offer.Redials = append(slices.Clip(offer.Redials), l.dials) // so that what is left of an earlier stream does not stand in the way
	l.dials++
	accept, err := sender.Offer(ctx, &offer)
	if err != nil {
		if errors.Is(context.Cause(ctx), protocol.ErrForget) {
			sender.Abort(context.Cause(ctx).Error())
		}
		l.hop.retire(sender)
		return nil, nil, 0, err
	}
	return sender, accept, gen, nil
}

// tell sets the state of the hop as a whole, before its leaves are known.
func (l *leg) tell(leaf protocol.Leaf) {
	l.spread.mu.Lock()
	l.leaves = []protocol.Leaf{leaf}
	l.spread.mu.Unlock()
	l.spread.up.Progress(leaf)
}

func (l *leg) onAck(gen int, offset int64) {
	t := l.spread
	t.mu.Lock()
	defer t.mu.Unlock()
	if gen != l.gen || offset <= l.acked {
		return
	}
	before := l.acked
	l.acked = offset
	if l.wake != nil {
		l.signalLocked()
	}
	t.movedLocked(l, before)
}

// signalLocked tells catchUp to look again.
func (l *leg) signalLocked() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// onProgress passes the progress of known leaves on; before Accept, when a
// broadcaster below is waiting for its own, of any.
func (l *leg) onProgress(below []protocol.Leaf) {
	t := l.spread
	here := l.hop.leaves(below)
	t.mu.Lock()
	if l.overdue != nil {
		l.overdue.Reset(t.stall)
	}
	if l.accept != nil {
		known := here[:0]
		for _, leaf := range here {
			i, ok := l.indexLocked(leaf.Name)
			if !ok {
				continue
			}
			if leaf.State == protocol.LeafReceiving && leaf.Text == "" {
				leaf.Text = l.leaves[i].Text // what is said of it here
			}
			l.leaves[i] = leaf
			known = append(known, leaf)
		}
		here = known
	}
	t.mu.Unlock()
	t.up.Progress(here...)
}

// indexLocked finds a leaf behind the hop by its name here. A broadcaster below
// with 1,000 leaves tells of 64 in a frame, 16 frames in a tenth of a second:
// to look for each of them among all was a million comparisons.
func (l *leg) indexLocked(name string) (i int, ok bool) {
	if l.index == nil {
		l.index = make(map[string]int, len(l.leaves))
		for i := range l.leaves {
			l.index[l.leaves[i].Name] = i
		}
	}
	i, ok = l.index[name]
	return i, ok
}
