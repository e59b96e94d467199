// Fanout: the sink of a broadcaster. It passes every chunk on, as it is, to
// all daemons below.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// DefaultStall is how long a hop may be unreachable or without progress.
const DefaultStall = 30 * time.Second

// How long the other hops have to answer an offer once it is clear what
// becomes of it.
const (
	// refuseGrace: one that is needed has refused. The sender is to learn of
	// all refusals at once, also of a name in use, which a reader waits for.
	refuseGrace = 3 * time.Second
	// lateGrace: as many as are needed have accepted, and none of them is to
	// wait for one that is dead.
	lateGrace = time.Second
)

// DefaultLag is how long one hop may hold the others up before it is parked,
// where the policy allows.
const DefaultLag = 10 * time.Second

// FanoutOptions say how a Fanout treats hops in trouble. The zero value is good.
type FanoutOptions struct {
	Stall time.Duration // unreachable or without progress for so long, a hop fails; 0: DefaultStall
	Lag   time.Duration // holding the others up for so long, a hop is parked; 0: DefaultLag
	Log   *slog.Logger  // hops that are lost and come back; nil: nowhere
}

// Fanout is a protocol.Sink with daemons below it. For each transfer it keeps
// a chunk until every live hop has acknowledged it, so the window that it
// grants bounds its memory, and the slowest hop paces the transfer.
type Fanout struct {
	hops []*Hop
	opts FanoutOptions
	live atomic.Int64 // len(running)

	closing  sync.Once
	closed   chan struct{}
	watching sync.WaitGroup

	mu      sync.Mutex
	running map[*spread]struct{} // transfers
	watched bool                 // watch runs
}

// NewFanout returns a Fanout over hops, which it owns and whose names must
// differ.
func NewFanout(hops []*Hop, opts FanoutOptions) (*Fanout, error) {
	if len(hops) == 0 {
		return nil, fmt.Errorf("a broadcaster needs at least one reader")
	}
	names := map[string]bool{}
	for _, h := range hops {
		if names[h.name] {
			return nil, fmt.Errorf("two readers are called %q", h.name)
		}
		names[h.name] = true
	}
	if opts.Stall == 0 {
		opts.Stall = DefaultStall
	}
	if opts.Lag == 0 {
		opts.Lag = DefaultLag
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Fanout{hops: hops, opts: opts, closed: make(chan struct{}), running: map[*spread]struct{}{}}, nil
}

// Connect begins to keep a session to every hop, until Close: then a push finds
// one. Without it a session is made when it is first needed.
func (f *Fanout) Connect() {
	for _, h := range f.hops {
		h.connect()
	}
}

// begin and end note which transfers there are.
func (f *Fanout) begin(t *spread) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[t] = struct{}{}
	f.live.Store(int64(len(f.running)))
	if !f.watched {
		f.watched = true
		f.watching.Go(f.watch)
	}
}

func (f *Fanout) end(t *spread) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.running, t)
	f.live.Store(int64(len(f.running)))
}

// Close closes the hops and waits for what was running on them. No transfer
// may be left.
func (f *Fanout) Close() {
	f.closing.Do(func() { close(f.closed) })
	f.watching.Wait()
	var wg sync.WaitGroup
	for _, h := range f.hops {
		wg.Go(h.Close)
	}
	wg.Wait()
}

// Status asks every hop, at the same time.
func (f *Fanout) Status(ctx context.Context, hops int) []*protocol.Status {
	answers := make([][]*protocol.Status, len(f.hops))
	var wg sync.WaitGroup
	for i, h := range f.hops {
		wg.Go(func() { answers[i] = h.status(ctx, hops) })
	}
	wg.Wait()
	var all []*protocol.Status
	for _, a := range answers {
		all = append(all, a...)
	}
	return all
}

