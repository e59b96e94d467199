// PushAll: many sources over one session, several at once.

package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/time/rate"

	"github.com/sbcast/sbcast/protocol"
)

// How many pushes go at once. A small file is two or three round trips and a few
// syncs, in which nothing else happens. With 1,000 files of 4 KiB through a
// broadcaster to two readers, 32 at once took a third of the time of one after
// the other, 8 at once half, and 64 no less than 32. A large file fills the way
// by itself, and takes a window of memory at the broadcaster.
const (
	// DefaultParallel is the most pushes at once.
	DefaultParallel = 32
	// inFlight bounds the content of all pushes that are under way: each counts
	// with its size, with one window at most and with inFlight/parallel at
	// least. So two large files go at once, 16 of 1 MiB, 32 of 4 KiB.
	inFlight = 2 * protocol.DefaultWindow
)

// Watcher is told how the pushes of a PushAll do. The index is that of the
// source.
type Watcher interface {
	// Begin is told in the order of the sources. What it returns is told the
	// progress of this push, and may be nil.
	Begin(i int) func(Progress)
	// End is told in the order of the sources too, of one at a time, and of all
	// that Begin was told of.
	End(i int, receipts []Receipt, err error)
}

// PushAll pushes sources, each as Push does, and several at once: one that
// fails does not keep the others from going on. But when the daemon cannot be
// reached at all, those that are left fail with the same error. When ctx ends,
// no more are begun. Readers that take one file at a time get them one after
// the other, in order.
func (c *Client) PushAll(ctx context.Context, sources []Source, opts Options, w Watcher) {
	m := &many{client: c, opts: opts, watch: w, parallel: opts.Parallel, outcomes: map[int]outcome{}, changed: make(chan struct{}, 1)}
	if m.parallel <= 0 {
		m.parallel = DefaultParallel
	}
	m.least = inFlight / int64(m.parallel)
	if opts.BWLimit > 0 { // of all together
		burst := opts.ChunkSize
		if burst < 1 {
			burst = LargeChunkSize
		}
		m.opts.limit = rate.NewLimiter(rate.Limit(opts.BWLimit), burst)
	}
	m.opts.onAccept = m.accepted
	for i, src := range sources {
		weight := m.weigh(src)
		if !m.admit(ctx, weight) {
			break
		}
		m.begin(ctx, i, src, weight)
	}
	m.pushes.Wait()
}

// many is one PushAll.
type many struct {
	client  *Client
	opts    Options
	watch   Watcher
	least   int64          // weight
	pushes  sync.WaitGroup // under way
	changed chan struct{}  // capacity 1: there may be room for one more

	mu       sync.Mutex
	parallel int
	answered bool // an offer was, so it is known what the readers are like
	running  int
	weight   int64 // of those running
	hopeless error // why no other push can succeed

	telling  sync.Mutex // held while the Watcher is told
	outcomes map[int]outcome
	next     int // the first that End was not told of
}

type outcome struct {
	receipts []Receipt
	err      error
}

// weigh is what the push of src counts for, of inFlight.
func (m *many) weigh(src Source) int64 {
	size := int64(protocol.DefaultWindow)
	if st, err := src.Stat(); err == nil && st.Size >= 0 {
		size = min(size, st.Size)
	}
	return max(size, m.least)
}

// admit waits until there is room for a push. The first one goes alone until
// its offer is answered.
func (m *many) admit(ctx context.Context, weight int64) bool {
	for ctx.Err() == nil {
		m.mu.Lock()
		room := m.running == 0 || m.answered && m.running < m.parallel && m.weight+weight <= inFlight
		if room {
			m.running++
			m.weight += weight
		}
		m.mu.Unlock()
		if room {
			return true
		}
		select {
		case <-m.changed:
		case <-ctx.Done():
		}
	}
	return false
}

// limited is an Opener that knows how many streams its peer allows.
type limited interface{ MaxStreams() int }

// accepted learns from the answer to an offer how the rest is to be pushed.
func (m *many) accepted(leaves []protocol.Leaf) {
	m.mu.Lock()
	if d, ok := m.client.dialer.(limited); ok && !m.answered && d.MaxStreams() > 0 {
		// The peer counts a stream until it has seen its end: half is safe.
		m.parallel = max(1, min(m.parallel, d.MaxStreams()/2))
	}
	for _, l := range leaves {
		if l.Serial {
			m.parallel = 1
		}
	}
	m.answered = true
	m.mu.Unlock()
	m.signal()
}

func (m *many) signal() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// begin starts the push of src.
func (m *many) begin(ctx context.Context, i int, src Source, weight int64) {
	m.telling.Lock()
	opts := m.opts
	opts.OnProgress = m.watch.Begin(i)
	m.telling.Unlock()
	m.pushes.Go(func() {
		receipts, err := m.push(ctx, src, opts)
		m.mu.Lock()
		m.running--
		m.weight -= weight
		m.mu.Unlock()
		m.end(i, outcome{receipts, err})
		m.signal()
	})
}

func (m *many) push(ctx context.Context, src Source, opts Options) ([]Receipt, error) {
	m.mu.Lock()
	err := m.hopeless
	m.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("not tried: %w", err)
	}
	receipts, err := m.client.Push(ctx, src, opts)
	if err != nil && ctx.Err() == nil && noHost(err) {
		m.mu.Lock()
		m.hopeless = err
		m.mu.Unlock()
	}
	return receipts, err
}

// noHost reports whether err is about the daemon itself, and not about the
// file or a reader: Push has tried for long enough.
func noHost(err error) bool {
	var partial *PartialError
	var input *InputError
	if errors.As(err, &partial) || errors.As(err, &input) {
		return false
	}
	e := protocol.AsError(err)
	switch e.Code {
	case protocol.CodeUnreachable, protocol.CodeDead, protocol.CodeVersion, protocol.CodeUnauthorised:
		return e.Leaf == "" && len(e.Leaves) == 0
	default:
		return false
	}
}

// end tells the Watcher of the pushes that have ended, in order.
func (m *many) end(i int, o outcome) {
	m.telling.Lock()
	defer m.telling.Unlock()
	m.outcomes[i] = o
	for {
		o, ok := m.outcomes[m.next]
		if !ok {
			return
		}
		delete(m.outcomes, m.next)
		m.watch.End(m.next, o.receipts, o.err)
		m.next++
	}
}
