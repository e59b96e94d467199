// Refusals: peers that were turned away, counted and logged.

package daemon

import (
	"log/slog"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// warnEvery is the shortest time between two lines about refused peers, so
// that a flood of them does not become one of the log.
const warnEvery = time.Second

// refusals are those of one Server.
type refusals struct {
	mu         sync.Mutex
	counts     map[refusal]int
	last       time.Time // line
	suppressed int       // since then
}

type refusal struct{ what, code string }

// count counts a refusal and reports whether it is to be logged, with how many
// before it were not.
func (r *refusals) count(what string, code protocol.Code, now time.Time) (tell bool, suppressed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[refusal]int{}
	}
	r.counts[refusal{what, codeLabel(code)}]++
	if !r.last.IsZero() && now.Sub(r.last) < warnEvery {
		r.suppressed++
		return false, 0
	}
	r.last, suppressed, r.suppressed = now, r.suppressed, 0
	return true, suppressed
}

// refuse notes that what, a connection, a stream or a transfer, was refused
// because of err. At most one line a second is logged.
func (s *Server) refuse(log *slog.Logger, what string, err error) {
	code := protocol.AsError(err).Code
	tell, suppressed := s.refused.count(what, code, time.Now())
	if !tell {
		return
	}
	args := []any{"code", string(code), "error", err}
	if suppressed > 0 {
		args = append(args, "not_logged", suppressed)
	}
	log.Warn(what+" refused", args...)
}

// codeLabel is code as the value of a label: peers can make up codes, and a
// label must not have any number of values.
func codeLabel(code protocol.Code) string {
	if code == "" || code.Known() {
		return string(code)
	}
	return "other"
}
