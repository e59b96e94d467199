// Many pushes at once.

package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// watcher notes what it is told, and counts the pushes under way at each Begin.
type watcher struct {
	begun, ended []int
	errs         []error
}

func (w *watcher) Begin(i int) func(client.Progress) {
	w.begun = append(w.begun, i)
	return nil
}

func (w *watcher) End(i int, _ []client.Receipt, err error) {
	w.ended = append(w.ended, i)
	w.errs = append(w.errs, err)
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// crowd is a hook that counts how many are between Create and Publish.
type crowd struct{ now, most atomic.Int32 }

func (c *crowd) enter(context.Context) error {
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	return nil
}

func (c *crowd) leave(context.Context) error {
	c.now.Add(-1)
	return nil
}

func manySources(n, size int) []client.Source {
	all := make([]client.Source, n)
	for i := range all {
		all[i] = bytesSource(fmt.Sprintf("file-%03d", i), random(size+i))
	}
	return all
}

func TestPushAll(t *testing.T) {
	for _, c := range []struct {
		name                  string
		files, size, parallel int
		most                  int32
	}{
		{name: "one after the other", files: 20, size: 4 << 10, parallel: 1, most: 1},
		{name: "a few", files: 60, size: 4 << 10, parallel: 3, most: 3},
		{name: "as many as is good", files: 100, size: 4 << 10, most: client.DefaultParallel},
		{name: "large ones", files: 5, size: 9 << 20, most: 2},
		{name: "none", files: 0, most: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, in := newStore(t), &crowd{}
			s.onCreate, s.onPublish = in.enter, in.leave
			hub := broadcaster(t, s)
			w := &watcher{}
			newClient(t, hub.addr).PushAll(patient(t), manySources(c.files, c.size), client.Options{Parallel: c.parallel}, w)
			require.Equal(t, upTo(c.files), append([]int{}, w.begun...))
			require.Equal(t, upTo(c.files), append([]int{}, w.ended...))
			require.NoError(t, errors.Join(w.errs...))
			for i := range c.files {
				s.assertFile(t, fmt.Sprintf("file-%03d", i), random(c.size+i))
			}
			require.LessOrEqual(t, in.most.Load(), c.most)
			if c.files > 0 {
				require.EqualValues(t, 1, hub.accepted.Load(), "sessions")
			}
		})
	}
}

// The first file goes alone, until it is known what the readers are like; then
// others pass it, and End waits for it.
func TestPushAllGoesAhead(t *testing.T) {
	s := newStore(t)
	first := newGate(t)
	var n atomic.Int32
	s.onPublish = func(ctx context.Context) error {
		if n.Add(1) == 1 {
			return first.hook(ctx)
		}
		if n.Load() == 50 {
			first.open()
		}
		return nil
	}
	w := &watcher{}
	newClient(t, reader(t, s).addr).PushAll(patient(t), manySources(50, 1000), client.Options{}, w)
	require.Equal(t, upTo(50), w.ended)
	require.NoError(t, errors.Join(w.errs...))
}

func TestPushAllOfWhichSomeFail(t *testing.T) {
	s := newStore(t)
	sources := manySources(40, 1000)
	sources[7], sources[20] = bytesSource("../up", nil), bytesSource("", nil)
	w := &watcher{}
	newClient(t, reader(t, s).addr).PushAll(patient(t), sources, client.Options{}, w)
	require.Equal(t, upTo(40), w.ended)
	for i, err := range w.errs {
		require.Equal(t, i == 7 || i == 20, err != nil, "%d: %v", i, err)
	}
}

// locked is a buffer that may be read when its writer has said over a
// connection that it is done: the race detector does not see that a writev
// comes before the read of what it wrote.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Bytes()
}

func TestPushAllInOrder(t *testing.T) {
	out := &locked{}
	store, err := sink.Open("-", sink.Options{Output: out})
	require.NoError(t, err)
	w := &watcher{}
	var want []byte
	for i := range 30 {
		want = append(want, random(1000+i)...)
	}
	hub := broadcast(t, reader(t, newStore(t)).addr, reader(t, store).addr)
	newClient(t, hub.addr).PushAll(patient(t), manySources(30, 1000), client.Options{}, w)
	require.NoError(t, errors.Join(w.errs...))
	require.True(t, bytes.Equal(want, out.Bytes()), "files came in another order")
}

func TestPushAllToNobody(t *testing.T) {
	w := &watcher{}
	newClient(t, down).PushAll(patient(t), manySources(1000, 1), client.Options{Timeout: 200 * time.Millisecond}, w)
	require.Equal(t, upTo(1000), w.ended)
	for _, err := range w.errs {
		assertCode(t, protocol.CodeUnreachable, err)
	}
	require.ErrorContains(t, w.errs[999], "not tried")
}

func TestPushAllInterrupted(t *testing.T) {
	s, g := newStore(t), newGate(t)
	s.onStage = g.hook
	ctx, cancel := context.WithCancelCause(patient(t))
	w := &watcher{}
	done := make(chan struct{})
	c := newClient(t, reader(t, s).addr)
	go func() {
		defer close(done)
		c.PushAll(ctx, manySources(500, 1000), client.Options{Parallel: 8}, w)
	}()
	for range 8 {
		receive(t, g.reached, "8 pushes to be under way")
	}
	cancel(protocol.ErrForget)
	receive(t, done, "PushAll to return")
	require.Equal(t, upTo(8), w.begun)
	require.Equal(t, upTo(8), w.ended)
	for _, err := range w.errs {
		assert.ErrorIs(t, err, protocol.ErrForget)
	}
	s.assertNothing(t)
}

// The limit is for all of them together, and a peer that allows few streams is
// not asked for more.
func TestPushAllLimits(t *testing.T) {
	s, in := newStore(t), &crowd{}
	s.onCreate, s.onPublish = in.enter, in.leave
	n := serve(t, leafOver(t, s), daemon.Options{Window: protocol.MaxWindow})
	w := &watcher{}
	begun := time.Now()
	newClient(t, n.addr).PushAll(patient(t), manySources(30, 10_000), client.Options{BWLimit: 1 << 20, ChunkSize: 10_100}, w)
	require.NoError(t, errors.Join(w.errs...))
	require.Greater(t, time.Since(begun), 200*time.Millisecond, "300 kB at 1 MiB/s")
	require.Less(t, in.most.Load(), int32(client.DefaultParallel))
}
