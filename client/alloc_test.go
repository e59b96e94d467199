//go:build !race

package client

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

// The race detector makes pools forget on purpose.
func TestRawChunksCostNoAllocation(t *testing.T) {
	const chunks = 20_000
	opened := 0
	content := bytes.Repeat(noise(testChunk), chunks)
	for _, mode := range []protocol.Compression{protocol.CompressNone, protocol.CompressAuto} {
		f := &feed{src: inMemory{content: content, opened: &opened}, size: int64(len(content)), pace: newPace(testChunk), alg: protocol.DigestXXH128, compress: mode}
		allocs := testing.AllocsPerRun(1, func() {
			f.close()
			require.NoError(t, f.send(t.Context(), null{f}, accepted(0), func(int) {}))
		})
		f.close()
		assert.Less(t, allocs, float64(chunks)/20, "%s: for %d chunks", mode, chunks)
	}
}
