package protocol

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func joined(t *testing.T, b *Budget, need int64) *portion {
	t.Helper()
	p, err := b.join(t.Context(), need)
	require.NoError(t, err)
	return p
}

func TestBudgetIsSharedFairly(t *testing.T) {
	const size = 12 << 20
	b := NewBudget(size)
	one := joined(t, b, 100)
	assert.EqualValues(t, size/2, one.resize(100, size), "as much as is free")
	assert.EqualValues(t, 1000, one.resize(100, 1000), "no more than wanted")

	// With others each has less, round by round, until they have the same.
	all := []*portion{one}
	for n := 2; n <= 5; n++ {
		all = append(all, joined(t, b, 100))
		for range 40 {
			for _, p := range all {
				p.resize(100, size)
			}
		}
		for _, p := range all {
			assert.InDelta(t, size/(n+1), p.n, 100, "of %d", n)
		}
	}
	// What one does not need is for the others.
	for range 40 {
		one.resize(100, 100)
		for _, p := range all[1:] {
			p.resize(100, size)
		}
	}
	assert.InDelta(t, size/5, all[1].n, 100)

	for _, p := range all {
		p.leave()
	}
	assert.Zero(t, b.Used())
}

func TestPortionKeepsWhatItCannotDoWithout(t *testing.T) {
	b := NewBudget(1000)
	one := joined(t, b, 900)
	assert.EqualValues(t, 900, one.resize(900, 900))
	assert.EqualValues(t, 500, one.resize(1, 1000))
	assert.Panics(t, func() { one.resize(1001, 1001) }, "overdrawn")
}

func TestOffersWaitForMemoryInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000)
		one := joined(t, b, 800)
		in := make(chan int, 2)
		join := func(n int, need int64) {
			go func() {
				if _, err := b.join(t.Context(), need); err == nil {
					in <- n
				}
			}()
			synctest.Wait()
		}
		join(1, 600)
		join(2, 100) // would fit, and has to wait for its turn
		assert.Empty(t, in)
		assert.EqualValues(t, 500, one.resize(1, 1000))
		assert.EqualValues(t, 500, one.resize(1, 1000), "grown before who waits")
		synctest.Wait()
		assert.Empty(t, in)
		assert.EqualValues(t, 300, one.resize(300, 300))
		synctest.Wait()
		require.Len(t, in, 2)
		assert.Equal(t, 3, <-in+<-in)
	})
}

func TestNoMemoryIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000)
		one := joined(t, b, 1000)
		begun := time.Now()
		_, err := b.join(t.Context(), 1)
		assert.True(t, HasCode(err, CodeBusy), "%v", err)
		assert.True(t, CodeBusy.Retryable())
		assert.Equal(t, budgetWait, time.Since(begun))

		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errLost)
		_, err = b.join(ctx, 1)
		assert.ErrorIs(t, err, errLost)

		for range budgetQueue {
			go func() { _, _ = b.join(t.Context(), 2000) }()
		}
		synctest.Wait()
		begun = time.Now()
		_, err = b.join(t.Context(), 1)
		assert.True(t, HasCode(err, CodeBusy), "%v", err)
		assert.Zero(t, time.Since(begun), "waited behind a full queue")
		one.leave()
		time.Sleep(budgetWait)
		synctest.Wait()
		assert.Empty(t, b.waiting)
		joined(t, b, 1000)
	})
}

// Whatever transfers do, what they may hold together is within the budget, and
// each may always send its next chunk.
func TestCreditIsNeverMoreThanTheBudget(t *testing.T) {
	type transfer struct {
		credit
		sent, acked int64
	}
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		b := NewBudget(MinMemory + rnd.Int64N(8<<20))
		var all []*transfer
		for range 1000 {
			if rnd.IntN(20) == 0 {
				size := []int64{-1, 0, 1, rnd.Int64N(100 << 10), rnd.Int64N(64 << 20)}[rnd.IntN(5)]
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				p, err := b.join(ctx, firstPortion(size))
				if err != nil {
					continue
				}
				tr := &transfer{credit: credit{portion: p}}
				offset := int64(0)
				if size > 0 {
					offset = rnd.Int64N(size + 1)
				}
				chunk := tr.open(offset, size, DefaultWindow>>rnd.IntN(8))
				require.GreaterOrEqual(t, chunk, creditLeast/4)
				tr.sent, tr.acked = offset, offset
				all = append(all, tr)
			}
			if len(all) == 0 {
				continue
			}
			i := rnd.IntN(len(all))
			tr := all[i]
			if room := min(tr.limit, tr.end) - tr.sent; room > 0 {
				tr.sent += min(room, 1+rnd.Int64N(tr.chunk))
			}
			if tr.sent > tr.acked && rnd.IntN(2) == 0 {
				tr.acked += 1 + rnd.Int64N(tr.sent-tr.acked)
				tr.ack(tr.acked)
			}
			switch {
			case rnd.IntN(50) == 0 || tr.acked == tr.end:
				tr.close()
				tr.ack(tr.sent) // late news
				all[i] = all[len(all)-1]
				all = all[:len(all)-1]
			case rnd.IntN(50) == 0 && !tr.done:
				tr.finish(tr.acked, tr.sent)
			}
			held := int64(0)
			for _, tr := range all {
				end := min(tr.limit, tr.end)
				held += end - tr.acked + tr.tail
				if !tr.done {
					require.GreaterOrEqual(t, end, min(tr.acked+tr.chunk, tr.end), "the next chunk does not fit")
				}
			}
			require.LessOrEqual(t, held, b.Used())
			require.LessOrEqual(t, b.Used(), b.Size())
		}
		for _, tr := range all {
			tr.close()
		}
		require.Zero(t, b.Used())
	}
}
