// Redialling: a hop whose connection was lost in the middle of a transfer is
// dialled again, and fed from what the transfer has retained.

package daemon

import (
	"context"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// worthRedialling reports whether a hop was lost for a reason that another
// connection may not have: one that refuses, or stalls, would do so again.
func worthRedialling(err error) bool {
	switch protocol.AsError(err).Code {
	case protocol.CodeUnreachable, protocol.CodeDead, protocol.CodeTruncated, protocol.CodeChecksum, protocol.CodeShutdown:
		return true
	default:
		return false
	}
}

// lost is told by a sender, the one of generation gen, that the transfer
// cannot go on over it. It redials the hop or takes the leg out.
func (l *leg) lost(gen int, err error) {
	t := l.spread
	t.mu.Lock()
	switch {
	case gen != l.gen, l.retired, l.err != nil, l.committing, l.accept == nil, l.away != nil:
		t.mu.Unlock() // is not news, or whoever waits for it tells
		return
	case !t.settled || !worthRedialling(err):
		t.mu.Unlock()
		l.fail(err)
		return
	}
	old := l.sender
	l.downLocked()
	l.ready = false
	l.gen++
	l.hop.stats.count(func(st *hopStats) { st.lost++ })
	ctx, cancel := context.WithCancel(t.ctx)
	away := make(chan struct{})
	l.away, l.giveUp = away, cancel
	t.paceLocked()
	t.watching.Go(func() {
		defer cancel()
		l.hop.retire(old)
		l.log().Warn("reader lost", "bytes", l.at(), "code", string(protocol.AsError(err).Code), "error", err)
		begun := time.Now()
		if l.comeBack(ctx, err) {
			l.log().Info("reader is back", "bytes", l.at(), "took", time.Since(begun).Round(time.Millisecond))
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if l.away == away {
			l.backLocked()
		}
	})
	t.mu.Unlock()
}

// backLocked ends the absence of the leg: it takes content again, or has failed.
func (l *leg) backLocked() {
	close(l.away)
	l.away, l.wake = nil, nil
}

// comeBack redials until the leg takes content as before, or fails it: at the
// latest when it has got no further for as long as a hop may stall, however
// often it came back in that time. It reports whether it is back.
func (l *leg) comeBack(ctx context.Context, err error) bool {
	for {
		l.waitFor(err)
		if at := l.at(); l.pause == nil || at > l.furthest {
			l.furthest, l.since = at, time.Now()
			l.pause = newRedialPause()
		} else {
			wait := l.pause.NextBackOff()
			if time.Since(l.since)+wait > l.spread.stall {
				l.fail(err)
				return false
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				l.fail(err)
				return false
			}
		}
		if err = l.resume(ctx); err == nil {
			return true
		}
		if !worthRedialling(err) || ctx.Err() != nil {
			l.fail(err)
			return false
		}
	}
}

// waitFor says of the leaves behind the hop that they are waited for, and why.
func (l *leg) waitFor(err error) {
	t := l.spread
	e := l.hop.failure(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range l.leaves {
		if leaf := &l.leaves[i]; leaf.State != protocol.LeafFailed && leaf.State != protocol.LeafUnchanged {
			leaf.State, leaf.Code, leaf.Text = protocol.LeafWaiting, e.Code, e.Text+"; trying again"
		}
	}
	t.up.Progress(l.leaves...)
}

// resume makes a new stream to the hop and feeds it what it lacks.
func (l *leg) resume(ctx context.Context) error {
	t := l.spread
	sender, accept, gen, err := l.proposeAgain(ctx)
	if err != nil {
		return err
	}
	t.mu.Lock()
	err = t.fitsLocked(l, accept)
	if err == nil {
		l.upLocked(sender, accept)
		l.wake = make(chan struct{}, 1)
		t.paceLocked()
		t.up.Progress(l.leaves...)
	}
	t.mu.Unlock()
	if err == nil {
		err = l.catchUp(ctx, sender, accept.Offset)
	}
	if err == nil {
		return nil
	}
	t.mu.Lock()
	if l.gen == gen { // no news from this one any more
		l.gen++
		if l.sender == sender {
			l.downLocked()
		}
		t.paceLocked()
	}
	t.mu.Unlock()
	l.hop.retire(sender)
	return err
}

// proposeAgain makes the offer once more, to a hop that may answer pings and
// never that. A first offer is for the client to give up, which is told whom it
// waits for; of this one nobody knows but the leg.
func (l *leg) proposeAgain(ctx context.Context) (*protocol.Sender, *protocol.Accept, int, error) {
	t := l.spread
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.mu.Lock()
	l.overdue = time.AfterFunc(t.stall, func() {
		cancel(protocol.Errorf(protocol.CodeStalled, "back after its connection was lost, but without an answer to the offer for %v", t.stall))
	})
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		l.overdue.Stop()
		l.overdue = nil
		t.mu.Unlock()
	}()
	return l.propose(ctx)
}

// fitsLocked checks that the transfer can go on with what the hop accepts now.
// Where it cannot the sender has to offer again, which is what the code says.
func (t *spread) fitsLocked(l *leg, a *protocol.Accept) error {
	back := func(format string, args ...any) error {
		return protocol.Errorf(protocol.CodeParked, "came back after the connection was lost, "+format, args...)
	}
	if !t.kept.has(a.Offset, t.received) {
		return back("needs the content from byte %d on and is fed after the others", a.Offset)
	}
	if a.Window < t.window || a.MaxChunk < t.maxChunk {
		return back("takes less at once than before and is fed after the others")
	}
	before := map[string]bool{}
	for _, leaf := range l.leaves {
		before[leaf.Name] = true
	}
	for _, leaf := range l.hop.leaves(a.Leaves) {
		if !before[leaf.Name] {
			return back("with another reader, %s, and is fed after the others", leaf.Name)
		}
		delete(before, leaf.Name)
	}
	if len(before) > 0 {
		return back("without some of its readers, and is fed after the others")
	}
	return nil
}

// catchUp feeds sender from the retained content, until it is as far as the
// others and within the window that they all share: from then on Write does.
func (l *leg) catchUp(ctx context.Context, sender *protocol.Sender, pos int64) error {
	t := l.spread
	for {
		t.mu.Lock()
		c := t.kept.at(pos)
		if c == nil && pos >= t.received && (t.finished != nil || l.acked >= t.acked) {
			err := sender.Err() // was it lost while that was not news?
			if err == nil {
				l.backLocked()
			}
			t.mu.Unlock()
			return err
		}
		wake := l.wake
		t.mu.Unlock()
		if c != nil {
			pos = c.End()
			if err := sender.Send(ctx, c); err != nil {
				return err
			}
			continue
		}
		select {
		case <-wake:
		case <-sender.Done():
			return sender.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitBack waits until the leg is not away any more. Where the policy can do
// without it, a hop that cannot be reached is given up after lateGrace.
func (l *leg) awaitBack(ctx context.Context) {
	t := l.spread
	t.mu.Lock()
	away, down := l.away, l.sender == nil
	t.mu.Unlock()
	if away == nil {
		return
	}
	var late <-chan time.Time
	if !t.strict && down {
		timer := time.NewTimer(lateGrace)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-away:
	case <-ctx.Done():
	case <-late:
		l.fail(protocol.Errorf(protocol.CodeParked, "its connection was lost, and it was not back when the others were done"))
		<-away
	}
}
