package protocol

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// memStream is one end of a Stream in memory. It behaves as a smux stream
// does where that matters: what was written before Close is still read, then
// io.EOF comes, also when the process at the other end was killed; and a Write
// does not notice that the peer has closed. It works inside synctest.
type memStream struct{ in, out *half }

// memPipe returns both ends; each may have limit bytes on the way, then writes wait.
func memPipe(limit int) (a, b *memStream) {
	x, y := newHalf(limit), newHalf(limit)
	return &memStream{in: x, out: y}, &memStream{in: y, out: x}
}

func (m *memStream) Read(p []byte) (int, error)  { return m.in.read(p) }
func (m *memStream) Write(p []byte) (int, error) { return m.out.write(p) }

func (m *memStream) CloseWrite() error {
	m.out.end(io.EOF)
	return nil
}

func (m *memStream) Close() error {
	m.in.drop()
	m.out.end(io.EOF)
	return nil
}

// breakWith makes the peer's Read fail with err after what was written so far.
func (m *memStream) breakWith(err error) { m.out.end(err) }

// pending is how many bytes wait to be read.
func (m *memStream) pending() int {
	m.in.mu.Lock()
	defer m.in.mu.Unlock()
	return len(m.in.buf)
}

// half is one direction of a memPipe.
type half struct {
	limit int

	mu      sync.Mutex
	changed *sync.Cond
	buf     []byte
	ended   error // by the writer: what Read returns after buf
	dropped bool  // by the reader
}

func newHalf(limit int) *half {
	h := &half{limit: limit}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) == 0 && h.ended == nil && !h.dropped {
		h.changed.Wait()
	}
	switch {
	case h.dropped:
		return 0, io.ErrClosedPipe
	case len(h.buf) == 0:
		return 0, h.ended
	}
	n := copy(p, h.buf)
	h.buf = h.buf[:copy(h.buf, h.buf[n:])]
	h.changed.Broadcast()
	return n, nil
}

func (h *half) write(p []byte) (written int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for written < len(p) {
		for len(h.buf) >= h.limit && h.ended == nil && !h.dropped {
			h.changed.Wait()
		}
		switch {
		case h.ended != nil:
			return written, io.ErrClosedPipe
		case h.dropped:
			return len(p), nil
		}
		n := min(h.limit-len(h.buf), len(p)-written)
		h.buf = append(h.buf, p[written:written+n]...)
		written += n
		h.changed.Broadcast()
	}
	return written, nil
}

func (h *half) end(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended == nil {
		h.ended = err
	}
	h.changed.Broadcast()
}

func (h *half) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped, h.buf = true, nil
	h.changed.Broadcast()
}

func TestPipe(t *testing.T) {
	a, b := Pipe()
	content := random(2*pipeBuffer+1, 14) // more than fits
	var wrote error
	var wg sync.WaitGroup
	wg.Go(func() {
		_, wrote = a.Write(content)
		a.CloseWrite()
	})
	got, err := io.ReadAll(b)
	wg.Wait()
	require.NoError(t, err)
	require.NoError(t, wrote)
	assert.True(t, bytes.Equal(content, got))

	_, err = a.Write([]byte("x"))
	assert.Equal(t, io.ErrClosedPipe, err, "after CloseWrite")
	_, err = b.Write([]byte("back"))
	require.NoError(t, err, "half closed")
	b.Close()
	got, err = io.ReadAll(a)
	require.NoError(t, err)
	assert.Equal(t, "back", string(got), "what was written before Close is lost")
	_, err = b.Read(make([]byte, 1))
	assert.Equal(t, io.ErrClosedPipe, err)
}

func TestPipeLetsGoOfAWriterThatWaits(t *testing.T) {
	for name, end := range map[string]struct {
		do   func(a, b Stream)
		want error
	}{
		"own close":  {func(a, _ Stream) { a.Close() }, io.ErrClosedPipe},
		"peer close": {func(_, b Stream) { b.Close() }, nil}, // as with smux, it does not notice
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := Pipe()
				wrote := make(chan error, 1)
				go func() {
					_, err := a.Write(make([]byte, 2*pipeBuffer))
					wrote <- err
				}()
				synctest.Wait()
				require.Empty(t, wrote, "nothing holds the writer back")
				end.do(a, b)
				assert.Equal(t, end.want, <-wrote)
			})
		})
	}
}

// The tests of transfers stand on these.
func TestMemPipe(t *testing.T) {
	a, b := memPipe(4)
	var wrote error
	var wg sync.WaitGroup
	wg.Go(func() {
		_, wrote = a.Write([]byte("more than fits"))
		a.CloseWrite()
	})
	got, err := io.ReadAll(b)
	wg.Wait()
	require.NoError(t, err)
	require.NoError(t, wrote)
	assert.Equal(t, "more than fits", string(got))

	_, err = b.Write([]byte("back"))
	require.NoError(t, err, "half closed")
	b.breakWith(errLost)
	got, err = io.ReadAll(a)
	assert.Equal(t, "back", string(got))
	assert.Equal(t, errLost, err)

	a.Close()
	_, err = a.Read(make([]byte, 1))
	assert.Equal(t, io.ErrClosedPipe, err)
}
