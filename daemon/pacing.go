// Pacing: how far a transfer is, and what is kept of it, when each of its hops
// is somewhere else.

package daemon

import "github.com/sbcast/sbcast/protocol"

// keptBehind is how much of what everybody has taken all transfers together
// keep, for hops that come back without it: each a quarter of its window, 2 MiB
// by default, as long as there are no more than 32 of them. With a quarter
// each, 1,000 pushes of 1 MiB at once took 1.2 GiB, and a third of the
// broadcaster's CPU time went into pages that the kernel had to clear for it.
const keptBehind = 64 << 20

// roomLocked is what the transfer may hold: a window, and a quarter of one for
// hops that come back with less than they had acknowledged.
func (t *spread) roomLocked() protocol.Room {
	if room := t.up.Room(); room.Capped {
		return room
	}
	return protocol.Room{Window: t.window, Tail: t.window / 4}
}

// movedLocked notes that leg l has taken more than before. Only the last one
// to get beyond what is acknowledged changes that, so that a thousand hops
// cost a thousand steps a round and not a million.
func (t *spread) movedLocked(l *leg, before int64) {
	if !t.settled || before > t.acked || l.acked <= t.acked || !l.pacesLocked() {
		return
	}
	if t.behind--; t.behind <= 0 {
		t.paceLocked()
	}
}

// paceLocked finds out what every leg that paces the transfer has taken, tells
// upstream when that has moved, and lets go of what nobody needs any more.
func (t *spread) paceLocked() {
	if !t.settled {
		return
	}
	lowest, paced := t.received, false // a leg that had it all from the start is ahead of what came
	for _, l := range t.legs {
		if l.pacesLocked() {
			lowest, paced = min(lowest, l.acked), true
		}
	}
	if paced && lowest > t.acked {
		t.acked = lowest
		t.up.Ack(lowest)
	}
	t.behind = 0
	paces := t.acked
	room := t.roomLocked() // with what upstream made of the ack
	needed := t.acked
	for _, l := range t.legs {
		switch {
		case l.pacesLocked():
			if l.acked <= t.acked {
				t.behind++
			}
			needed, paces = min(needed, l.acked), min(paces, l.acked)
		case l.away != nil && !room.Capped: // not waited for: what comes may push out what it needs
			needed = min(needed, max(l.acked, t.received-t.window))
		}
	}
	t.kept.drop(needed - min(room.Tail, keptBehind/max(1, t.fanout.live.Load())))
	t.kept.limit(protocol.MaxInflight(room.Window+room.Tail)+1, paces)
}
