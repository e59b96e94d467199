// Receiver: the receiving end of one transfer on one hop. Every daemon uses it.

package protocol

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
)

// lingerTimeout is how long a receiver waits for the sender to hang up after
// the receipts, so that they are read before the stream goes.
const lingerTimeout = 5 * time.Second

// Phase is how far a transfer is at a receiver.
type Phase string

// The phases, in order.
const (
	PhaseOpening   Phase = "opening"
	PhaseReceiving Phase = "receiving"
	PhaseFinishing Phase = "finishing"
	PhaseReady     Phase = "ready"
	PhasePublish   Phase = "publishing"
	phaseEnded     Phase = "ended"
)

// Receiver runs one transfer from its Offer to its receipts.
type Receiver struct {
	stream Stream
	frames *FrameReader
	offer  *Offer
	sink   Sink
	window int64
	budget *Budget // may be nil
	begun  time.Time

	out    *outbound
	pulse  *pulse
	cancel context.CancelCauseFunc
	finish chan *Finish   // capacity 1
	commit chan struct{}  // capacity 1
	hungUp chan struct{}  // closed when the read loop has ended
	reader sync.WaitGroup // the read loop

	writing sync.Mutex // held while a chunk is handed over

	mu       sync.Mutex
	phase    Phase
	transfer Transfer
	accept   Accept
	ends     []int64 // of the chunks that are not acknowledged
	received int64   // end of the content that came in
	traffic  Traffic // of it
	opened   time.Time
	acked    int64
	told     int64 // the ack that was last handed to out
	toldAt   time.Time
	credit   *credit // nil without a budget, and before there is memory

	// What came before Accept.
	early       *Chunk
	earlyFinish *Finish
	wasEarly    bool // there was a chunk, or it came when the sink had it
}

// NewReceiver returns a Receiver for an offer that was read from frames. It
// owns the stream. Window is the largest to grant, that of the session.
func NewReceiver(stream Stream, frames *FrameReader, offer *Offer, sink Sink, window int64) *Receiver {
	if offer.ID == "" {
		offer.ID = uuid.Must(uuid.NewV7()).String()
	}
	return &Receiver{
		stream: stream, frames: frames, offer: offer, sink: sink, window: window, begun: time.Now(),
		finish: make(chan *Finish, 1), commit: make(chan struct{}, 1), hungUp: make(chan struct{}),
		phase: PhaseOpening,
	}
}

// Within makes the receiver take its memory from b, which may be nil. It is
// for before Run.
func (r *Receiver) Within(b *Budget) *Receiver {
	r.budget = b
	return r
}

// Offer is what the transfer is about.
func (r *Receiver) Offer() *Offer { return r.offer }

// Status is how far the transfer is.
func (r *Receiver) Status() TransferStatus {
	r.mu.Lock()
	t := r.transfer
	st := TransferStatus{
		ID: r.offer.ID, Name: string(r.offer.Name), Size: r.offer.Size,
		Offset: r.acked, Received: r.received, Phase: string(r.phase), Seconds: time.Since(r.begun).Seconds(),
	}
	if !r.opened.IsZero() {
		st.Rate = Rate(r.acked-r.accept.Offset, time.Since(r.opened))
	}
	r.mu.Unlock()
	if d, ok := t.(Describer); ok { // without mu: it may be telling us something
		d.Describe(&st)
	}
	return st
}

// Rate is n bytes in d, as bytes a second.
func Rate(n int64, d time.Duration) float64 {
	if n <= 0 || d <= 0 {
		return 0
	}
	return math.Round(float64(n) / d.Seconds())
}

// Use is what a transfer has taken and holds.
type Use struct {
	Traffic
	Owed   int64 // received and not acknowledged
	Window int64 // granted; 0 before Accept
}

// Use says what the transfer has taken and holds.
func (r *Receiver) Use() Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := Use{Traffic: r.traffic, Owed: r.received - r.acked, Window: r.accept.Window}
	if r.credit != nil {
		u.Window = r.credit.room.Window
	}
	return u
}

