// Answers: what a daemon says when it is asked what it is doing.

package daemon

import (
	"context"
	"fmt"
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
		frame, err := protocol.AppendMessage(nil, st)
		if err != nil {
			return err
		}
		if _, err := stream.Write(frame); err != nil {
			return fmt.Errorf("answer a query: %w", err)
		}
	}
	return nil
}

// maxListed bounds the transfers in one Status, so that it fits into a frame.
const maxListed = 100

// Status is what this daemon is doing.
func (s *Server) Status() *protocol.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &protocol.Status{
		Agent: s.opts.Agent, Sink: s.opts.About, Sessions: len(s.sessions),
		Uptime: time.Since(s.begun).Seconds(),
	}
	if s.budget != nil {
		st.Memory, st.MemoryMax = s.budget.Used(), s.budget.Size()
	}
	for _, run := range s.running {
		if len(st.Transfers) == maxListed {
			break
		}
		st.Transfers = append(st.Transfers, run.receiver.Status())
	}
	return st
}
