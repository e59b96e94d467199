// Busy: how much of its time a transfer spends storing, which is what tells a
// slow store from a slow connection.

package sink

import (
	"math"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// tellSlowEvery is how often a transfer says how long it has been storing,
// while a single Write does not return.
const tellSlowEvery = 500 * time.Millisecond

// newSlow returns a timer that is not running.
func newSlow(f func()) *time.Timer {
	t := time.AfterFunc(time.Hour, f)
	t.Stop()
	return t
}

// storingLocked notes whether content is being stored from now on, or waited for.
func (t *transfer) storingLocked(busy bool) {
	t.busy = busy
	switch {
	case busy:
		t.clock.Enter(protocol.StageSink)
		t.slow.Reset(tellSlowEvery)
	case t.ended:
		t.clock.Enter(protocol.StageNone)
		t.slow.Stop()
	default:
		t.clock.Enter(protocol.StageContent)
		t.slow.Stop()
	}
}

// busyFor is how long the transfer has been storing, in tenths of a second: as
// often as that is told.
func (t *transfer) busyFor() float64 { return math.Floor(t.clock.Spent().Sink*10) / 10 }

// tellSlow says how long the store has been busy, in a Write that takes its time.
func (t *transfer) tellSlow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy { // under mu: what comes later must not be told before
		t.up.Progress(protocol.Leaf{State: protocol.LeafReceiving, Offset: t.stored.Load(), Busy: t.busyFor()})
		t.slow.Reset(tellSlowEvery)
	}
}

// Describe implements protocol.Describer.
func (t *transfer) Describe(st *protocol.TransferStatus) {
	st.Spent = t.clock.Spent().Round()
	st.Bottleneck, st.Held = bottleneck(st.Spent)
}

// little is what nobody has to be told the reason of, in seconds.
const little = 0.5

// bottleneck is what most of the time went into.
func bottleneck(s protocol.Spent) (name string, most float64) {
	most = little
	for _, of := range []struct {
		name    string
		seconds float64
	}{{"sender", s.Content}, {"sink", s.Sink}, {"sync", s.Sync}, {"publish", s.Publish}} {
		if of.seconds > most {
			name, most = of.name, of.seconds
		}
	}
	if name == "" {
		return "", 0
	}
	return name, most
}
