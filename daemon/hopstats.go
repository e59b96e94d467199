// What is counted of each hop, for as long as the daemon runs.

package daemon

import (
	"sync"

	"github.com/sbcast/sbcast/protocol"
)

// hopStats counts what passes over one hop. Content is counted by its Senders
// anyway; here they are asked, so that a chunk costs nothing more.
type hopStats struct {
	mu       sync.Mutex
	live     map[*protocol.Sender]struct{}
	traffic  protocol.Traffic // of senders that have ended
	spent    protocol.Spent   // the same
	receipts map[protocol.LeafState]int
	lost     int // connections, in the middle of a transfer
	parked   int // transfers
	failed   int // transfers, parked ones apart
	up       bool
}

func (h *hopStats) begin(s *protocol.Sender) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		h.live = map[*protocol.Sender]struct{}{}
	}
	h.live[s] = struct{}{}
}

// end counts what s came to. Nothing is written by it any more.
func (h *hopStats) end(s *protocol.Sender) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.live[s]; !ok {
		return
	}
	delete(h.live, s)
	p := s.Pace()
	h.traffic, h.spent = h.traffic.Add(p.Traffic), h.spent.Add(p.Spent)
}

// sums are all of it, with senders that have not ended.
func (h *hopStats) sums() (protocol.Traffic, protocol.Spent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	traffic, spent := h.traffic, h.spent
	for s := range h.live {
		p := s.Pace()
		traffic, spent = traffic.Add(p.Traffic), spent.Add(p.Spent)
	}
	return traffic, spent
}

func (h *hopStats) count(f func(h *hopStats)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

func (h *hopStats) receipt(s protocol.LeafState) {
	h.count(func(h *hopStats) {
		if h.receipts == nil {
			h.receipts = map[protocol.LeafState]int{}
		}
		h.receipts[s]++
	})
}
