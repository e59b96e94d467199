// Tests of small frames of many streams that are written together.

package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// gatedConn is a connection whose writes wait for its gate.
type gatedConn struct {
	net.Conn
	gate chan error // what the next write returns

	mu     sync.Mutex
	writes [][]byte
}

func newGatedConn() *gatedConn { return &gatedConn{gate: make(chan error)} }

func (c *gatedConn) Write(p []byte) (int, error) {
	if err := <-c.gate; err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, bytes.Clone(p))
	return len(p), nil
}

func (c *gatedConn) SetWriteDeadline(time.Time) error { return nil }

// batchLink is a link with as many streams open.
func batchLink(conn net.Conn, streams int) *link {
	l := newLink(conn, true, streams)
	for i := range streams {
		l.add(uint32(2*i + 1))
	}
	return l
}

// batchFrames splits what was written into stream and content.
func batchFrames(t *testing.T, b []byte) (frames []string) {
	t.Helper()
	for len(b) > 0 {
		n, id := int(binary.LittleEndian.Uint16(b[2:])), binary.LittleEndian.Uint32(b[4:])
		require.LessOrEqual(t, linkHeaderSize+n, len(b))
		frames = append(frames, fmt.Sprintf("%d %d %s", id, b[1], b[linkHeaderSize:linkHeaderSize+n]))
		b = b[linkHeaderSize+n:]
	}
	return frames
}

// openBytes is how many bytes the batch has that takes frames.
func (q *batches) openBytes() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == nil {
		return 0
	}
	return len(q.open.frames)
}

// What is written while another write is under way goes out in one.
func TestBatch(t *testing.T) {
	conn := newGatedConn()
	l := batchLink(conn, 10)
	var open atomic.Bool
	var writing sync.WaitGroup
	send := func(i int) {
		writing.Go(func() {
			assert.NoError(t, l.send(uint32(2*i+1), fmt.Appendf(nil, "frame %d", i), false, &open))
		})
	}
	send(0)
	require.Eventually(t, func() bool { return isLocked(&l.wmu) && l.batches.openBytes() == 0 }, 5*time.Second, time.Millisecond)
	for i := 1; i < 10; i++ {
		send(i)
	}
	require.Eventually(t, func() bool { return l.batches.openBytes() == 9*(linkHeaderSize+len("frame 0")) }, 5*time.Second, time.Millisecond)
	n, err := l.WriteBuffers([][]byte{{linkVersion, cmdFIN, 0, 0, 3, 0, 0, 0}, nil})
	require.NoError(t, err, "smux does not wait")
	require.Equal(t, linkHeaderSize, n)
	conn.gate <- nil
	conn.gate <- nil
	writing.Wait()
	require.Len(t, conn.writes, 2)
	assert.Equal(t, []string{"1 2 frame 0"}, batchFrames(t, conn.writes[0]))
	together := batchFrames(t, conn.writes[1])
	assert.Len(t, together, 10)
	assert.Equal(t, "3 1 ", together[9])
	for i := 1; i < 10; i++ {
		assert.Contains(t, together, fmt.Sprintf("%d 2 frame %d", 2*i+1, i))
	}

	var closed atomic.Bool
	closed.Store(true)
	require.ErrorIs(t, l.send(5, []byte("late"), false, &closed), io.ErrClosedPipe)
}

func isLocked(mu *sync.Mutex) bool {
	if mu.TryLock() {
		mu.Unlock()
		return false
	}
	return true
}

// A large frame goes behind what was written before it, and a batch does not
// grow without an end.
func TestBatchIsBounded(t *testing.T) {
	conn := newGatedConn()
	l := batchLink(conn, 40)
	var open atomic.Bool
	var writing sync.WaitGroup
	send := func(i int) {
		writing.Go(func() {
			assert.NoError(t, l.send(uint32(2*i+1), make([]byte, batchFrame), false, &open))
		})
	}
	send(0) // which is held up writing, so that nobody takes the next batch
	require.Eventually(t, func() bool { return isLocked(&l.wmu) && l.batches.openBytes() == 0 }, 5*time.Second, time.Millisecond)
	for i := 1; i < 40; i++ { // six times batchMost
		send(i)
	}
	require.Eventually(t, func() bool { return l.batches.openBytes() >= batchMost }, 5*time.Second, time.Millisecond)
	_, _, err := l.batches.add(make([]byte, linkHeaderSize), []byte("more"), &open)
	require.ErrorIs(t, err, errBatchFull)
	most := batchMost + batchFrame + linkHeaderSize
	written := make(chan struct{})
	go func() {
		defer close(written)
		writing.Wait()
		assert.NoError(t, l.send(1, make([]byte, linkPayload), false, &open))
	}()
	for done := false; !done; {
		assert.LessOrEqual(t, l.batches.openBytes(), most)
		select {
		case conn.gate <- nil:
		case <-written:
			done = true
		}
	}
	assert.Len(t, batchFrames(t, bytes.Join(conn.writes, nil)), 41)
	assert.LessOrEqual(t, cap(l.batches.free), batchKept)
}

// When a batch cannot be written, all learn it, and nothing is written behind it.
func TestBatchThatFails(t *testing.T) {
	conn := newGatedConn()
	l := batchLink(conn, 10)
	var open atomic.Bool
	failed := make(chan error, 10)
	for i := range 10 {
		go func() { failed <- l.send(uint32(2*i+1), []byte("frame"), false, &open) }()
	}
	broken := errors.New("broken")
	conn.gate <- broken
	for range 10 {
		require.ErrorIs(t, <-failed, broken)
	}
	require.ErrorIs(t, l.send(1, make([]byte, batchFrame+1), false, &open), broken)
	require.ErrorIs(t, l.send(1, []byte("small"), false, &open), broken)
	require.Empty(t, conn.writes)
}
