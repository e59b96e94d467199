package daemon

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/sbcast/sbcast/protocol"
)

// keepChunks keeps n chunks of size bytes.
func keepChunks(r *retained, n, size int) {
	e := protocol.NewEncoder(protocol.CompressNone)
	for i := range n {
		r.keep(e.Seal(protocol.NewChunk(size), int64(i*size), size))
	}
}

func TestRetainedFindsWhatItHas(t *testing.T) {
	var r retained
	keepChunks(&r, 10, 7)
	r.drop(21)
	for offset := range int64(80) {
		c := r.at(offset)
		if offset < 21 || offset >= 70 {
			assert.Nil(t, c, "%d", offset)
			continue
		}
		assert.LessOrEqual(t, c.Offset, offset)
		assert.Greater(t, c.End(), offset)
		c.Release()
	}
	assert.True(t, r.has(21, 70))
	assert.True(t, r.has(70, 70))
	assert.False(t, r.has(20, 70))
}

// A chunk of one byte takes 4 KiB: they are counted too.
func TestRetainedIsBoundedInChunks(t *testing.T) {
	var r retained
	keepChunks(&r, 100, 1)
	r.limit(10, 95)
	assert.False(t, r.has(89, 100))
	assert.True(t, r.has(90, 100))
	r.limit(1, 95)
	assert.True(t, r.has(95, 100), "what somebody needs is kept")
	assert.False(t, r.has(94, 100))
}
