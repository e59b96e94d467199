package protocol

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is kept for reuse is bounded, whatever sizes were in use, and used again
// before memory is taken.
func TestKeptMemoryIsBounded(t *testing.T) {
	if !hugePages() {
		t.Skip("chunks are in Go's heap here")
	}
	const most = sharedKept/(1<<20) + 4
	var chunks []*Chunk
	for i := range 2 * most {
		c := newChunk((1 + i%2) << 20)
		require.NotNil(t, c.mem)
		chunks = append(chunks, c)
	}
	for _, c := range chunks {
		c.Release()
	}
	kept.Lock()
	var bytes int
	for _, class := range kept.chunks {
		for _, c := range class {
			bytes += len(c.buf)
		}
	}
	assert.Equal(t, bytes, kept.bytes)
	assert.LessOrEqual(t, bytes, sharedKept)
	assert.Greater(t, bytes, sharedKept/2)
	kept.Unlock()

	c := newChunk(1 << 20)
	assert.Contains(t, chunks, c)
	c.Release()
}
