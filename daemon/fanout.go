// Fanout: the sink of a broadcaster. It passes every chunk on, as it is, to
// all daemons below.

package daemon

import (
	"context"
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
