// Incoming: what a Receiver makes of the frames that its sender sends.

package protocol

import (
	"errors"
	"io"
)

// readLoop handles frames until the sender hangs up or breaks a rule.
func (r *Receiver) readLoop() error {
	err := r.frames.Each(r.frame)
	switch {
	case errors.Is(err, io.EOF) && r.isPhase(PhasePublish):
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Errorf(CodeTruncated, "the sender went away at %d bytes, before the transfer was complete", r.Status().Offset)
	default:
		return err
	}
}

func (r *Receiver) frame(f Frame) error {
	r.pulse.beat()
	if f.Kind == 0 {
		return nil
	}
	if r.isPhase(phaseEnded) { // what comes behind a Reject is read and dropped
		if f.Chunk != nil {
			f.Chunk.Release()
		}
		return nil
	}
	return r.handle(f)
}

func (r *Receiver) handle(f Frame) error {
	switch f.Kind {
	case KindChunk:
		defer f.Chunk.Release()
		return r.chunk(f.Chunk)
	case KindPing:
		r.out.sendPong()
		return nil
	case KindPong:
		return nil
	case KindFinish, KindCommit, KindAbort:
		m, err := ParseMessage(f.Kind, f.Payload)
		if err != nil {
			return err
		}
		return r.message(m)
	default:
		return Errorf(CodeProtocol, "%s from a sender", f.Kind)
	}
}

func (r *Receiver) chunk(c *Chunk) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	news, err := r.takeLocked(c)
	r.mu.Unlock()
	if err != nil || !news {
		return err
	}
	return r.transfer.Write(c)
}

// admitLocked checks that c is the next chunk and inside what was granted. The
// first chunk after a resume may begin before the offset that was asked for.
func (r *Receiver) admitLocked(c *Chunk) error {
	first := len(r.ends) == 0 && r.received == r.accept.Offset
	switch {
	case r.phase != PhaseReceiving:
		return Errorf(CodeProtocol, "chunk at %d while %s", c.Offset, r.phase)
	case c.Offset != r.received && !(first && c.Offset < r.received && c.End() > r.received):
		return Errorf(CodeProtocol, "chunk at %d where %d was next", c.Offset, r.received)
	case c.RawLen > r.accept.MaxChunk:
		return Errorf(CodeProtocol, "chunk of %d bytes, at most %d were allowed", c.RawLen, r.accept.MaxChunk)
	case c.End()-r.acked > r.accept.Window:
		return Errorf(CodeWindow, "chunk to %d is beyond the window: %d bytes from %d on", c.End(), r.accept.Window, r.acked)
	case r.credit != nil && c.End() > r.credit.limit:
		return Errorf(CodeWindow, "chunk to %d is beyond the limit of %d", c.End(), r.credit.limit)
	case len(r.ends) >= MaxInflight(r.accept.Window):
		return Errorf(CodeWindow, "more than %d chunks are unacknowledged", MaxInflight(r.accept.Window))
	case r.offer.Size >= 0 && c.End() > r.offer.Size:
		return Errorf(CodeSize, "more content than the %d bytes offered", r.offer.Size)
	}
	r.ends = append(r.ends, c.End())
	r.received = c.End()
	r.traffic = r.traffic.Add(Traffic{int64(c.RawLen), int64(len(c.Frame()))})
	return nil
}

func (r *Receiver) message(m Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m := m.(type) {
	case *Finish:
		if r.phase == PhaseOpening && r.earlyFinish == nil {
			r.earlyFinish = m
			return nil
		}
		return r.finishLocked(m)
	case *Commit:
		if r.phase != PhaseReady {
			return Errorf(CodeProtocol, "commit while %s", r.phase)
		}
		r.phase = PhasePublish
		r.commit <- struct{}{}
	case *Abort:
		if r.phase == PhasePublish {
			return Errorf(CodeProtocol, "abort after commit")
		}
		text := m.Text
		if text == "" {
			text = "the sender took it back"
		}
		if m.Code != "" {
			return &Error{Code: m.Code, Text: text, cause: ErrOver}
		}
		return &Error{Code: CodeAborted, Text: text, cause: ErrForget}
	}
	return nil
}

func (r *Receiver) finishLocked(m *Finish) error {
	switch {
	case r.phase != PhaseReceiving:
		return Errorf(CodeProtocol, "finish while %s", r.phase)
	case m.Size != r.received:
		return Errorf(CodeSize, "finish says %d bytes, %d came", m.Size, r.received)
	case r.offer.Size >= 0 && m.Size != r.offer.Size:
		return Errorf(CodeSize, "only %d of the %d bytes offered came", m.Size, r.offer.Size)
	case r.offer.Digest != DigestNone && m.Digest == "" && !AllUnchanged(r.accept.Leaves):
		return Errorf(CodeDigest, "finish has no digest, the offer promised %s", r.offer.Digest)
	}
	r.phase = PhaseFinishing
	if r.credit != nil {
		r.credit.finish(r.acked, r.received)
	}
	r.finish <- m
	return nil
}
