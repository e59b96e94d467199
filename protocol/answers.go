// Answers: what a Sender hears from its receiver.

package protocol

import (
	"errors"
	"fmt"
	"io"
	"time"
)

func (s *Sender) readLoop() {
	frames := NewFrameReader(s.stream)
	frames.LimitChunks(0)
	err := frames.Each(s.handle)
	if errors.Is(err, io.EOF) {
		if s.complete() {
			return // hung up after its last word, as it should
		}
		err = Errorf(CodeUnreachable, "the receiver went away without an answer")
	}
	s.fail(err)
}

func (s *Sender) handle(f Frame) error {
	s.pulse.beat()
	switch f.Kind {
	case 0:
		return nil
	case KindAck:
		offset, err := ParseAck(f.Payload)
		if err != nil {
			return err
		}
		if !s.acceptd {
			return Errorf(CodeProtocol, "ack before accept")
		}
		if most := max(s.start, s.out.sent()); offset > most {
			return Errorf(CodeProtocol, "ack of offset %d when only %d bytes were sent", offset, most)
		}
		if err := s.win.ack(offset); err != nil {
			return err
		}
		s.clock.wait(s.idle())
		if s.cfg.OnAck != nil {
			s.cfg.OnAck(offset)
		}
		return nil
	case KindLimit:
		// It holds the writer up and nobody else: a broadcaster's queue is
		// bounded by what its own sender may send.
		offset, err := ParseLimit(f.Payload)
		if err == nil {
			s.out.setMost(offset)
		}
		return err
	case KindPing:
		s.out.sendPong()
		return nil
	case KindPong:
		return nil
	case KindChunk:
		f.Chunk.Release()
		return Errorf(CodeProtocol, "chunk from a receiver")
	case KindAccept, KindReject, KindProgress, KindReady, KindReceipt, KindLeaves:
		m, err := ParseMessage(f.Kind, f.Payload)
		if err != nil {
			return err
		}
		return s.message(m)
	default:
		return Errorf(CodeProtocol, "%s from a receiver", f.Kind)
	}
}

func (s *Sender) message(m Message) error {
	switch m := m.(type) {
	case *Leaves:
		return s.pages.add(m)
	case *Accept:
		m.Leaves = s.pages.complete(m.Leaves)
		return s.accept(m)
	case *Reject:
		m.Leaves = s.pages.complete(m.Leaves)
		return m.asError()
	case *Progress:
		if err := s.roll.note(m.Leaves); err != nil {
			return err
		}
		s.heard(m.Leaves)
		if s.cfg.OnProgress != nil {
			s.cfg.OnProgress(m.Leaves)
		}
		return nil
	case *Ready:
		m.Leaves = s.pages.complete(m.Leaves)
		select {
		case s.ready <- m:
			return nil
		default:
			return Errorf(CodeProtocol, "ready twice")
		}
	case *Receipt:
		return s.receipt(m)
	}
	panic(fmt.Sprintf("protocol: unhandled %T", m))
}

func (s *Sender) accept(a *Accept) error {
	if s.acceptd {
		return Errorf(CodeProtocol, "accept twice")
	}
	s.acceptd = true
	got := make(map[string]*Receipt, len(a.Leaves))
	for _, l := range a.Leaves {
		if _, twice := got[l.Name]; twice {
			return Errorf(CodeProtocol, "two leaves are called %q", l.Name)
		}
		got[l.Name] = nil
	}
	s.mu.Lock()
	if s.size >= 0 && a.Offset > s.size {
		defer s.mu.Unlock()
		return Errorf(CodeProtocol, "accepted from byte %d on, of %d", a.Offset, s.size)
	}
	s.start, s.names, s.got, s.missing = a.Offset, a.Leaves, got, len(got)
	s.win = newWindow(a.Window, a.Offset)
	s.phase = StageContent
	switch c := s.early; {
	case c == nil:
	case c.End() > a.Offset:
		s.win.sent(c)
		s.start = c.End()
	default: // the receiver has it
		c.Release()
	}
	s.early = nil
	if s.cfg.Stall > 0 {
		s.stall = time.AfterFunc(s.cfg.Stall/4, s.checkStall)
	}
	s.mu.Unlock()
	s.clock.wait(s.idle())
	if s.cfg.OnAccept != nil {
		s.cfg.OnAccept(a)
	}
	s.accepted <- a
	return nil
}

// receipt notes a leaf's final word; the last one completes the Commit.
func (s *Sender) receipt(r *Receipt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, known := s.got[r.Leaf]; !known || before != nil {
		return Errorf(CodeProtocol, "unexpected receipt of leaf %q", r.Leaf)
	}
	if s.told += leafSize + len(r.Leaf) + len(r.Text) + len(r.Location) + len(r.Code); s.told > maxHeld {
		return Errorf(CodeProtocol, "receipts of more than %d bytes", maxHeld)
	}
	s.got[r.Leaf] = r
	if s.missing--; s.missing == 0 {
		close(s.receipts)
	}
	return nil
}

// complete reports whether all receipts have come.
func (s *Sender) complete() bool {
	select {
	case <-s.receipts:
		return true
	default:
		return false
	}
}
