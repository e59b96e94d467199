// Answers: what a daemon says when it is asked what it is doing.

package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// tree is a sink that has daemons below it.
type tree interface {
	Status(ctx context.Context, hops int) []*protocol.Status
}

// statusTimeout bounds how long a daemon waits for those below it to answer a Query.
const statusTimeout = 5 * time.Second

// answer writes the status of this daemon and of all below it.
func (s *Server) answer(stream protocol.Stream, q *protocol.Query) error {
	all := []*protocol.Status{s.Status()}
	if t, ok := s.sink.(tree); ok && q.Hops > 1 {
		ctx, cancel := context.WithTimeout(s.ctx, statusTimeout)
		defer cancel()
		all = append(all, t.Status(ctx, q.Hops-1)...)
	}
	for _, st := range all {
		frame, err := appendStatus(st)
		if err != nil {
			return err
		}
		if _, err := stream.Write(frame); err != nil {
			return fmt.Errorf("answer a query: %w", err)
		}
	}
	return nil
}

// appendStatus makes a frame of st, of which it leaves out what does not fit:
// first the readers that lag least, then transfers.
func appendStatus(st *protocol.Status) ([]byte, error) {
	most := 0
	for i := range st.Transfers {
		most = max(most, len(st.Transfers[i].Readers))
	}
	fit := *st
	fit.Transfers = slices.Clone(st.Transfers)
	for {
		frame, err := protocol.AppendMessage(nil, &fit)
		if err == nil || len(fit.Transfers) == 0 {
			return frame, err
		}
		if most /= 2; most > 0 {
			for i := range fit.Transfers {
				t := &fit.Transfers[i]
				t.Readers = slices.Clone(t.Readers)
				heldLongest(t.Readers)
				t.Readers = t.Readers[:min(most, len(t.Readers))]
			}
			continue
		}
		fit.Transfers = fit.Transfers[:len(fit.Transfers)/2]
		for i := range fit.Transfers {
			fit.Transfers[i].Readers = nil
		}
	}
}

// maxListed bounds the transfers in one Status.
const maxListed = 100

// Status is what this daemon is doing.
func (s *Server) Status() *protocol.Status {
	s.mu.Lock()
	st := &protocol.Status{
		Agent: s.opts.Agent, Sink: s.opts.About, Sessions: len(s.sessions), Running: len(s.running),
		Uptime: time.Since(s.begun).Seconds(),
	}
	var listed []*protocol.Receiver
	for _, run := range s.running {
		if len(listed) == maxListed {
			break
		}
		listed = append(listed, run.receiver)
	}
	s.mu.Unlock()
	if s.budget != nil {
		st.Memory, st.MemoryMax = s.budget.Used(), s.budget.Size()
	}
	for _, r := range listed { // without mu: they ask their sinks
		st.Transfers = append(st.Transfers, r.Status())
	}
	slices.SortFunc(st.Transfers, func(a, b protocol.TransferStatus) int { // ids begin with the time
		return strings.Compare(a.ID, b.ID)
	})
	return st
}
