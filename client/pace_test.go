package client

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sbcast/sbcast/protocol"
)

func TestPaceFollowsTheRate(t *testing.T) {
	p := newPace(0)
	p.begin(protocol.MaxChunk, 5<<20)
	now, acked := time.Unix(1e9, 0), int64(5<<20)
	step := func(bytes int64) int {
		now, acked = now.Add(paceEvery), acked+bytes
		return p.chunk(now, acked)
	}
	const enough = paceFast/10 + 1
	assert.Equal(t, DefaultChunkSize, p.chunk(now, acked), "nothing is known yet")
	assert.Equal(t, DefaultChunkSize, step(enough-1))
	assert.Equal(t, LargeChunkSize, step(enough))
	now = now.Add(paceEvery / 2)
	assert.Equal(t, LargeChunkSize, p.chunk(now, acked), "too early to say")
	now = now.Add(-paceEvery / 2)
	assert.Equal(t, DefaultChunkSize, step(0))
	assert.Equal(t, LargeChunkSize, step(enough))
	p.begin(protocol.MaxChunk, acked)
	assert.Equal(t, DefaultChunkSize, p.chunk(now, acked), "another attempt, perhaps another link")
}

func TestPaceKnowsAFastLinkEarly(t *testing.T) {
	const least = time.Second * paceEnough / paceFast // in which paceEnough makes a link fast
	for _, c := range []struct {
		took  time.Duration
		acked int64
		size  int
	}{
		{least, paceEnough, LargeChunkSize},
		{least + 1, paceEnough, DefaultChunkSize},
		{least, paceEnough - 1, DefaultChunkSize},
		{1, paceEnough, LargeChunkSize},
	} {
		now := time.Unix(1e9, 0)
		p := newPace(0)
		p.begin(protocol.MaxChunk, 0)
		p.chunk(now, 0)
		assert.Equal(t, c.size, p.chunk(now.Add(c.took), c.acked), "%+v", c)
	}
}

func TestPaceIsNotTakenInByABurst(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := newPace(0)
	p.begin(protocol.MaxChunk, 0)
	p.chunk(now, 0)
	now = now.Add(2 * paceEvery)
	assert.Equal(t, DefaultChunkSize, p.chunk(now, 1<<20))
	now = now.Add(1)
	assert.Equal(t, DefaultChunkSize, p.chunk(now, 1<<20+paceEnough), "after a stall")
}

func TestPaceKeepsToWhatIsSaid(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := newPace(4096)
	p.begin(protocol.MaxChunk, 0)
	assert.Equal(t, 4096, p.chunk(now, 0))
	assert.Equal(t, 4096, p.chunk(now.Add(paceEvery), 1<<40))
	p = newPace(0)
	p.begin(1000, 0)
	assert.Equal(t, 1000, p.chunk(now, 0), "what the daemon takes at most")
	assert.Equal(t, 1000, p.chunk(now.Add(paceEvery), 1<<40))
}
