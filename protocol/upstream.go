// Upstream: how what is behind a Receiver talks back to the sender.

package protocol

import "time"

// ackEvery is the longest that an ack is held back.
const ackEvery = 250 * time.Millisecond

// Window implements Upstream.
func (r *Receiver) Window() int64 { return r.window }

// Room implements Upstream.
func (r *Receiver) Room() Room {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.credit == nil {
		return Room{}
	}
	return r.credit.room
}

// Ack implements Upstream. Acks are told when a sixteenth of the window has
// come together, when nothing more is on its way, and now and then, so that a
// slow sink is not taken for one that has stalled.
func (r *Receiver) Ack(offset int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if offset <= r.acked || r.phase == PhaseOpening {
		return
	}
	r.acked = offset
	i := 0
	for i < len(r.ends) && r.ends[i] <= offset {
		i++
	}
	r.ends = r.ends[:copy(r.ends, r.ends[i:])]
	window := r.accept.Window
	if r.credit != nil {
		window = r.credit.room.Window
	}
	if offset-r.told >= window/16 || offset == r.received || time.Since(r.toldAt) >= ackEvery {
		r.told, r.toldAt = offset, time.Now()
		if r.credit != nil {
			r.credit.ack(offset)
			r.out.setLimit(r.credit.limit)
		}
		r.out.setAck(offset)
	}
}

// Progress implements Upstream.
func (r *Receiver) Progress(leaves ...Leaf) { r.out.setProgress(clipLeaves(leaves)) }

// Fail implements Upstream.
func (r *Receiver) Fail(err error) { r.cancel(err) }
