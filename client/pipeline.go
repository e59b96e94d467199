// The pipeline: chunks between the source and the Sender, some of them on
// their way through a compressor.

package client

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// pipeline seals chunks in parallel and gives them back in order. It holds at
// most its depth of them, two for each worker and two more, and never more
// than a window: with a compressed copy of each, that is what a push costs in
// memory beyond the window. With 2 cores and chunks of 256 KiB it is 1.5 MiB.
//
// Put, take and close are called by one goroutine. Workers are started when
// there is something for them to compress: chunks that stay raw pass through
// without another goroutine, for a hand-off costs more than sealing one.
type pipeline struct {
	workers int
	jobs    []job // a ring: count of them from head on
	head    int
	count   int
	work    chan *job     // nil while there are no workers; has room for all jobs
	wake    chan struct{} // capacity 1: a worker has sealed something
	started int           // workers
	running sync.WaitGroup
}

// job is a chunk's place in the ring.
type job struct {
	chunk  *protocol.Chunk // sealed when done
	offset int64
	n      int
	took   time.Duration // to compress it
	done   atomic.Bool
}

func newPipeline(chunk int, window int64) *pipeline {
	workers := runtime.GOMAXPROCS(0)
	depth := min(2*workers+2, max(int(window/int64(chunk)), 2))
	return &pipeline{
		workers: min(workers, depth), jobs: make([]job, depth),
		wake: make(chan struct{}, 1),
	}
}

// encoders keeps what each worker needs, 130 KiB, between pushes.
var encoders = sync.Pool{New: func() any { return protocol.NewEncoder(protocol.CompressLZ4) }}

// put adds the first n bytes of c, whose reference it takes: the content at
// offset. The pipeline must not be full.
func (p *pipeline) put(c *protocol.Chunk, offset int64, n int, compress bool) {
	if p.full() {
		panic("client: put into a full pipeline")
	}
	j := &p.jobs[(p.head+p.count)%len(p.jobs)]
	p.count++
	j.chunk, j.offset, j.n, j.took = c, offset, n, 0
	if !compress {
		c.Seal(offset, n, protocol.CodecRaw, n)
		j.done.Store(true)
		return
	}
	j.done.Store(false)
	if p.work == nil {
		p.work = make(chan *job, len(p.jobs))
	}
	if p.started < min(p.workers, p.count) {
		p.started++
		p.running.Go(p.run)
	}
	p.work <- j
}

// run is a worker. It waits for nothing but work.
func (p *pipeline) run() {
	encoder := encoders.Get().(*protocol.Encoder)
	defer encoders.Put(encoder)
	for j := range p.work {
		begun := time.Now()
		j.chunk = encoder.Seal(j.chunk, j.offset, j.n)
		j.took = time.Since(begun)
		j.done.Store(true)
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

func (p *pipeline) empty() bool { return p.count == 0 }
func (p *pipeline) full() bool  { return p.count == len(p.jobs) }

// ready reports whether the next chunk is sealed.
func (p *pipeline) ready() bool { return p.count > 0 && p.jobs[p.head].done.Load() }

// take returns the next chunk, sealed, with the pipeline's reference, and how
// long a worker took for it. The wait for that is bounded by what is in the
// pipeline: a few milliseconds. The pipeline must not be empty.
func (p *pipeline) take() (*protocol.Chunk, time.Duration) {
	j := &p.jobs[p.head]
	for !j.done.Load() {
		<-p.wake
	}
	c := j.chunk
	j.chunk = nil
	p.head = (p.head + 1) % len(p.jobs)
	p.count--
	return c, j.took
}

// close ends the workers and waits for them. What is in the pipeline is sealed
// then, and can still be taken.
func (p *pipeline) close() {
	if p.work != nil {
		close(p.work)
		p.running.Wait()
		p.work, p.started = nil, 0
	}
}
