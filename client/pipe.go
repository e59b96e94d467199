// Reading from a pipe, which may be silent for hours.

package client

import (
	"context"
	"io"
)

// pipeRead is how much is read at once: what a pipe holds by default on Linux.
const pipeRead = 64 << 10

// pipe reads in a goroutine of its own, so that whoever waits for content can
// be told to stop. A read that nobody waits for any more is kept for the next
// one. The goroutine ends after stop, but a read under way cannot be ended: on
// standard input it lasts until something comes.
type pipe struct {
	r    io.Reader
	want chan struct{}
	got  chan readResult // capacity 1
	busy bool            // of the one caller: a read is under way
	rest []byte          // of the last read
	err  error           // to be returned after rest
}

type readResult struct {
	b   []byte
	err error
}

func newPipe(r io.Reader) *pipe {
	p := &pipe{r: r, want: make(chan struct{}), got: make(chan readResult, 1)}
	go p.run()
	return p
}

func (p *pipe) run() {
	buf := make([]byte, pipeRead)
	for range p.want {
		n, err := p.r.Read(buf)
		p.got <- readResult{buf[:n], err}
	}
}

func (p *pipe) stop() { close(p.want) }

// read reads what is there, so that slow input goes out as it comes. It
// returns 0 and nil when ended is closed first, or something comes from wake.
func (p *pipe) read(ctx context.Context, ended, wake <-chan struct{}, b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if !p.busy {
			p.want <- struct{}{}
			p.busy = true
		}
		select {
		case r := <-p.got:
			p.busy, p.rest, p.err = false, r.b, r.err
		case <-ended:
			return 0, nil
		case <-wake:
			return 0, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