// Begin implements protocol.Sink. It offers to all hops and accepts with the
// smallest of what they accept, so that what comes in can go out as it is.
func (f *Fanout) Begin(ctx context.Context, offer *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	if offer.Hops <= 1 {
		return nil, nil, protocol.Errorf(protocol.CodeLoop, "the offer has passed as many daemons as it may: do broadcasters feed each other?")
	}
	below := *offer
	below.Hops--

	t := &spread{
		fanout: f, up: up, offer: below, policy: offer.Policy, strict: offer.Policy.IsAll(),
		lag: f.opts.Lag, stall: f.opts.Stall, legs: make([]*leg, len(f.hops)),
	}
	t.ctx, t.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	f.begin(t)
	opening, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var cut sync.Once
	var opened sync.WaitGroup
	for i, h := range f.hops {
		t.legs[i] = &leg{spread: t, hop: h}
		t.legs[i].tell(protocol.Leaf{Name: h.name, State: protocol.LeafWaiting, Text: "connecting to " + h.dialer.Addr()})
	}
	for _, l := range t.legs {
		opened.Go(func() {
			accepted := l.open(opening)
			switch {
			case t.strict && !accepted:
				cut.Do(func() { time.AfterFunc(refuseGrace, func() { giveUp(errOthersRefused) }) })
			case !t.strict && accepted && t.enough(l):
				cut.Do(func() { time.AfterFunc(lateGrace, func() { giveUp(errLate) }) })
			}
		})
	}
	opened.Wait()
	if ctx.Err() != nil {
		err := context.Cause(ctx)
		t.Abort(err)
		return nil, nil, err
	}
	accept, err := t.accept()
	if err != nil {
		t.Abort(err)
		return nil, nil, err
	}
	return t, accept, nil
}

// errOthersRefused is told of a hop that was still being dialled when another
// one had refused the offer.
var errOthersRefused = &protocol.Error{Code: protocol.CodePolicy, Text: "not reached before another reader refused"}

// errLate is why a hop that has not answered is not waited for.
var errLate = &protocol.Error{Code: protocol.CodeUnreachable, Text: "no answer when the others were ready"}

// spread is one transfer on its way to all hops.
type spread struct {
	fanout   *Fanout
	up       protocol.Upstream
	policy   protocol.Policy
	strict   bool           // one failed hop fails the transfer
	offer    protocol.Offer // to the hops
	lag      time.Duration
	stall    time.Duration
	legs     []*leg
	ctx      context.Context // ends with the transfer
	cancel   context.CancelCauseFunc
	watching sync.WaitGroup

	mu       sync.Mutex
	accepted int   // leaves, as far as hops have answered
	settled  bool  // Accept is decided: a failure from now on is reported at once
	over     bool  // upstream was told that the transfer has failed
	window   int64 // granted
	maxChunk int   // granted
	received int64
	acked    int64 // by every leg that paces the transfer
	behind   int   // how many of those are no further than acked
	kept     retained
	finished *protocol.Finish // nil while there may be more content

	direct []*protocol.Sender // of Write, reused
}

// enough counts the leaves of one more leg that has accepted, and reports
// whether they meet the policy now.
func (t *spread) enough(l *leg) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accepted += len(l.leaves)
	return t.accepted >= t.policy.Needs(t.accepted)
}

// accept settles the answer to the offer, when all legs have theirs.
func (t *spread) accept() (*protocol.Accept, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settled = true
	a := &protocol.Accept{Offset: -1, Window: t.up.Window(), MaxChunk: protocol.MaxChunk}
	failed, live := false, false
	for _, l := range t.legs {
		a.Leaves = append(a.Leaves, l.leaves...)
		if l.err != nil {
			failed = true
			continue
		}
		if !live || l.accept.Offset < a.Offset {
			a.Offset = l.accept.Offset
		}
		a.Window = min(a.Window, l.accept.Window)
		a.MaxChunk = min(a.MaxChunk, l.accept.MaxChunk)
		a.CRC = a.CRC || l.accept.CRC
		live = true
	}
	if !live || failed && t.strict {
		return nil, protocol.Combine(a.Leaves)
	}
	a.MaxChunk = int(min(int64(a.MaxChunk), a.Window/4))
	t.acked, t.received, t.window, t.maxChunk = a.Offset, a.Offset, a.Window, a.MaxChunk
	t.paceLocked()
	return a, nil
}

