package protocol

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shared is a transfer under a Budget, to a sink that stores what it has
// queued when the test says so.
type shared struct {
	*Sender
	up    atomic.Pointer[Receiver]
	chunk int
	in    atomic.Int64 // content that has come to the sink
	taken int64
	done  chan error // of feed
}

func (s *shared) open(t *testing.T, b *Budget, size int64) {
	t.Helper()
	require.NoError(t, s.offer(t, b, size))
}

func (s *shared) offer(t *testing.T, b *Budget, size int64) error {
	near, far := memPipe(1 << 24)
	s.Sender = NewSender(near, SenderConfig{})
	sink := &fakeSink{onWrite: func(c *Chunk) error { s.in.Store(c.End()); return nil }}
	sink.onFinish = func(ctx context.Context) ([]Leaf, error) {
		for s.up.Load().Status().Offset < sink.finish.Size && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		return []Leaf{{State: LeafReady}}, ctx.Err()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		frames := NewFrameReader(far)
		f, err := frames.Next()
		if err != nil {
			return
		}
		m, err := ParseMessage(f.Kind, f.Payload)
		if err != nil {
			return
		}
		r := NewReceiver(far, frames, m.(*Offer), sink, DefaultWindow).Within(b)
		s.up.Store(r)
		_, _ = r.Run(t.Context())
	}()
	t.Cleanup(func() {
		s.Close()
		s.Wait()
		<-ended
	})
	a, err := s.Offer(t.Context(), offer(size))
	if err == nil {
		s.chunk = a.MaxChunk
	}
	return err
}

// feed sends n bytes, from a goroutine, and then ends the content.
func (s *shared) feed(t *testing.T, n int64) {
	s.done = make(chan error, 1)
	go func() {
		for at := int64(0); at < n; {
			c := rawChunk(at, make([]byte, min(int64(s.chunk), n-at)))
			at = c.End()
			if err := s.Send(t.Context(), c); err != nil {
				s.done <- err
				return
			}
		}
		_, err := s.Finish(t.Context(), &Finish{Size: n})
		s.done <- err
	}()
}

// held is what has come and was not taken.
func (s *shared) held() int64 { return s.in.Load() - s.taken }

// take lets the sink take up to n bytes.
func (s *shared) take(n int64) {
	if n = min(n, s.held()); n > 0 {
		s.taken += n
		s.up.Load().Ack(s.taken)
	}
}

// In flight is at most what each transfer's share allows: less when more
// join, more when they leave, and never more than the budget together.
func TestTransfersShareTheBudget(t *testing.T) {
	const size, content = 4 << 20, 1 << 30
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(size)
		var all []*shared
		inFlight := func() {
			for range 60 {
				sum := int64(0)
				for _, s := range all {
					sum += s.held()
				}
				require.LessOrEqual(t, sum, share(size))
				for _, s := range all {
					before := s.taken
					s.take(int64(s.chunk))
					require.Greater(t, s.taken, before, "starved")
				}
				synctest.Wait()
			}
		}
		alone := int64(0)
		for n := 1; n <= 8; n++ {
			s := &shared{}
			s.open(t, b, -1)
			s.feed(t, content)
			all = append(all, s)
			synctest.Wait()
			inFlight()
			if n == 1 {
				alone = all[0].held()
				assert.InDelta(t, share(size)/2, alone, creditChunk)
			}
			assert.InDelta(t, share(size)/int64(n+1), all[0].held(), creditChunk, "with %d", n)
		}
		for _, s := range all[1:] {
			s.Close()
		}
		all = all[:1]
		synctest.Wait()
		inFlight()
		assert.InDelta(t, alone, all[0].held(), creditChunk, "still small when the others have left")
	})
}

// With the smallest budget and more transfers than fit at once, each gets
// through, and is let in without being told to come again.
func TestEverybodyGetsThroughTheSmallestBudget(t *testing.T) {
	const n, content = 40, 300_001
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(MinMemory)
		ended := make(chan error, n)
		for range n {
			go func() {
				s := &shared{}
				if err := s.offer(t, b, content); err != nil {
					ended <- err
					return
				}
				s.feed(t, content)
				for {
					select {
					case err := <-s.done:
						if err == nil && s.taken != content {
							err = fmt.Errorf("only %d bytes", s.taken)
						}
						s.Close()
						ended <- err
						return
					case <-time.After(time.Millisecond):
						s.take(math.MaxInt64)
					}
				}
			}()
		}
		for range n {
			require.NoError(t, <-ended)
		}
		synctest.Wait()
		assert.Zero(t, b.Used())
	})
}

func TestSmallFilesNeedLittleOfTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(MinMemory)
		for range 100 {
			(&shared{}).open(t, b, 4000)
		}
		assert.EqualValues(t, 100*whole(4000), b.Used())
	})
}

// A sender that ignores the limit is refused.
func TestChunkBeyondTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := memPipe(1 << 22)
		p := newRawPeer(t, near)
		b := NewBudget(MinMemory)
		done := make(chan error, 1)
		go func() {
			_, err := NewReceiver(far, NewFrameReader(far), offer(-1), takeNothing(), DefaultWindow).Within(b).Run(t.Context())
			done <- err
		}()
		f, err := p.next()
		require.NoError(t, err)
		require.Equal(t, KindLimit, f.Kind, "the limit has to come before the Accept, which allows a whole window")
		limit, err := ParseLimit(f.Payload)
		require.NoError(t, err)
		assert.EqualValues(t, share(MinMemory/2), limit)
		a := expect[*Accept](p)
		assert.EqualValues(t, DefaultWindow, a.Window)
		for at := int64(0); at <= limit; at += int64(a.MaxChunk) {
			p.chunk(at, make([]byte, a.MaxChunk))
		}
		p.expectReject(CodeWindow)
		near.Close()
		<-done
		assert.Zero(t, b.Used())
	})
}

// A limit holds chunks back, and what is queued behind them; not what is said
// out of turn.
func TestLimitHoldsTheWriterUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		h.setMost(10)
		h.pushChunk(rawChunk(0, make([]byte, 10)))
		h.pushChunk(rawChunk(10, make([]byte, 10)))
		h.push(AppendFrame(nil, KindFinish, 0, nil))
		next := func() Kind {
			f, err := h.peer.frames.Next()
			require.NoError(t, err)
			return f.Kind
		}
		assert.Equal(t, KindQuery, next())
		assert.Equal(t, KindChunk, next())
		synctest.Wait()
		assert.Zero(t, h.peer.pending())
		h.sendPong()
		assert.Equal(t, KindPong, next())
		h.setMost(5) // cannot be taken back
		h.setMost(20)
		assert.Equal(t, KindChunk, next())
		assert.Equal(t, KindFinish, next())
	})
}
