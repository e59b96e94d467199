// Pace: how large the chunks are.

package client

import "time"

const (
	// The rate is looked at after paceEvery, the first time when paceEnough bytes
	// have been acknowledged. That takes 63 ms at 64 MiB/s, and 3 over loopback:
	// there a fifth of a push of 1 GiB would go in small chunks before the first
	// paceEvery is over. Later, acks that come together after a stall would pass
	// for a fast link.
	paceEvery  = 100 * time.Millisecond
	paceEnough = 4 << 20

	// paceFast is the rate, in bytes a second, from which on chunks are large:
	// a large one passes in 16 ms then, and its fixed costs, a quarter of
	// those of four, begin to count. Over loopback they are worth a tenth of
	// the throughput. On a slow link large chunks would only come late: every
	// hop passes a chunk on when it has all of it.
	paceFast = 64 << 20
)

// pace chooses the size of chunks by the rate at which they are acknowledged.
type pace struct {
	least, most int // the same when the user said so

	fast  bool
	known bool // there has been a look at the rate
	since time.Time
	acked int64 // at since
}

// newPace returns a pace for chunks of size, or for 0 one that finds out.
func newPace(size int) pace {
	if size > 0 {
		return pace{least: size, most: size}
	}
	return pace{least: DefaultChunkSize, most: LargeChunkSize}
}

// begin begins an attempt that takes chunks of limit bytes, from offset on.
func (p *pace) begin(limit int, offset int64) {
	p.least, p.most = min(p.least, limit), min(p.most, limit)
	p.fast, p.known, p.since, p.acked = false, false, time.Time{}, offset
}

// chunk is the size of the next chunk, when all before acked is acknowledged.
func (p *pace) chunk(now time.Time, acked int64) int {
	if p.since.IsZero() {
		p.since = now
	}
	took := now.Sub(p.since)
	enough := took >= paceEvery || !p.known && acked-p.acked >= paceEnough
	if p.most > p.least && enough {
		p.fast, p.known = float64(acked-p.acked) >= paceFast*took.Seconds(), true
		p.since, p.acked = now, acked
	}
	if p.fast {
		return p.most
	}
	return p.least
}
