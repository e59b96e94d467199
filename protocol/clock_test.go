package protocol

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Clock
		time.Sleep(time.Second)
		assert.Zero(t, c.Spent(), "nothing has begun")
		c.Enter(StageContent)
		time.Sleep(time.Second)
		c.Enter(StageContent)
		time.Sleep(time.Second)
		assert.Equal(t, Spent{Content: 2}, c.Spent(), "with the stage that has not ended")
		c.Enter(StageLink)
		time.Sleep(time.Second)
		c.wait(StageCredit)
		time.Sleep(time.Second)
		assert.Equal(t, Spent{Content: 2, Link: 2}, c.Spent(), "a write is under way until its writer says otherwise")
		c.Enter(StageCredit)
		time.Sleep(time.Second)
		c.Enter(StageNone)
		time.Sleep(time.Hour)
		assert.Equal(t, Spent{Content: 2, Link: 2, Credit: 1}, c.Spent())
		assert.Zero(t, testing.AllocsPerRun(100, func() { c.Enter(StageSink); c.Enter(StageContent) }))
	})
}

func TestSpent(t *testing.T) {
	s := Spent{Content: 1.00049, Link: 2, Credit: 3, Sink: 4, Sync: 5, Publish: 6}
	assert.Equal(t, Spent{1, 2, 3, 4, 5, 6}, s.Round())
	assert.Equal(t, Spent{2, 4, 6, 8, 10, 12}, s.Round().Add(s.Round()))
	var names []string
	s.Round().Each(func(stage string, seconds float64) {
		names = append(names, stage)
		assert.InDelta(t, len(names), seconds, 0)
	})
	assert.Equal(t, []string{"content", "link", "credit", "sink", "sync", "publish"}, names)
}

// The time of one chunk at a time is taken, the shortest is kept.
func TestWindowTakesTheTimeOfARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(1<<20, 0)
		chunk := func(offset int64) {
			c := NewChunk(10)
			c.Seal(offset, 10, CodecRaw, 10)
			require.NoError(t, w.reserve(t.Context(), c))
			w.written(c.End())
		}
		assert.Zero(t, w.round())
		chunk(0)
		time.Sleep(3 * time.Second)
		chunk(10)
		time.Sleep(time.Second)
		assert.Equal(t, int64(20), w.owed())
		require.NoError(t, w.ack(10))
		assert.Equal(t, 4*time.Second, w.round())
		chunk(20)
		time.Sleep(time.Second)
		require.NoError(t, w.ack(30))
		assert.Equal(t, time.Second, w.round())
		chunk(30)
		time.Sleep(time.Minute)
		require.NoError(t, w.ack(40))
		assert.Equal(t, time.Second, w.round())
		assert.Zero(t, w.owed())
	})
}
