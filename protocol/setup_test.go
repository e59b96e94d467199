package protocol

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// random returns n bytes that do not compress, the same for the same seed.
func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	src := rand.NewPCG(seed, seed)
	for i := range b {
		b[i] = byte(src.Uint64())
	}
	return b
}

// text returns n bytes that compress about as well as a log does.
func text(n int) []byte {
	src := rand.New(rand.NewPCG(1, 2))
	verbs := []string{"received", "published", "staged", "refused", "resumed", "opened"}
	b := make([]byte, 0, n+100)
	for len(b) < n {
		b = fmt.Appendf(b, "2024-05-01T12:%02d:%02d.%06dZ level=INFO msg=%q peer=10.0.%d.%d:%d bytes=%d\n", src.IntN(60), src.IntN(60),
			src.IntN(1e6), verbs[src.IntN(len(verbs))], src.IntN(256), src.IntN(256), src.IntN(65536), src.IntN(1<<30))
	}
	return b[:n]
}

// rawChunk returns a sealed chunk of content as it is.
func rawChunk(offset int64, content []byte) *Chunk {
	c := NewChunk(len(content))
	copy(c.Buffer(), content)
	c.Seal(offset, len(content), CodecRaw, len(content))
	return c
}

// readFrame reads the first frame in raw, which must be good.
func readFrame(t *testing.T, raw []byte) Frame {
	t.Helper()
	f, err := NewFrameReader(bytes.NewReader(raw)).Next()
	require.NoError(t, err)
	return f
}

// allocated is how many bytes f allocates. Other goroutines must be quiet.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// zeroAllocs requires that f allocates nothing once it is warm.
func zeroAllocs(t *testing.T, f func()) {
	t.Helper()
	if raceEnabled {
		t.Skip("sync.Pool drops objects at random under the race detector")
	}
	require.Zero(t, testing.AllocsPerRun(200, f))
}
