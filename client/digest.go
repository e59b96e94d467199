// The digest of what is read, off the critical path where that pays.

package client

import (
	"runtime"
	"sync"

	"github.com/sbcast/sbcast/protocol"
)

// digestQueue is how many chunks may wait for the digest, which bounds what it
// costs in memory and how long an end can take: 4 MiB of SHA-256, 10 ms.
const digestQueue = 4

// digester hashes chunks in order, where there are cores for it in a goroutine
// of its own.
type digester struct {
	hasher *protocol.Hasher
	queue  chan hashJob // nil: hash in write
	done   sync.WaitGroup
}

type hashJob struct {
	chunk *protocol.Chunk
	b     []byte
}

// aside reports whether a digest is computed in a goroutine of its own, where
// it costs no time as long as there is a core for it. With chunks of 1 MiB that
// makes 222 us for each 182 with XXH128, 777 into 690 with SHA-256; with chunks
// of 256 KiB it makes 29 us 32, and 190 180 (BenchmarkDigester). On two cores,
// where the broadcaster and the readers need both, pushes with XXH128 aside took
// a few percent longer: that is left to machines with more.
func aside(alg protocol.DigestAlg) bool {
	switch alg {
	case protocol.DigestSHA256, protocol.DigestBLAKE3:
		return runtime.GOMAXPROCS(0) > 1
	case protocol.DigestXXH128:
		return runtime.GOMAXPROCS(0) > 2
	case protocol.DigestNone:
	}
	return false
}

func newDigester(h *protocol.Hasher, aside bool) *digester {
	d := &digester{hasher: h}
	if aside {
		d.queue = make(chan hashJob, digestQueue)
		d.done.Go(d.run)
	}
	return d
}

func (d *digester) run() {
	for j := range d.queue {
		_, _ = d.hasher.Write(j.b)
		j.chunk.Release()
	}
}

// write adds the first n bytes of c, which may be sealed meanwhile: that
// writes around its content. It keeps a reference until they are hashed, and
// waits while too many chunks do.
func (d *digester) write(c *protocol.Chunk, n int) {
	b := c.Buffer()[:n]
	if d.queue == nil {
		_, _ = d.hasher.Write(b)
		return
	}
	d.queue <- hashJob{c.Retain(), b}
}

// close waits until everything is hashed. The hasher is the caller's again.
func (d *digester) close() {
	if d.queue != nil {
		close(d.queue)
		d.done.Wait()
	}
}
