// Progress: what a push tells while it runs.

package client_test

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

// rank orders the states that a leaf passes.
var rank = []protocol.LeafState{
	protocol.LeafWaiting, protocol.LeafReceiving, protocol.LeafReady,
	protocol.LeafPublished, protocol.LeafUnchanged, protocol.LeafFailed,
}

// reports keeps the reports of one push, and checks that each follows from the last.
type reports struct {
	t    *testing.T
	busy atomic.Bool
	over atomic.Bool
	mu   sync.Mutex
	all  []client.Progress
}

func (r *reports) report(p client.Progress) {
	assert.False(r.t, r.busy.Swap(true), "one report at a time")
	defer r.busy.Store(false)
	assert.False(r.t, r.over.Load(), "nothing is told after Push has returned")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, p)
}

// check looks at what was reported, and returns the last.
func (r *reports) check(size int64) client.Progress {
	r.t.Helper()
	r.over.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	require.NotEmpty(r.t, r.all)
	before := client.Progress{}
	states := map[string]protocol.LeafState{}
	offsets := map[string]int64{}
	for i, p := range r.all {
		assert.Equal(r.t, "f", p.Name)
		assert.Equal(r.t, size, p.Size)
		assert.GreaterOrEqual(r.t, p.Elapsed, before.Elapsed)
		assert.GreaterOrEqual(r.t, p.Sent, before.Sent)
		assert.GreaterOrEqual(r.t, p.Acked, before.Acked)
		assert.LessOrEqual(r.t, p.Acked, p.Sent, "report %d: what is acknowledged was sent", i)
		if size >= 0 {
			assert.LessOrEqual(r.t, p.Sent, size)
		}
		for _, l := range p.Leaves {
			require.Contains(r.t, rank, l.State)
			assert.GreaterOrEqual(r.t, slices.Index(rank, l.State), slices.Index(rank, states[l.Name]),
				"report %d of %d: %s goes from %s back to %s", i, len(r.all), l.Name, states[l.Name], l.State)
			assert.GreaterOrEqual(r.t, l.Offset, offsets[l.Name], "offset of %s", l.Name)
			states[l.Name], offsets[l.Name] = l.State, l.Offset
		}
		before = p
	}
	return before
}

func TestProgress(t *testing.T) {
	content := random(3 << 20)
	for _, size := range []int64{int64(len(content)), -1} {
		eu := broadcaster(t, newStore(t), newStore(t))
		root := broadcast(t, reader(t, newStore(t)).addr, eu.addr)
		r := &reports{t: t}
		src := bytesSource("f", content)
		src.size = size
		_, err := newClient(t, root.addr).Push(patient(t), src, client.Options{ChunkSize: chunkSize, OnProgress: r.report})
		require.NoError(t, err)
		last := r.check(size)
		assert.Equal(t, int64(len(content)), last.Sent)
		assert.Equal(t, int64(len(content)), last.Acked)
		var names []string
		for _, l := range last.Leaves {
			names = append(names, l.Name)
			assert.Equal(t, protocol.LeafPublished, l.State)
			assert.Equal(t, int64(len(content)), l.Offset)
		}
		assert.Equal(t, []string{"r1", "r2/r1", "r2/r2"}, names, "the leaves, and no hop that is a tree")
	}
}

func TestProgressOfAFailedReader(t *testing.T) {
	good, bad := newStore(t), newStore(t)
	bad.onStage = fails(errFull)
	r := &reports{t: t}
	_, err := newClient(t, broadcaster(t, good, bad).addr).Push(patient(t), bytesSource("f", random(100000)), client.Options{
		Require: policy(t, "any"), OnProgress: r.report,
	})
	require.Error(t, err)
	last := r.check(100000)
	require.Len(t, last.Leaves, 2)
	assert.Equal(t, protocol.LeafPublished, last.Leaves[0].State)
	assert.Equal(t, protocol.LeafFailed, last.Leaves[1].State)
	assert.Equal(t, protocol.CodeNoSpace, last.Leaves[1].Code)
	assert.Equal(t, "the disk is full", last.Leaves[1].Text)
}

// A reader that is pushed to directly is called what the user called it.
func TestProgressOfADirectPush(t *testing.T) {
	r := &reports{t: t}
	addr := reader(t, newStore(t)).addr
	_, err := newClient(t, addr).Push(patient(t), bytesSource("f", random(1000)), client.Options{OnProgress: r.report})
	require.NoError(t, err)
	last := r.check(1000)
	require.Len(t, last.Leaves, 1)
	assert.Equal(t, addr, last.Leaves[0].Name)
}

// Progress is told now and then, and what was true a moment ago must not be
// told over what is true now: one reader is ready, another is long in publishing.
func TestProgressDoesNotGoBack(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	n := broadcaster(t, stores...)
	g := newGate(t)
	clock := ticker(t, n.addr)
	stores[1].onPublish = g.hook
	r := &reports{t: t}
	result, _ := start(t, newClient(t, n.addr), bytesSource("f", random(10*chunkSize)), client.Options{ChunkSize: chunkSize, OnProgress: r.report})
	receive(t, g.reached, "the reader to publish")
	for range 5 {
		clock()
	}
	g.open()
	require.NoError(t, receive(t, result, "Push to return").err)
	r.check(10 * chunkSize)
}

// ticker returns a function that waits until a push of its own has told of
// progress once more, which pushes do now and then.
func ticker(t *testing.T, addr string) (tick func()) {
	t.Helper()
	in, out := io.Pipe()
	told := make(chan client.Progress, 1<<16)
	result, _ := start(t, newClient(t, addr), client.Stream(in, "ticker"), client.Options{
		OnProgress: func(p client.Progress) { told <- p },
	})
	t.Cleanup(func() {
		out.CloseWithError(errEnough)
		receive(t, result, "the ticker's end")
	})
	return func() {
		for {
			_, err := out.Write(make([]byte, 1000))
			require.NoError(t, err)
			select {
			case <-told:
				return
			default:
			}
		}
	}
}

// A terminal that nobody reads holds up what is shown, not the push.
func TestProgressThatBlocks(t *testing.T) {
	s := newStore(t)
	gate := make(chan struct{})
	var told atomic.Int32
	content := random(12 << 20) // more than a window
	c, ctx := newClient(t, reader(t, s).addr), patient(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.Push(ctx, bytesSource("f", content), client.Options{OnProgress: func(client.Progress) {
			told.Add(1)
			<-gate
		}})
		done <- err
	}()
	require.Eventually(t, func() bool { return slices.Contains(s.files(t), "f") }, patience, time.Millisecond, "the file is published")
	assert.EqualValues(t, 1, told.Load(), "one report at a time")
	close(gate)
	require.NoError(t, receive(t, done, "the push to end"))
}