// leavesLocked is how every leaf stands.
func (t *spread) leavesLocked() []protocol.Leaf {
	var all []protocol.Leaf
	for _, l := range t.legs {
		all = append(all, l.leaves...)
	}
	return all
}

// Write implements protocol.Transfer. It does not wait: what the window lets
// in here fits into every live hop's window.
func (t *spread) Write(c *protocol.Chunk) error {
	t.mu.Lock()
	t.received = c.End()
	t.kept.keep(c.Retain())
	t.direct = t.direct[:0]
	for _, l := range t.legs {
		switch {
		case l.directLocked():
			t.direct = append(t.direct, l.sender)
		case l.wake != nil:
			l.signalLocked()
		}
	}
	if t.behind == 0 { // all had this before
		t.paceLocked()
	}
	t.mu.Unlock()
	for _, s := range t.direct {
		_ = s.Send(t.ctx, c.Retain()) // what ends a sender is told to its leg
	}
	return nil
}

// Finish implements protocol.Transfer.
func (t *spread) Finish(ctx context.Context, f *protocol.Finish) ([]protocol.Leaf, error) {
	t.mu.Lock()
	t.finished = f
	for _, l := range t.legs {
		if l.wake != nil {
			l.signalLocked()
		}
	}
	t.mu.Unlock()
	t.eachAlive(func(l *leg) { l.finish(ctx, f) })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	leaves := t.leavesLocked()
	ready := false
	for _, l := range leaves {
		if l.State == protocol.LeafFailed && t.strict {
			return nil, protocol.Combine(leaves)
		}
		ready = ready || l.State != protocol.LeafFailed
	}
	if !ready {
		return nil, protocol.Combine(leaves)
	}
	return leaves, nil
}

// Commit implements protocol.Transfer.
func (t *spread) Commit(ctx context.Context) []protocol.Receipt {
	t.eachAlive(func(l *leg) { l.commit(ctx, t.finished) })
	var all []protocol.Receipt
	t.mu.Lock()
	for _, l := range t.legs {
		receipts := l.receiptsLocked()
		for i := range receipts {
			l.hop.stats.receipt(receipts[i].Status)
		}
		all = append(all, receipts...)
	}
	t.mu.Unlock()
	t.retire()
	return all
}

// Abort implements protocol.Transfer. The hops are told only when the
// transfer is to be forgotten, or is over; otherwise the streams just end and
// the leaves hold what they have for the next attempt.
func (t *spread) Abort(cause error) {
	senders := t.hush()
	forget := errors.Is(cause, protocol.ErrForget)
	if forget || errors.Is(cause, protocol.ErrOver) || protocol.AsError(cause).Code.Over() {
		var wg sync.WaitGroup
		for _, sender := range senders { // a hop that is away holds what it has until its time is up
			wg.Go(func() {
				if forget {
					sender.Abort(cause.Error())
				} else {
					sender.GiveUp(cause)
				}
			})
		}
		wg.Wait()
	}
	t.retire()
}

// hush makes what hops report from now on no news. It returns the senders of
// those that are part of the transfer.
func (t *spread) hush() (alive []*protocol.Sender) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.legs {
		if l.aliveLocked() && l.sender != nil {
			alive = append(alive, l.sender)
		}
		l.retired = true
	}
	return alive
}

// retire closes all senders.
func (t *spread) retire() {
	t.fanout.end(t)
	t.hush()
	t.cancel(context.Canceled)
	t.watching.Wait()
	for _, l := range t.legs {
		t.mu.Lock()
		sender := l.sender
		t.mu.Unlock()
		if sender != nil {
			l.hop.retire(sender)
		}
	}
	t.mu.Lock()
	t.kept.drop(t.received)
	t.mu.Unlock()
}

// eachAlive runs f at once on all legs that are part of the transfer, and waits.
func (t *spread) eachAlive(f func(l *leg)) {
	t.mu.Lock()
	var alive []*leg
	for _, l := range t.legs {
		if l.aliveLocked() {
			alive = append(alive, l)
		}
	}
	t.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range alive {
		wg.Go(func() { f(l) })
	}
	wg.Wait()
}
