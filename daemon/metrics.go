// Metrics: what a Server tells Prometheus. Most of it is read from what is
// there anyway when somebody asks, so that it costs a transfer nothing.

package daemon

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sbcast/sbcast/protocol"
)

// Label values are roles, codes, stages and the names of hops, which are all
// known from the start. File names, transfer ids and clients are for the log.
var (
	descRunning     = desc("transfers_running", "Transfers under way.")
	descReceived    = desc("received_bytes_total", "Content received, decoded.")
	descWire        = desc("received_wire_bytes_total", "The same as frames: with headers, and compressed where it was.")
	descUnacked     = desc("window_used_bytes", "Content received and not yet taken by the sink or by all readers.")
	descWindow      = desc("window_granted_bytes", "Most that this may be, of the transfers under way.")
	descMemory      = desc("memory_used_bytes", "Of --memory: given to transfers.")
	descMemoryLimit = desc("memory_limit_bytes", "Of --memory: all.")
	descSessions    = desc("sessions", "Connected peers.")
	descRefused     = desc("refused_total", "Connections, streams and transfers that were refused.", "what", "code")
	descSpent       = desc("stage_seconds_total", "Time that transfers spent in each stage, at a reader.", "stage")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sbcast_"+name, help, labels, nil)
}

// serverStats counts what passes through a Server.
type serverStats struct {
	leaf     bool                     // there is a store behind it
	ended    *prometheus.CounterVec   // transfers, by result and code
	duration *prometheus.HistogramVec // of them, by result

	mu    sync.Mutex
	live  map[*protocol.Receiver]struct{}
	done  protocol.Traffic // of transfers that have ended
	spent protocol.Spent   // the same
}

func newServerStats(sink protocol.Sink) *serverStats {
	_, above := sink.(tree)
	st := &serverStats{
		leaf: !above,
		live: map[*protocol.Receiver]struct{}{},
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sbcast_transfers_total", Help: "Transfers that have ended. An attempt that is followed by another counts too.",
		}, []string{"result", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sbcast_transfer_seconds", Help: "How long transfers took.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 10),
		}, []string{"result"}),
	}
	st.ended.WithLabelValues("published", "") // there from the start, so that a first one is an increase
	return st
}

// begin counts r until the returned function is called.
func (st *serverStats) begin(r *protocol.Receiver) (end func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.live[r] = struct{}{}
	return func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		delete(st.live, r)
		st.done, st.spent = st.done.Add(r.Use().Traffic), st.spent.Add(st.spentBy(r))
	}
}

// spentBy is where the time of a transfer at a leaf went. A broadcaster tells
// that of each reader.
func (st *serverStats) spentBy(r *protocol.Receiver) (s protocol.Spent) {
	if st.leaf {
		s = r.Status().Spent
	}
	return s
}

// outcome counts how a transfer ended: published by all, by some (partial), or
// by none.
func (st *serverStats) outcome(receipts []protocol.Receipt, err error, took time.Duration) {
	result, code := "published", protocol.Code("")
	failed := 0
	for i := range receipts {
		if receipts[i].Status == protocol.LeafFailed {
			failed++
			code = receipts[i].Code
		}
	}
	switch {
	case err != nil:
		result, code = "failed", protocol.AsError(err).Code
	case failed > 0 && failed == len(receipts):
		result = "failed"
	case failed > 0:
		result = "partial"
	}
	st.ended.WithLabelValues(result, codeLabel(code)).Inc()
	st.duration.WithLabelValues(result).Observe(took.Seconds())
}

// sums are what all transfers come to.
func (st *serverStats) sums() (running int, all protocol.Use, spent protocol.Spent) {
	st.mu.Lock()
	defer st.mu.Unlock()
	all.Traffic, spent = st.done, st.spent
	for r := range st.live {
		u := r.Use()
		all.Traffic = all.Traffic.Add(u.Traffic)
		all.Owed += u.Owed
		all.Window += u.Window
		spent = spent.Add(st.spentBy(r))
	}
	return len(st.live), all, spent
}

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descRunning, descReceived, descWire, descUnacked, descWindow, descMemory, descMemoryLimit, descSessions, descRefused, descSpent,
	} {
		ch <- d
	}
	s.stats.ended.Describe(ch)
	s.stats.duration.Describe(ch)
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	sessions := len(s.sessions)
	s.mu.Unlock()
	running, all, spent := s.stats.sums()
	gauge(ch, descRunning, float64(running))
	gauge(ch, descSessions, float64(sessions))
	gauge(ch, descUnacked, float64(all.Owed))
	gauge(ch, descWindow, float64(all.Window))
	counter(ch, descReceived, float64(all.Content))
	counter(ch, descWire, float64(all.Wire))
	if s.budget != nil {
		gauge(ch, descMemory, float64(s.budget.Used()))
		gauge(ch, descMemoryLimit, float64(s.budget.Size()))
	}
	if s.stats.leaf {
		spent.Each(func(stage string, seconds float64) {
			if stage != "link" && stage != "credit" { // a reader has none
				counter(ch, descSpent, seconds, stage)
			}
		})
	}
	s.refused.mu.Lock()
	for of, n := range s.refused.counts {
		counter(ch, descRefused, float64(n), of.what, of.code)
	}
	s.refused.mu.Unlock()
	s.stats.ended.Collect(ch)
	s.stats.duration.Collect(ch)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}
