// Pipe: a stream without a network.

package protocol

import (
	"io"
	"sync"
)

// pipeBuffer is what one direction of a Pipe holds before a Write waits.
const pipeBuffer = 256 << 10

// Pipe returns both ends of a Stream in memory, for what runs in one process
// and for tests in fake time. It behaves as a smux stream does where that
// matters: what was written before Close is still read, then io.EOF comes,
// whatever became of the writer, and a Write does not notice that the peer has
// closed.
func Pipe() (a, b Stream) {
	x, y := newPipeHalf(), newPipeHalf()
	return &pipeEnd{in: x, out: y}, &pipeEnd{in: y, out: x}
}

type pipeEnd struct{ in, out *pipeHalf }

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.out.write(b) }

func (p *pipeEnd) CloseWrite() error {
	p.out.end()
	return nil
}

func (p *pipeEnd) Close() error {
	p.in.drop()
	p.out.end()
	return nil
}

// pipeHalf is one direction.
type pipeHalf struct {
	mu      sync.Mutex
	changed *sync.Cond
	buf     []byte
	ended   bool // by the writer
	dropped bool // by the reader
}

func newPipeHalf() *pipeHalf {
	h := &pipeHalf{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *pipeHalf) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) == 0 && !h.ended && !h.dropped {
		h.changed.Wait()
	}
	switch {
	case h.dropped:
		return 0, io.ErrClosedPipe
	case len(h.buf) == 0:
		return 0, io.EOF
	}
	n := copy(b, h.buf)
	h.buf = h.buf[:copy(h.buf, h.buf[n:])]
	h.changed.Broadcast()
	return n, nil
}

func (h *pipeHalf) write(b []byte) (written int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for written < len(b) {
		for len(h.buf) >= pipeBuffer && !h.ended && !h.dropped {
			h.changed.Wait()
		}
		switch {
		case h.ended:
			return written, io.ErrClosedPipe
		case h.dropped:
			return len(b), nil
		}
		n := min(pipeBuffer-len(h.buf), len(b)-written)
		h.buf = append(h.buf, b[written:written+n]...)
		written += n
		h.changed.Broadcast()
	}
	return written, nil
}

func (h *pipeHalf) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.changed.Broadcast()
}

func (h *pipeHalf) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped, h.buf = true, nil
	h.changed.Broadcast()
}
