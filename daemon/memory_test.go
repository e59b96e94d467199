package daemon_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// meter is a sink that counts what another one has been given and has not
// acknowledged.
type meter struct {
	protocol.Sink
	mu         sync.Mutex
	held, peak int64
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held += n
	m.peak = max(m.peak, m.held)
}

// most is the most that was held.
func (m *meter) most() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peak
}

// metered is one transfer of a meter.
type metered struct {
	protocol.Transfer
	protocol.Upstream
	meter *meter

	mu             sync.Mutex
	received, took int64
}

func (m *meter) Begin(ctx context.Context, o *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	t := &metered{Upstream: up, meter: m}
	var a *protocol.Accept
	var err error
	t.Transfer, a, err = m.Sink.Begin(ctx, o, t)
	if err != nil {
		return nil, nil, err
	}
	return t, a, nil
}

func (t *metered) Write(c *protocol.Chunk) error {
	t.mu.Lock()
	t.received = c.End()
	t.mu.Unlock()
	t.meter.add(int64(c.RawLen))
	return t.Transfer.Write(c)
}

// Ack counts first: with the ack upstream the memory is somebody else's.
func (t *metered) Ack(offset int64) {
	t.mu.Lock()
	n := offset - t.took
	if n > 0 {
		t.took = offset
		t.meter.add(-n)
	}
	t.mu.Unlock()
	t.Upstream.Ack(offset)
}

// Fifty pushes at once through a broadcaster to a slow reader, both with room
// for two windows: neither ever holds more content than it may, and all
// pushes get through, whole.
func TestManyPushesStayWithinTheMemory(t *testing.T) {
	const pushes, size, memory = 50, 4 << 20, 16 << 20
	slow := newStore(t)
	slow.events = make(chan string, pushes*(size/(16<<10)+10))
	slow.writing = make(chan struct{})
	below, above := &meter{Sink: leafOver(t, slow)}, &meter{}
	r := serve(t, below, daemon.Options{Memory: memory})
	above.Sink = fanout(t, never, hop("r", r.addr))
	b := serve(t, above, daemon.Options{Memory: memory})

	content := random(size)
	errs := make(chan error, pushes)
	for i := range pushes {
		p := newPusher(t, b.addr)
		go func() {
			errs <- func() error {
				if err := p.offer(newOffer(fmt.Sprint("f", i), size, protocol.All)); err != nil {
					return err
				}
				if err := p.send(content); err != nil {
					return err
				}
				if _, err := p.finish(); err != nil {
					return err
				}
				_, err := p.commit()
				return err
			}()
		}()
	}
	// Nothing is stored until the reader has been given all that it may have.
	eventually(t, "all pushes to begin", func() bool { return len(b.Status().Transfers) == pushes })
	for range 400 {
		slow.writing <- struct{}{}
	}
	st := r.Status()
	assert.EqualValues(t, memory, st.MemoryMax)
	assert.Greater(t, st.Memory, int64(memory/2))
	assert.LessOrEqual(t, st.Memory, int64(memory))
	close(slow.writing)
	for range pushes {
		require.NoError(t, receive(t, errs, "a push to end"))
	}
	for i := range pushes {
		assertPublished(t, slow, fmt.Sprint("f", i), content)
	}
	for name, m := range map[string]*meter{"reader": below, "broadcaster": above} {
		t.Logf("%s: held %d KiB at most", name, m.most()>>10)
		assert.LessOrEqual(t, m.most(), int64(memory), name)
		assert.Greater(t, m.most(), int64(memory/3), "the %s made no use of its memory", name)
	}
	for _, n := range []*node{r, b} {
		eventually(t, "the memory to be given back", func() bool { return n.Status().Memory == 0 })
	}
}

// A broadcaster has a window for each push, its reader next to none: what the
// reader has no room for waits at the broadcaster, and no push stands still.
func TestReaderWithLessMemoryThanItsBroadcaster(t *testing.T) {
	s := newStore(t)
	s.events = make(chan string, 1<<20)
	m := &meter{Sink: leafOver(t, s)}
	r := serve(t, m, daemon.Options{Memory: protocol.MinMemory})
	b := serve(t, fanout(t, never, hop("r", r.addr)), daemon.Options{})
	content := random(1 << 20)
	errs := make(chan error, 20)
	for i := range cap(errs) {
		go func() {
			_, err := push(t, b.addr, newOffer(fmt.Sprint("f", i), len(content), protocol.All), content)
			errs <- err
		}()
	}
	for range cap(errs) {
		require.NoError(t, receive(t, errs, "a push to end"))
	}
	assert.LessOrEqual(t, m.most(), int64(protocol.MinMemory))
}
