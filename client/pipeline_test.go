package client

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

func filled(content []byte) *protocol.Chunk {
	c := protocol.NewChunk(len(content))
	copy(c.Buffer(), content)
	return c
}

// Small chunks overtake large ones in the workers, raw ones all others. They
// come out as they went in.
func TestPipelineKeepsTheOrder(t *testing.T) {
	p := newPipeline(1<<20, 64<<20)
	defer p.close()
	large, small := text(1<<20), noise(100)
	offset, next := int64(0), int64(0)
	take := func() {
		c, took := p.take()
		assert.Equal(t, next, c.Offset)
		assert.Equal(t, c.Codec == protocol.CodecLZ4, took > 0 && c.RawLen == len(large))
		next = c.End()
		c.Release()
	}
	for i := range 200 {
		content := large
		if i%3 > 0 {
			content = small
		}
		if p.full() {
			take()
		}
		p.put(filled(content), offset, len(content), i%3 < 2)
		offset += int64(len(content))
	}
	for !p.empty() {
		take()
	}
	assert.Equal(t, offset, next)
}

func TestPipelineIsBounded(t *testing.T) {
	for _, c := range []struct {
		chunk  int
		window int64
	}{{4096, 16 << 10}, {DefaultChunkSize, protocol.DefaultWindow}, {protocol.MaxChunk, 16 << 20}, {1, 1}} {
		p := newPipeline(c.chunk, c.window)
		n := 0
		for ; !p.full(); n++ {
			p.put(filled([]byte("x")), int64(n), 1, n%2 == 0)
		}
		assert.LessOrEqual(t, n, 2*runtime.GOMAXPROCS(0)+2)
		assert.LessOrEqual(t, int64(n*c.chunk), max(c.window, 2))
		assert.GreaterOrEqual(t, n, 2, "one to fill, one to send")
		assert.PanicsWithValue(t, "client: put into a full pipeline", func() { p.put(nil, 0, 0, false) })
		p.close()
		for ; n > 0; n-- {
			c, _ := p.take()
			c.Release()
		}
		assert.True(t, p.empty())
	}
}

func TestPipelineCloseSealsEverything(t *testing.T) {
	p := newPipeline(1<<20, 64<<20)
	content := text(1 << 20)
	n := 0
	for ; !p.full(); n++ {
		p.put(filled(content), int64(n), len(content), true)
	}
	p.close()
	for i := range n {
		require.True(t, p.ready(), "chunk %d", i)
		c, _ := p.take()
		assert.Equal(t, protocol.CodecLZ4, c.Codec)
		c.Release()
	}
	p.close() // again
}

// Workers come with the first chunk to compress.
func TestRawChunksNeedNoWorkers(t *testing.T) {
	p := newPipeline(4096, 64<<10)
	for range 100 {
		p.put(filled([]byte("x")), 0, 1, false)
		require.True(t, p.ready())
		c, took := p.take()
		assert.Zero(t, took)
		c.Release()
	}
	assert.Nil(t, p.work)
}

func TestDigesterIsTheSameInAGoroutine(t *testing.T) {
	content := noise(100_003)
	for _, alg := range []protocol.DigestAlg{protocol.DigestXXH128, protocol.DigestSHA256, protocol.DigestBLAKE3, protocol.DigestNone} {
		for _, own := range []bool{false, true} {
			h := protocol.NewHasher(alg)
			at := 0
			for at < len(content) { // attempts, of ten chunks each
				d := newDigester(h, own)
				for range 10 {
					b := content[at:min(at+1000, len(content))]
					c := filled(b)
					d.write(c, len(b))
					c.Seal(int64(at), len(b), protocol.CodecRaw, len(b)) // while it is hashed
					c.Release()
					at += len(b)
				}
				d.close()
			}
			assert.Equal(t, digestOf(alg, content), h.Digest(), "%s, own goroutine: %v", alg, own)
		}
	}
}

// A hash that cannot keep up holds the reading up: what waits is bounded.
func TestDigesterIsBounded(t *testing.T) {
	d := &digester{hasher: protocol.NewHasher(protocol.DigestNone), queue: make(chan hashJob, digestQueue)}
	wrote := make(chan int, 100)
	go func() {
		for i := range digestQueue + 1 {
			d.write(filled([]byte("x")), 1)
			wrote <- i
		}
		close(wrote)
	}()
	for range digestQueue {
		<-wrote
	}
	select {
	case <-wrote:
		assert.Fail(t, "more than the queue waits")
	case <-time.After(10 * time.Millisecond):
	}
	d.done.Go(d.run)
	<-wrote
	d.close()
}
