// How a leg ends: failed, ready, or with its receipts.

package daemon

import (
	"context"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// fail takes the leg out of the transfer: its leaves have failed, unless what
// the hop said of them is worse news already.
func (l *leg) fail(err error) {
	t := l.spread
	e := l.hop.failure(err)
	t.mu.Lock()
	if l.err != nil || l.retired {
		t.mu.Unlock()
		return
	}
	t.failLocked(l, e)
	l.hop.stats.count(func(st *hopStats) {
		if e.Code == protocol.CodeParked {
			st.parked++
		} else {
			st.failed++
		}
	})
	sender, giveUp := l.sender, l.giveUp
	t.mu.Unlock()
	if sender != nil {
		sender.Close() // the leaf keeps what it has
	}
	if giveUp != nil {
		giveUp()
	}
}

func (t *spread) failLocked(l *leg, e *protocol.Error) {
	l.err = e
	if !l.downSince.IsZero() {
		l.spent.Link += time.Since(l.downSince).Seconds()
		l.downSince = time.Time{}
	}
	said := map[string]protocol.Leaf{}
	for _, leaf := range e.Leaves {
		if leaf.State == protocol.LeafFailed {
			said[leaf.Name] = leaf
		}
	}
	if l.accept == nil && len(e.Leaves) > 0 { // refused by a broadcaster below, which names its leaves
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
		t.lostLocked()
	}
}

// lostLocked decides what the loss of a leg means for the whole transfer.
func (t *spread) lostLocked() {
	live := false
	for _, other := range t.legs {
		live = live || other.err == nil
	}
	if t.strict || !live {
		if !t.over { // once: with 1,000 hops lost at the same time, each would list all
			t.over = true
			t.up.Fail(protocol.Combine(t.leavesLocked()))
		}
		return
	}
	t.paceLocked()
}

// finish ends the content on this hop, as often as it comes back, and notes
// how its leaves stand.
func (l *leg) finish(ctx context.Context, f *protocol.Finish) {
	t := l.spread
	var ready *protocol.Ready
	for ready == nil {
		l.awaitBack(ctx)
		t.mu.Lock()
		sender, gen, alive, away := l.sender, l.gen, l.aliveLocked(), l.away != nil
		t.mu.Unlock()
		if !alive || ctx.Err() != nil {
			return // when the transfer ends, Abort tells the hop how
		}
		if away { // lost again
			continue
		}
		answer, err := sender.Finish(ctx, f)
		if err != nil {
			if ctx.Err() == nil {
				l.lost(gen, err)
			}
			continue
		}
		t.mu.Lock()
		if l.gen == gen { // else it was lost with its answer under way, and has to say it again
			ready = answer
			l.readyLocked(ready)
		}
		t.mu.Unlock()
	}
}

// readyLocked notes how the leaves of the hop stand at the end of the content.
func (l *leg) readyLocked(ready *protocol.Ready) {
	l.ready = true
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

// commit lets the leaves behind this hop publish and notes their receipts. A
// hop that was lost since it was ready is waited for.
func (l *leg) commit(ctx context.Context, f *protocol.Finish) {
	t := l.spread
	t.mu.Lock()
	for l.aliveLocked() && !l.ready {
		t.mu.Unlock()
		l.finish(ctx, f)
		t.mu.Lock()
		if ctx.Err() != nil {
			break
		}
	}
	l.committing = true // what is lost from here on is for the receipts to tell
	sender, alive := l.sender, l.aliveLocked()
	t.mu.Unlock()
	if !alive || sender == nil {
		return
	}
	receipts, err := sender.Commit(ctx)
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
