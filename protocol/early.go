// Early content: a small file goes right behind its offer, all of it and
// Finish too, and the receiver keeps it until it has accepted. A push of a
// small file is a round trip shorter by that.

package protocol

import "context"

// MaxEarly is how much content may come right behind an Offer, before it is
// accepted, in one chunk: as much as is a chunk in the smallest window, and
// about what a fresh connection has under way before its first ack.
const MaxEarly = minWindow / 4

// OfferWhole makes the offer with all of the content and Finish right behind
// it, without waiting for the answer, which saves a round trip. C, whose
// reference it takes, has MaxEarly bytes at most, and is nil for an empty file.
// A Finish that follows only waits.
func (s *Sender) OfferWhole(ctx context.Context, o *Offer, c *Chunk, f *Finish) (*Accept, error) {
	frames, err := AppendMessage(nil, o)
	if err != nil {
		return nil, err
	}
	if c != nil {
		if c.Offset != 0 || c.RawLen > MaxEarly {
			panic("protocol: not a small file")
		}
		frames = append(frames, c.Frame()...)
	}
	finish, err := AppendMessage(nil, f)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.early, s.whole, s.size = c, true, o.Size
	err = s.err
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s.out.push(append(frames, finish...))
	return s.awaitAccept(ctx)
}

// begin accepts, and hands over what came before that.
func (r *Receiver) begin(ctx context.Context, t Transfer, a *Accept) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	frame, err := r.openLocked(t, a)
	if err == nil {
		err = ctx.Err()
	}
	var early *Chunk
	if err == nil {
		early, err = r.openEarlyLocked() // in the same breath: a Finish may be coming
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	r.out.pushState(frame)
	if early == nil {
		return nil
	}
	defer early.Release()
	return t.Write(early)
}

// openEarlyLocked admits what came before Accept. It returns the chunk, when
// it is news to the sink.
func (r *Receiver) openEarlyLocked() (*Chunk, error) {
	c := r.early
	r.early = nil
	if c != nil && c.End() <= r.received {
		c.Release()
		c = nil
	}
	if c != nil {
		if err := r.admitLocked(c); err != nil {
			c.Release()
			return nil, err
		}
	}
	if r.earlyFinish != nil {
		if err := r.finishLocked(r.earlyFinish); err != nil {
			if c != nil {
				c.Release()
			}
			return nil, err
		}
	}
	return c, nil
}

// takeLocked decides what becomes of a chunk, and reports whether it is for
// the sink now. One that was sent with the offer may come when the offer is
// answered already, with more than it has: then it is dropped.
func (r *Receiver) takeLocked(c *Chunk) (news bool, err error) {
	small := c.Offset == 0 && c.RawLen <= MaxEarly && !r.wasEarly
	switch {
	case r.phase == PhaseOpening && (!small || r.earlyFinish != nil):
		return false, Errorf(CodeProtocol, "chunk of %d bytes at %d while %s: one of at most %d may come then", c.RawLen, c.Offset, r.phase, MaxEarly)
	case r.phase == PhaseOpening:
		r.early, r.wasEarly = c.Retain(), true
		return false, nil
	case r.phase == PhaseReceiving && small && c.End() <= r.accept.Offset:
		r.wasEarly = true
		return false, nil
	default:
		return true, r.admitLocked(c)
	}
}
