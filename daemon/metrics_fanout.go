// Metrics of a broadcaster's readers.

package daemon

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sbcast/sbcast/protocol"
)

var (
	descReaderUp       = desc("reader_up", "1 while there is a connection to the reader.", "reader")
	descReaderSent     = desc("reader_sent_bytes_total", "Content sent to the reader, decoded.", "reader")
	descReaderWire     = desc("reader_sent_wire_bytes_total", "The same as frames.", "reader")
	descReaderReceipts = desc("reader_receipts_total", "Receipts of the reader, or of all readers behind it.", "reader", "status")
	descReaderLag      = desc("reader_lag_bytes", "Content received and not taken by the reader, in the transfer where that is most.", "reader")
	descReaderSpent    = desc("reader_seconds_total", "Time that transfers to the reader spent in each stage.", "reader", "stage")
	descReaderLost     = desc("reader_lost_total", "Connections lost in the middle of a transfer, and dialled again.", "reader")
	descReaderParked   = desc("reader_parked_total", "Transfers in which the reader was left to be fed after the others.", "reader")
	descReaderFailed   = desc("reader_failures_total", "Transfers in which the reader has failed.", "reader")
)

// Describe implements prometheus.Collector.
func (f *Fanout) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descReaderUp, descReaderSent, descReaderWire, descReaderReceipts, descReaderLag, descReaderSpent,
		descReaderLost, descReaderParked, descReaderFailed,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (f *Fanout) Collect(ch chan<- prometheus.Metric) {
	lag := f.lags()
	for _, h := range f.hops {
		traffic, spent := h.stats.sums()
		counter(ch, descReaderSent, float64(traffic.Content), h.name)
		counter(ch, descReaderWire, float64(traffic.Wire), h.name)
		spent.Each(func(stage string, seconds float64) {
			if stage != "sink" { // the reader's own to tell
				counter(ch, descReaderSpent, seconds, h.name, stage)
			}
		})
		gauge(ch, descReaderLag, float64(lag[h]), h.name)
		h.stats.count(func(st *hopStats) {
			up := 0.0
			if st.up {
				up = 1
			}
			gauge(ch, descReaderUp, up, h.name)
			counter(ch, descReaderLost, float64(st.lost), h.name)
			counter(ch, descReaderParked, float64(st.parked), h.name)
			counter(ch, descReaderFailed, float64(st.failed), h.name)
			for _, s := range []protocol.LeafState{protocol.LeafPublished, protocol.LeafUnchanged, protocol.LeafFailed} {
				counter(ch, descReaderReceipts, float64(st.receipts[s]), h.name, string(s))
			}
		})
	}
}

// lags is how far behind each hop is, in the transfer where that is most.
func (f *Fanout) lags() map[*Hop]int64 {
	f.mu.Lock()
	all := slices.Collect(maps.Keys(f.running))
	f.mu.Unlock()
	lags := map[*Hop]int64{}
	for _, t := range all {
		t.mu.Lock()
		for _, l := range t.legs {
			if l != nil {
				lags[l.hop] = max(lags[l.hop], l.lagLocked())
			}
		}
		t.mu.Unlock()
	}
	return lags
}
