// Bottlenecks: which reader holds a transfer up, and what its time goes into.

package daemon

import (
	"slices"
	"strings"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// little is what nobody has to be told the reason of, in seconds.
const little = 0.5

// account is where the time of a transfer over one hop went.
type account struct {
	spent protocol.Spent
	busy  float64 // of spent, seconds that the reader says it was storing
	short bool    // the window is too small for the connection: it is full on its way
}

// held is for how many seconds the hop kept others waiting, and what for.
//
// A full window alone does not tell a slow store from a slow connection, but
// the reader knows how long it has been storing: for the rest of the time
// content was on its way.
func (a account) held() (what string, seconds, total float64) {
	stored := min(a.busy, a.spent.Credit)
	way := a.spent.Link + a.spent.Credit - stored
	on := "link"
	if a.short && a.spent.Credit-stored > a.spent.Link {
		on = "window"
	}
	what, seconds = "sink", stored
	for _, of := range []struct {
		what    string
		seconds float64
	}{{on, way}, {"sync", a.spent.Sync}, {"publish", a.spent.Publish}} {
		if of.seconds > seconds {
			what, seconds = of.what, of.seconds
		}
	}
	return what, seconds, stored + way + a.spent.Sync + a.spent.Publish
}

// accountLocked adds up what the leg's senders tell.
func (l *leg) accountLocked() account {
	a := account{spent: l.spent, busy: l.busy + l.busyLocked()}
	if !l.downSince.IsZero() {
		a.spent.Link += time.Since(l.downSince).Seconds()
	}
	if l.sender != nil {
		p := l.sender.Pace()
		a.spent = a.spent.Add(p.Spent)
		a.short = p.Window > 0 && l.rateLocked()*p.Round.Seconds() > float64(p.Window)/2
	}
	return a
}

// busyLocked is how long the slowest leaf behind the hop has been storing.
func (l *leg) busyLocked() (most float64) {
	for i := range l.leaves {
		most = max(most, l.leaves[i].Busy)
	}
	return most
}

// rateLocked is how fast the hop took content, in bytes a second.
func (l *leg) rateLocked() float64 {
	if l.opened.IsZero() {
		return 0
	}
	return protocol.Rate(l.acked-l.start, time.Since(l.opened))
}

// downLocked notes that the leg's sender is one no more.
func (l *leg) downLocked() {
	if l.sender != nil {
		l.spent = l.spent.Add(l.sender.Pace().Spent)
		l.busy += l.busyLocked()
		for i := range l.leaves {
			l.leaves[i].Busy = 0
		}
	}
	l.sender, l.downSince = nil, time.Now()
}

// upLocked notes the leg's sender, and what it was accepted with.
func (l *leg) upLocked(s *protocol.Sender, a *protocol.Accept) {
	if !l.downSince.IsZero() {
		l.spent.Link += time.Since(l.downSince).Seconds()
		l.downSince = time.Time{}
	}
	if l.opened.IsZero() {
		l.opened, l.start = time.Now(), a.Offset
	}
	l.sender, l.accept, l.acked = s, a, a.Offset
	l.leaves, l.index = l.hop.leaves(a.Leaves), nil
}

// Describe implements protocol.Describer.
func (t *spread) Describe(st *protocol.TransferStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	worst := -1.0
	for _, l := range t.legs {
		a := l.accountLocked()
		what, seconds, total := a.held()
		h := protocol.HopStatus{
			Reader: l.hop.name, State: l.stateLocked(), Offset: l.acked, Lag: l.lagLocked(), Rate: l.rateLocked(),
			Spent: a.spent.Round(), Busy: protocol.Spent{Sink: a.busy}.Round().Sink, Text: l.textLocked(),
		}
		if total > a.spent.Content && seconds > little {
			h.Bottleneck = what
		}
		st.Readers = append(st.Readers, h)
		if total <= worst || l.opened.IsZero() {
			continue
		}
		worst = total
		st.Bottleneck, st.Held = "", 0
		switch {
		case h.Bottleneck != "":
			st.Bottleneck, st.Held = h.Bottleneck+preposition(what)+l.hop.name, seconds
		case a.spent.Content > little:
			st.Bottleneck, st.Held = "sender", a.spent.Content
		}
	}
}

// preposition makes words of a bottleneck: "link to oslo", "sink of oslo".
func preposition(what string) string {
	if what == "link" || what == "window" {
		return " to "
	}
	return " of "
}

// lagLocked is how much content the hop has not taken of what has come.
func (l *leg) lagLocked() int64 {
	if !l.aliveLocked() {
		return 0
	}
	return max(0, l.spread.received-l.acked)
}

func (l *leg) stateLocked() protocol.LeafState {
	switch {
	case l.err != nil:
		return protocol.LeafFailed
	case l.away != nil || len(l.leaves) == 0:
		return protocol.LeafWaiting
	default: // the one that is furthest behind
		return slices.MinFunc(l.leaves, func(a, b protocol.Leaf) int { return int(a.Offset - b.Offset) }).State
	}
}

func (l *leg) textLocked() string {
	if l.err != nil {
		return l.err.Text
	}
	for _, leaf := range l.leaves {
		if leaf.Text != "" {
			return leaf.Text
		}
	}
	return ""
}

// heldLongest sorts hops by how much they matter to somebody who asks why it
// is slow.
func heldLongest(hops []protocol.HopStatus) {
	slices.SortStableFunc(hops, func(a, b protocol.HopStatus) int {
		if a.Lag != b.Lag {
			return int(b.Lag - a.Lag)
		}
		return strings.Compare(a.Reader, b.Reader)
	})
}
