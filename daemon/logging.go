// Log lines about transfers: one for each event, and never one for each chunk.

package daemon

import (
	"log/slog"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// heldTell is for how long, in seconds, something has to hold a transfer up
// before the log says what it was.
const heldTell = 1

// logEnd says how a transfer ended: a line for each reader, or one when it was
// not published anywhere. Log has the transfer and its name already.
func logEnd(log *slog.Logger, st protocol.TransferStatus, receipts []protocol.Receipt, err error, took time.Duration) {
	log = log.With("took", took.Round(time.Millisecond))
	if st.Held >= heldTell {
		log = log.With("bottleneck", st.Bottleneck, "held", seconds(st.Held))
	}
	if err != nil {
		e := protocol.AsError(err)
		if e.Leaf != "" {
			log = log.With("reader", e.Leaf)
		}
		log.Warn("transfer failed", "bytes", st.Offset, "code", string(e.Code), "error", err)
		return
	}
	for i := range receipts {
		r := &receipts[i]
		log := log
		if r.Leaf != "" {
			log = log.With("reader", r.Leaf)
		}
		log = log.With("status", string(r.Status), "bytes", r.Bytes)
		if r.Status == protocol.LeafFailed {
			log.Warn("transfer ends", "code", string(r.Code), "error", r.Text)
			continue
		}
		log.Info("transfer ends", "location", r.Location)
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond)
}

// log is for what happens to a hop in the middle of a transfer.
func (l *leg) log() *slog.Logger {
	t := l.spread
	return t.fanout.opts.Log.With("transfer", t.offer.ID, "name", t.offer.Name, "reader", l.hop.name)
}
