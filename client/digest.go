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

// digester hashes chunks in order. A slow hash gets a goroutine of its own.
type digester struct {
	hasher *protocol.Hasher
	queue  chan hashJob // nil: hash in write
	done   sync.WaitGroup
}

type hashJob struct {
	chunk *protocol.Chunk
	b     []byte
}

// aside reports whether a digest is better computed in a goroutine of its own.
// XXH128 is not: it takes 11 us for 256 KiB that were just read, less than it
// takes to fetch them into the cache of another core (30 us a chunk, read and
// sealed and all, against 44). BLAKE3 and SHA-256 take 80 and 170 us. Raw pushes
// over loopback on two cores, where the reader hashes too and a core is short,
// gained little: medians 0.71 and 0.72 s became 0.63 and 0.70 with BLAKE3 aside,
// 0.96 became 0.91 with SHA-256, and in a noisier run 1.46 became 1.53.
func aside(alg protocol.DigestAlg) bool {
	slow := alg == protocol.DigestSHA256 || alg == protocol.DigestBLAKE3
	return slow && runtime.GOMAXPROCS(0) > 1
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
