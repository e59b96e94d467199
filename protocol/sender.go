// Sender: the sending end of one transfer on one hop. The client, the gateway
// and every hop of a Fanout use it.

package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// AnswerTimeout bounds the wait for Ready after Finish and for the Receipts
// after Commit, from a peer that is alive and answers pings: staging can mean
// to sync or to upload what is left of a large file.
const AnswerTimeout = 15 * time.Minute

// abortGrace is how long Abort waits for the receiver to say that it forgot.
const abortGrace = time.Second

// SenderConfig says who is told what. The callbacks come from the Sender's own
// goroutines and must not block, nor call the Sender back, except Close.
type SenderConfig struct {
	OnAccept   func(a *Accept)     // the offer was accepted; before any OnAck
	OnAck      func(offset int64)  // the receiver has taken all before offset
	OnProgress func(leaves []Leaf) // leaves changed; before Accept too
	OnEnd      func(err error)     // the transfer cannot go on; once
	Stall      time.Duration       // end when content waits that long without an ack; 0: never
}

// Sender sends one transfer: Offer, Send as often as needed, Finish, Commit,
// then Close. Those are called by one goroutine; Abort and Close by any. The
// first error sticks and is what every later call returns.
type Sender struct {
	stream Stream
	cfg    SenderConfig
	out    *outbound
	pulse  *pulse
	reader sync.WaitGroup

	accepted chan *Accept  // capacity 1
	ready    chan *Ready   // capacity 1
	receipts chan struct{} // closed when all have come
	ended    chan struct{} // closed by fail

	// Owned by the read loop.
	pages   pages
	acceptd bool

	mu      sync.Mutex
	win     *window // after Accept
	start   int64   // offset in Accept
	early   *Chunk  // sent with the offer, until Accept
	whole   bool    // so was Finish
	err     error
	stall   *time.Timer
	names   []Leaf              // from Accept
	got     map[string]*Receipt // by leaf; nil until it has come
	missing int                 // of got
}

// NewSender returns a Sender on a fresh stream, which it owns from then on.
func NewSender(stream Stream, cfg SenderConfig) *Sender {
	s := &Sender{
		stream: stream, cfg: cfg,
		accepted: make(chan *Accept, 1), ready: make(chan *Ready, 1),
		receipts: make(chan struct{}), ended: make(chan struct{}),
	}
	s.out = newOutbound(stream, stream.CloseWrite, func(c *Chunk) { s.win.written(c.End()) }, s.lost)
	s.pulse = newPulse(s.out.sendPing, s.fail)
	s.reader.Go(s.readLoop)
	return s
}

// Offer makes the offer and waits for the answer. There is no deadline but
// ctx's: the receiver may be waiting for others, and tells so by Progress.
func (s *Sender) Offer(ctx context.Context, o *Offer) (*Accept, error) {
	if err := s.push(o); err != nil {
		return nil, err
	}
	return s.awaitAccept(ctx)
}

