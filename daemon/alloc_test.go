//go:build !race

// What a chunk costs the garbage collector.

package daemon_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// In steady state a chunk allocates nothing on its way: not at the sender, nor
// at the broadcaster, nor at the reader. What is left is for what is counted
// in time, acks and progress, and buffers that the collector took back.
func TestChunksAllocateNothing(t *testing.T) {
	discard, err := sink.Open("discard:", sink.Options{})
	require.NoError(t, err)
	r := reader(t, discard)
	b := serve(t, fanout(t, never, hop("r1", r.addr)), daemon.Options{})
	const few, many = 200, 2200
	allocs := func(name string, chunks int) uint64 {
		p := begin(t, b.addr, newOffer(name, chunks*piece, protocol.All))
		content := random(piece)
		ctx := patient(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range chunks {
			_, _ = p.hasher.Write(content)
			c := protocol.NewChunk(piece)
			copy(c.Buffer(), content)
			c.Seal(p.sent, piece, protocol.CodecRaw, piece)
			p.sent += piece
			require.NoError(t, p.Send(ctx, c))
		}
		p.complete()
		runtime.ReadMemStats(&after)
		return after.Mallocs - before.Mallocs
	}
	allocs("warm", few)
	base := allocs("few", few)
	grown := allocs("many", many)
	t.Logf("%d allocations for %d chunks, %d for %d", base, few, grown, many)
	assert.Less(t, float64(int64(grown)-int64(base))/(many-few), 0.5, "allocations for each chunk")
}
