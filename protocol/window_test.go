package protocol

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errLost = errors.New("connection lost")

// fill reserves chunks of n bytes until the window has end bytes in it.
func fill(t *testing.T, w *window, n int, end int64) (chunks []*Chunk) {
	t.Helper()
	for offset := w.acked; offset < end; offset += int64(n) {
		c := rawChunk(offset, make([]byte, n))
		require.NoError(t, w.reserve(t.Context(), c))
		chunks = append(chunks, c)
	}
	return chunks
}

func TestChunkIsReleasedOnceAckedAndWritten(t *testing.T) {
	w := newWindow(minWindow, 0)
	chunks := fill(t, w, 100, 300)

	w.written(100)
	assert.EqualValues(t, 1, chunks[0].refs.Load(), "released before its ack: it could not be sent again")
	require.NoError(t, w.ack(100))
	assert.Zero(t, chunks[0].refs.Load())

	require.NoError(t, w.ack(300))
	assert.EqualValues(t, 1, chunks[1].refs.Load(), "released while the writer may still read it")
	w.written(200)
	assert.Zero(t, chunks[1].refs.Load())
	assert.EqualValues(t, 1, chunks[2].refs.Load())
	w.written(300)
	assert.Zero(t, chunks[2].refs.Load())
	assert.Empty(t, w.chunks)
}

func TestPartlyAckedChunkIsKept(t *testing.T) {
	w := newWindow(minWindow, 0)
	chunks := fill(t, w, 100, 100)
	w.written(100)
	require.NoError(t, w.ack(99))
	assert.EqualValues(t, 1, chunks[0].refs.Load())
	require.NoError(t, w.ack(100))
	assert.Zero(t, chunks[0].refs.Load())
}

func TestAckBeyondWhatWasSentIsRefused(t *testing.T) {
	w := newWindow(minWindow, 1000)
	assert.True(t, HasCode(w.ack(1001), CodeProtocol), "nothing was sent")
	fill(t, w, 100, 1100)
	err := w.ack(1101)
	assert.True(t, HasCode(err, CodeProtocol), "%v", err)
	assert.ErrorContains(t, err, "1101")
	assert.ErrorContains(t, err, "1100")
	assert.EqualValues(t, 1000, w.acked, "a refused ack counts")
	require.NoError(t, w.ack(1100))
	w.written(1100)
	assert.True(t, HasCode(w.ack(1101), CodeProtocol), "all that was sent is acked")
}

func TestAcksThatRepeatOrGoBackAreHarmless(t *testing.T) {
	w := newWindow(minWindow, 500)
	chunks := fill(t, w, 100, 800)
	w.written(800)
	for _, offset := range []int64{500, 0, 600, 600, 550, 499, 700, 600} {
		require.NoError(t, w.ack(offset))
	}
	assert.EqualValues(t, 700, w.acked)
	assert.Zero(t, chunks[1].refs.Load())
	assert.EqualValues(t, 1, chunks[2].refs.Load())
}

// blocked starts a reserve that must not return before wake.
func blocked(ctx context.Context, t *testing.T, w *window, c *Chunk) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- w.reserve(ctx, c) }()
	synctest.Wait()
	require.Empty(t, result, "reserve did not wait")
	return result
}

func TestReserveWaitsForCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = minWindow / 4
		w := newWindow(minWindow, 0)
		fill(t, w, n, minWindow)
		result := blocked(t.Context(), t, w, rawChunk(minWindow, make([]byte, n)))

		w.written(minWindow)
		require.NoError(t, w.ack(n-1))
		synctest.Wait()
		require.Empty(t, result, "reserve returned with too little credit")

		require.NoError(t, w.ack(n))
		synctest.Wait()
		require.Len(t, result, 1)
		assert.NoError(t, <-result)
	})
}

// A window full of 1-byte chunks would cost far more memory than it says.
func TestReserveWaitsWhenThereAreTooManyChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(minWindow, 0)
		most := int64(MaxInflight(minWindow))
		fill(t, w, 1, most)
		result := blocked(t.Context(), t, w, rawChunk(most, []byte("x")))
		require.NoError(t, w.ack(1))
		synctest.Wait()
		require.Empty(t, result, "the chunk that was acked is still the writer's")
		w.written(1)
		synctest.Wait()
		require.Len(t, result, 1)
		assert.NoError(t, <-result)
	})
}

func TestBlockedReserveEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(minWindow, 0)
		fill(t, w, minWindow/4, minWindow)
		ctx, cancel := context.WithCancelCause(t.Context())
		result := blocked(ctx, t, w, rawChunk(minWindow, []byte("x")))
		cancel(errLost)
		assert.Equal(t, errLost, <-result)
		assert.Len(t, w.chunks, 4, "a chunk that was not reserved is in the window")
	})
}

func TestBlockedReserveEndsWithTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(minWindow, 0)
		chunks := fill(t, w, minWindow/4, minWindow)
		result := blocked(t.Context(), t, w, rawChunk(minWindow, []byte("x")))
		w.close(errLost)
		w.close(errors.New("a later error"))
		assert.Equal(t, errLost, <-result)
		assert.Equal(t, errLost, w.reserve(t.Context(), chunks[0]), "the first error does not stick")

		w.written(minWindow)
		_ = w.ack(minWindow / 4) // too late to matter
		for _, c := range chunks {
			assert.EqualValues(t, 1, c.refs.Load(), "a chunk went back to its pool: after a failed write smux may still read it")
		}
	})
}

func TestStalledIsTheTimeWithoutAnAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(minWindow, 0)
		time.Sleep(time.Hour)
		since, _ := w.stalled()
		assert.Zero(t, since, "nothing is waiting for an ack")

		fill(t, w, 100, 200)
		since, _ = w.stalled()
		assert.Zero(t, since, "the hour before the chunk counts")
		time.Sleep(3 * time.Second)
		fill(t, w, 100, 100) // the window is not empty: nothing new to wait for
		since, at := w.stalled()
		assert.Equal(t, 3*time.Second, since)
		assert.Zero(t, at)

		require.NoError(t, w.ack(100))
		since, at = w.stalled()
		assert.Zero(t, since)
		assert.EqualValues(t, 100, at)
		time.Sleep(2 * time.Second)
		require.NoError(t, w.ack(100))
		since, _ = w.stalled()
		assert.Equal(t, 2*time.Second, since, "an ack of nothing new counts as progress")
	})
}
