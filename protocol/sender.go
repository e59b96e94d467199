// Sender: the sending end of one transfer on one hop. The client, the gateway
// and every hop of a Fanout use it.

package protocol

import (
	"context"
	"fmt"
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
	Stall      time.Duration       // end when content waits that long without an ack, or a word of why; 0: never
}

// Sender sends one transfer: Offer, Send as often as needed, Finish, Commit,
// then Close. Those are called by one goroutine; Abort and Close by any. The
// first error sticks and is what every later call returns.
type Sender struct {
	stream Stream
	cfg    SenderConfig
	out    *outbound
	pulse  *pulse
	clock  Clock
	reader sync.WaitGroup

	accepted chan *Accept  // capacity 1
	ready    chan *Ready   // capacity 1
	receipts chan struct{} // closed when all have come
	ended    chan struct{} // closed by fail

	// Owned by the read loop.
	pages   pages
	roll    roll
	acceptd bool

	mu      sync.Mutex
	win     *window // after Accept
	size    int64   // offered; -1: unknown
	start   int64   // offset in Accept
	early   *Chunk  // sent with the offer, until Accept
	phase   Stage   // what is waited for, but for credit
	whole   bool    // so was Finish
	err     error
	stall   *time.Timer
	busy    time.Time           // when a leaf last said that it waits for what it stores on
	names   []Leaf              // from Accept
	got     map[string]*Receipt // by leaf; nil until it has come
	missing int                 // of got
	told    int                 // bytes in got
}

// NewSender returns a Sender on a fresh stream, which it owns from then on.
func NewSender(stream Stream, cfg SenderConfig) *Sender {
	s := &Sender{
		stream: stream, cfg: cfg,
		accepted: make(chan *Accept, 1), ready: make(chan *Ready, 1),
		receipts: make(chan struct{}), ended: make(chan struct{}),
	}
	s.out = newOutbound(stream, stream.CloseWrite, func(c *Chunk) { s.win.written(c.End()) }, s.lost)
	s.out.clock, s.out.idle = &s.clock, s.idle
	go s.out.run()
	s.pulse = newPulse(s.out.sendPing, s.fail)
	s.reader.Go(s.readLoop)
	return s
}

// Offer makes the offer and waits for the answer. There is no deadline but
// ctx's: the receiver may be waiting for others, and tells so by Progress.
func (s *Sender) Offer(ctx context.Context, o *Offer) (*Accept, error) {
	s.mu.Lock()
	s.size = o.Size
	s.mu.Unlock()
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
	s.enter(StageSync)
	defer s.enter(StageNone)
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
	s.enter(StagePublish)
	defer s.enter(StageNone)
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
func (s *Sender) Abort(text string) { s.abort(&Abort{Text: clip(text, maxTextLen)}) }

// GiveUp is Abort for a transfer that has failed elsewhere: the receiver keeps
// what another push could resume.
func (s *Sender) GiveUp(cause error) {
	s.abort(&Abort{Code: CodePolicy, Text: clip("given up, because elsewhere "+AsError(cause).Error(), maxTextLen)})
}

func (s *Sender) abort(m *Abort) {
	frame, err := AppendMessage(nil, m)
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
	s.clock.Enter(StageNone)
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

// heard notes that leaves are busy: a store on a slow line may take longer for
// what it has than it may be silent.
func (s *Sender) heard(leaves []Leaf) {
	for _, l := range leaves {
		if l.State == LeafWaiting && l.Code == "" {
			s.mu.Lock()
			s.busy = time.Now()
			s.mu.Unlock()
			return
		}
	}
}

// checkStall ends the transfer when the oldest content in the window has
// waited too long for its ack. Leaves that are busy get AnswerTimeout.
func (s *Sender) checkStall() {
	since, at := s.win.stalled()
	s.mu.Lock()
	silent := min(since, time.Since(s.busy))
	s.mu.Unlock()
	if silent >= s.cfg.Stall || since >= max(s.cfg.Stall, AnswerTimeout) {
		s.fail(Errorf(CodeStalled, "stalled at %s, %.0f s without progress", sizeText(at), since.Seconds()))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.stall.Reset(s.cfg.Stall / 4)
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
