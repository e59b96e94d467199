// Reading from a pipe, which may be silent for hours.

package client

import (
	"context"
	"io"
	"sync"
)

// pipeBuffer is how much is read ahead: four times what a pipe holds by default
// on Linux. A source that gives a little at a time fills larger chunks so.
const pipeBuffer = 256 << 10

// pipe reads in a goroutine of its own, so that whoever waits for content can
// be told to stop. What is read and not taken is kept for the next one who
// asks. The goroutine ends after stop, but a read under way cannot be ended: on
// standard input it lasts until something comes.
type pipe struct {
	r    io.Reader
	news chan struct{} // capacity 1: there is content, or an error

	mu         sync.Mutex
	room       *sync.Cond
	ring       []byte
	head, tail int // counts of bytes: content is from head to tail, modulo len(ring)
	err        error
	stopped    bool
}

func newPipe(r io.Reader) *pipe {
	p := &pipe{r: r, news: make(chan struct{}, 1), ring: make([]byte, pipeBuffer)}
	p.room = sync.NewCond(&p.mu)
	go p.run()
	return p
}

func (p *pipe) run() {
	for {
		b := p.free()
		if b == nil {
			return
		}
		n, err := p.r.Read(b) // b is not the taker's before tail says so
		p.mu.Lock()
		p.tail += n
		p.err = err
		p.mu.Unlock()
		select {
		case p.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// free waits for room to read into. It returns nil after stop.
func (p *pipe) free() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.tail-p.head == len(p.ring) && !p.stopped {
		p.room.Wait()
	}
	if p.stopped {
		return nil
	}
	at := p.tail % len(p.ring)
	return p.ring[at:min(len(p.ring), at+len(p.ring)-(p.tail-p.head))]
}

func (p *pipe) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.room.Broadcast()
}

// await waits for content and returns how much there is, so that slow input
// goes out as it comes. It returns 0 and nil when ended is closed first, or
// something comes from wake.
func (p *pipe) await(ctx context.Context, ended, wake <-chan struct{}) (int, error) {
	for {
		p.mu.Lock()
		n, err := p.tail-p.head, p.err
		p.mu.Unlock()
		if n > 0 || err != nil {
			if n > 0 {
				err = nil
			}
			return n, err
		}
		select {
		case <-p.news:
		case <-ended:
			return 0, nil
		case <-wake:
			return 0, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// take fills b with content, of which there must be as much.
func (p *pipe) take(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := copy(b, p.ring[p.head%len(p.ring):])
	copy(b[n:], p.ring)
	p.head += len(b)
	p.room.Signal()
}
