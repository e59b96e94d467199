// Streams: what the first frame of each says it is for, and transfers, one at a
// time for each id.

package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// running is a transfer under way, so that a later attempt can replace it.
type running struct {
	peer     string // that it counts for
	receiver *protocol.Receiver
	cancel   context.CancelCauseFunc
	done     chan struct{}
}

// serveStream looks at the first frame of a stream, which says what it is for.
func (s *Server) serveStream(stream protocol.Stream, peer string, client protocol.Peer, log *slog.Logger) {
	defer stream.Close()
	frames := protocol.NewFrameReader(stream)
	frames.LimitChunks(0)
	hurry := time.AfterFunc(protocol.HelloTimeout, func() { stream.Close() })
	f, err := frames.Next()
	if !hurry.Stop() || errors.Is(err, io.EOF) {
		return
	}
	var m protocol.Message
	if err == nil {
		m, err = firstMessage(f)
	}
	switch m := m.(type) {
	case *protocol.Offer:
		if err = client.May(protocol.ScopePush); err == nil {
			s.receive(stream, frames, m, peer, log)
		}
	case *protocol.Query:
		if err = client.May(protocol.ScopeStatus); err == nil {
			err = s.answer(stream, m)
		}
	}
	if err != nil {
		s.refuse(log, "stream", err)
		protocol.WriteReject(stream, err)
	}
}

func firstMessage(f protocol.Frame) (protocol.Message, error) {
	if f.Kind == protocol.KindOffer || f.Kind == protocol.KindQuery {
		return protocol.ParseMessage(f.Kind, f.Payload)
	}
	if f.Chunk != nil {
		f.Chunk.Release()
	}
	return nil, protocol.Errorf(protocol.CodeProtocol, "a stream begins with an offer or a query, not with %s", f.Kind)
}

// receive runs a transfer, after an earlier attempt of the same has ended.
func (s *Server) receive(stream protocol.Stream, frames *protocol.FrameReader, offer *protocol.Offer, peer string, log *slog.Logger) {
	r := protocol.NewReceiver(stream, frames, offer, s.rules.of(peer, s.sink), s.opts.Window).Within(s.budget)
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	run := &running{peer: peer, receiver: r, cancel: cancel, done: make(chan struct{})}
	defer close(run.done)
	old, err := s.register(offer, run)
	if err != nil {
		s.refuse(log.With("transfer", offer.ID, "name", offer.Name), "transfer", err)
		protocol.WriteReject(stream, err)
		return
	}
	defer s.unregister(offer.ID, run)
	if old != nil {
		old.cancel(protocol.Errorf(protocol.CodeSuperseded, "attempt %d of the same transfer took over", offer.Attempt))
		<-old.done
	}

	log = log.With("transfer", offer.ID, "name", offer.Name)
	log.Info("transfer begins", "size", offer.Size, "policy", offer.Policy.String(), "attempt", offer.Attempt)
	begun := time.Now()
	end := s.stats.begin(r)
	receipts, err := r.Run(ctx)
	end()
	took := time.Since(begun)
	s.stats.outcome(receipts, err, took)
	logEnd(log, r.Status(), receipts, err, took)
	if s.opts.OnTransfer != nil {
		s.opts.OnTransfer(receipts, err)
	}
}

// register makes run the one transfer of its id. It returns the attempt that
// run replaces, if there is one.
func (s *Server) register(offer *protocol.Offer, run *running) (old *running, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, errShutdown
	}
	old = s.running[offer.ID]
	if old != nil {
		before := old.receiver.Offer()
		switch {
		case offer.Attempt == before.Attempt && offer.Hops < before.Hops:
			return nil, protocol.Errorf(protocol.CodeLoop, "this push is here already: do broadcasters feed each other?")
		case !offer.Supersedes(before):
			return nil, protocol.Errorf(protocol.CodeSuperseded, "attempt %d of the transfer (redials %d) came after attempt %d (redials %d)", offer.Attempt, offer.Redials, before.Attempt, before.Redials)
		}
	}
	if old != nil { // makes way
		s.limits.transfers.give(old.peer)
	}
	if err := s.limits.transfers.take(run.peer); err != nil {
		if old != nil {
			_ = s.limits.transfers.take(old.peer) // what it has just given
		}
		return nil, err
	}
	s.running[offer.ID] = run
	s.transfers.Add(1)
	return old, nil
}

func (s *Server) unregister(id string, run *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[id] == run {
		delete(s.running, id)
		s.limits.transfers.give(run.peer)
	}
	s.transfers.Done()
}