// Run does the transfer and returns its receipts, or why there are none, after
// telling the sender. When ctx ends before Commit, its cause is the reason.
func (r *Receiver) Run(ctx context.Context) ([]Receipt, error) {
	whole := ctx
	ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	r.out = newOutbound(r.stream, r.stream.CloseWrite, nil, r.Fail)
	go r.out.run()
	r.pulse = newPulse(r.out.sendPing, r.Fail)
	r.frames.LimitChunks(MaxEarly)
	r.reader.Go(func() {
		defer close(r.hungUp)
		if err := r.readLoop(); err != nil {
			r.cancel(err)
		}
	})

	receipts, err := r.drive(ctx, whole)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // what came first, not what came of it
		}
		r.end()
		if r.transfer != nil {
			r.transfer.Abort(err)
		}
		r.out.lastWord(rejectFrame(err))
	}
	r.mu.Lock()
	if r.credit != nil {
		r.credit.close()
	}
	r.mu.Unlock()
	r.out.finish()
	<-r.out.done
	wait := lingerTimeout
	switch {
	case HasCode(err, CodeDead):
		wait = 0
	case err != nil:
		wait = lastWords
	}
	linger := time.NewTimer(wait)
	select {
	case <-r.hungUp:
	case <-linger.C:
	}
	linger.Stop()
	r.pulse.stop()
	r.stream.Close()
	r.reader.Wait()
	return receipts, err
}

// commitGrace is how long a publish under way may go on when its daemon stops.
const commitGrace = 5 * time.Second

// drive takes the transfer through its phases. Ctx ends with the transfer,
// whole with the daemon.
func (r *Receiver) drive(ctx, whole context.Context) ([]Receipt, error) {
	if r.budget != nil { // first, as a sink that has begun holds others up
		p, err := r.budget.join(ctx, firstPortion(r.offer.Size))
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.credit = &credit{portion: p, room: Room{Capped: true}}
		r.mu.Unlock()
	}
	transfer, accept, err := r.sink.Begin(ctx, r.offer, r)
	if err != nil {
		return nil, err
	}
	if err := r.begin(ctx, transfer, accept); err != nil {
		return nil, err
	}
	var f *Finish
	select {
	case f = <-r.finish:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	leaves, err := transfer.Finish(ctx, f)
	if err != nil {
		return nil, err
	}
	frame, err := appendPaged(leaves, func(rest []Leaf) Message { return &Ready{Leaves: rest} })
	if err != nil {
		return nil, err
	}
	r.setPhase(PhaseReady)
	r.out.pushState(frame)

	select {
	case <-r.commit:
	case <-ctx.Done():
		if !r.isPhase(PhasePublish) { // what comes after a Commit does not undo it
			return nil, ctx.Err()
		}
	}
	// From here on there is no way back: what the sender was told to be ready
	// is published even when the sender is lost now.
	done, stop := context.WithTimeout(context.WithoutCancel(ctx), AnswerTimeout)
	defer stop()
	defer context.AfterFunc(whole, func() { time.AfterFunc(commitGrace, stop) })()
	receipts := transfer.Commit(done)
	for i := range receipts {
		receipts[i].clip()
		if frame, err = AppendMessage(nil, &receipts[i]); err != nil {
			panic("protocol: " + err.Error())
		}
		r.out.push(frame)
	}
	return receipts, nil
}

// openLocked notes what the sink accepted and returns the Accept frame.
func (r *Receiver) openLocked(t Transfer, a *Accept) ([]byte, error) {
	if a.Window == 0 || a.Window > r.window {
		a.Window = r.window
	}
	if largest := int(min(MaxChunk, a.Window/4)); a.MaxChunk == 0 || a.MaxChunk > largest {
		a.MaxChunk = largest
	}
	if r.credit != nil {
		a.MaxChunk = min(a.MaxChunk, r.credit.open(a.Offset, r.offer.Size, a.Window))
		r.out.setLimit(r.credit.limit)
	}
	r.transfer, r.accept = t, *a
	r.frames.LimitChunks(max(a.MaxChunk, MaxEarly)) // what was sent early may come late
	r.received, r.acked, r.told, r.toldAt = a.Offset, a.Offset, a.Offset, time.Now()
	r.opened = r.toldAt
	r.phase = PhaseReceiving
	return appendPaged(a.Leaves, func(rest []Leaf) Message {
		last := *a
		last.Leaves = rest
		return &last
	})
}

// end makes sure that nothing that still comes is handed to the transfer.
func (r *Receiver) end() {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = phaseEnded
	if r.early != nil {
		r.early.Release()
		r.early = nil
	}
}

func (r *Receiver) setPhase(p Phase) {
	r.mu.Lock()
	r.phase = p
	r.mu.Unlock()
}

func (r *Receiver) isPhase(p Phase) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.phase == p
}