func (s *Sender) awaitAccept(ctx context.Context) (*Accept, error) {
	select {
	case a := <-s.accepted:
		return a, nil
	case <-s.ended:
		return nil, s.failure()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Send sends c, whose reference it takes. It waits while the window is full,
// and keeps the chunk until it is acknowledged. Chunks that the receiver said
// it has are not sent.
func (s *Sender) Send(ctx context.Context, c *Chunk) error {
	if c.End() <= s.start {
		c.Release()
		return nil
	}
	if err := s.win.reserve(ctx, c); err != nil {
		return err
	}
	s.out.pushChunk(c)
	return nil
}

// Finish ends the content and waits until every leaf has staged it or failed.
func (s *Sender) Finish(ctx context.Context, f *Finish) (*Ready, error) {
	s.mu.Lock()
	sent := s.whole
	s.mu.Unlock()
	if !sent {
		if err := s.push(f); err != nil {
			return nil, err
		}
	}
	timeout := time.NewTimer(AnswerTimeout)
	defer timeout.Stop()
	select {
	case r := <-s.ready:
		return r, nil
	case <-s.ended:
		return nil, s.failure()
	case <-timeout.C:
		return nil, Errorf(CodeStalled, "not ready %v after the content had ended", AnswerTimeout)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Commit lets the leaves publish and waits for a receipt from each. When the
// receiver is lost on the way, the receipts that did come are returned with
// the error, and whether the others have published is not known.
func (s *Sender) Commit(ctx context.Context) ([]Receipt, error) {
	if err := s.push(&Commit{}); err != nil {
		return nil, err
	}
	timeout := time.NewTimer(AnswerTimeout)
	defer timeout.Stop()
	var err error
	select {
	case <-s.receipts:
	case <-s.ended:
		if !s.complete() {
			err = s.failure()
		}
	case <-timeout.C:
		err = Errorf(CodeStalled, "no receipt %v after the commit", AnswerTimeout)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var receipts []Receipt
	for _, l := range s.names {
		if r := s.got[l.Name]; r != nil {
			receipts = append(receipts, *r)
		}
	}
	return receipts, err
}

// Abort makes the receiver forget the transfer, waits shortly for it to say
// so, and closes.
func (s *Sender) Abort(text string) {
	frame, err := AppendMessage(nil, &Abort{Text: clip(text, maxTextLen)})
	if err != nil {
		panic("protocol: " + err.Error())
	}
	s.out.lastWord(frame)
	timeout := time.NewTimer(abortGrace)
	defer timeout.Stop()
	select {
	case <-s.ended:
	case <-timeout.C:
	}
	s.Close()
}

// Close ends the transfer on this hop without a word: to the receiver it is
// as if the connection had been lost, unless it had sent its receipts. It
// does not wait, see Wait, and is idempotent.
func (s *Sender) Close() {
	s.fail(Errorf(CodeAborted, "closed"))
}

// Done is closed when the transfer has ended on this hop, and Err says why.
func (s *Sender) Done() <-chan struct{} { return s.ended }

// Err is the first error, nil while there is none.
func (s *Sender) Err() error { return s.failure() }

// Wait waits for the Sender's goroutines after Close. A write to a peer that
// takes nothing ends after WriteTimeout, or with the session.
func (s *Sender) Wait() {
	s.reader.Wait()
	<-s.out.done
}

func (s *Sender) push(m Message) error {
	frame, err := AppendMessage(nil, m)
	if err != nil {
		return err
	}
	if err := s.failure(); err != nil {
		return err
	}
	s.out.push(frame)
	return nil
}

func (s *Sender) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail ends everything with the first error.
func (s *Sender) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	if s.win != nil {
		s.win.close(err)
	}
	if s.stall != nil {
		s.stall.Stop()
	}
	s.mu.Unlock()
	s.pulse.stop()
	s.out.stop()
	s.stream.Close()
	close(s.ended)
	if s.cfg.OnEnd != nil {
		s.cfg.OnEnd(err)
	}
}

// lost ends everything because a write has failed, unless the receiver has
// said why: that may still be on its way to be read.
func (s *Sender) lost(err error) {
	wait := time.NewTimer(lastWords)
	defer wait.Stop()
	select {
	case <-s.ended:
	case <-wait.C:
	}
	s.fail(err)
}

func (s *Sender) readLoop() {
	err := NewFrameReader(s.stream).Each(s.handle)
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
	s.start, s.names, s.got, s.missing = a.Offset, a.Leaves, got, len(got)
	s.win = newWindow(a.Window, a.Offset)
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
	if s.cfg.OnAccept != nil {
		s.cfg.OnAccept(a)
	}
	s.accepted <- a
	return nil
}

// checkStall ends the transfer when the oldest content in the window has
// waited too long for its ack.
func (s *Sender) checkStall() {
	since, at := s.win.stalled()
	if since >= s.cfg.Stall {
		s.fail(Errorf(CodeStalled, "stalled at %s, %.0f s without progress", sizeText(at), since.Seconds()))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.stall.Reset(s.cfg.Stall / 4)
	}
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

// sizeText is n bytes for people: 12.3 MiB.
func sizeText(n int64) string {
	value, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}

// receipt notes a leaf's final word; the last one completes the Commit.
func (s *Sender) receipt(r *Receipt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, known := s.got[r.Leaf]; !known || before != nil {
		return Errorf(CodeProtocol, "unexpected receipt of leaf %q", r.Leaf)
	}
	s.got[r.Leaf] = r
	if s.missing--; s.missing == 0 {
		close(s.receipts)
	}
	return nil
}
