// Lag: who paces whom. The slowest hop paces the transfer, and the user is
// told which one that is; where the policy can do without, it is parked.

package daemon

import (
	"maps"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sbcast/sbcast/protocol"
)

// holdTell is how long a hop holds the others up before that is told.
const holdTell = time.Second

const holdText = "the others wait for it"

// watch looks now and then at who holds whom up, in all transfers, as long as
// there are any. It is one goroutine for all of them: with a ticker each, 1,000
// pushes that waited for their content woke the broadcaster 2,000 times a second.
func (f *Fanout) watch() {
	tick := time.NewTicker(min(f.opts.Lag/8, holdTell/2))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-f.closed:
			return
		}
		f.mu.Lock()
		all := slices.Collect(maps.Keys(f.running))
		f.watched = len(all) > 0
		f.mu.Unlock()
		if len(all) == 0 {
			return
		}
		for _, t := range all {
			for _, l := range t.laggards() {
				l.fail(protocol.Errorf(protocol.CodeParked, "parked at %s: it held the others up for %v and is fed after them",
					humanize.IBytes(uint64(l.at())), t.lag))
			}
		}
	}
}

// laggards notes who holds the others up, tells those who have for a second,
// and returns those that have for too long and that the policy can do without.
//
// A hop holds the others up when it has the window full, more than half of it
// unacknowledged, while another has taken nearly all that has come. A hop that
// had everything from the start waits for nobody.
func (t *spread) laggards() (park []*leg) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.settled {
		return nil
	}
	now := time.Now()
	ahead := false
	left := 0 // leaves that would remain
	window := t.roomLocked().Window
	for _, l := range t.legs {
		if l.pacesLocked() && l.acked >= t.received-window/8 && l.accept.Offset < t.received {
			ahead = true
		}
	}
	for _, l := range t.legs {
		if !l.pacesLocked() {
			continue
		}
		holds := ahead && t.received-l.acked > window/2
		switch {
		case !holds && !l.holds.IsZero():
			l.holds = time.Time{}
			l.sayLocked("")
		case holds && l.holds.IsZero():
			l.holds = now
		case holds && now.Sub(l.holds) >= holdTell:
			l.sayLocked(holdText)
		}
		if l.holds.IsZero() || now.Sub(l.holds) < t.lag {
			left += len(l.leaves)
		} else {
			park = append(park, l)
		}
	}
	total := 0
	for _, l := range t.legs {
		total += len(l.leaves)
	}
	if t.strict || left < t.policy.Needs(total) {
		return nil
	}
	return park
}

// sayLocked sets what is said of the leaves behind a hop.
func (l *leg) sayLocked(text string) {
	for i := range l.leaves {
		if leaf := &l.leaves[i]; leaf.State == protocol.LeafReceiving && leaf.Text != text {
			leaf.Text = text
			l.spread.up.Progress(*leaf)
		}
	}
}

// at is how much the hop has taken.
func (l *leg) at() int64 {
	l.spread.mu.Lock()
	defer l.spread.mu.Unlock()
	return l.acked
}
