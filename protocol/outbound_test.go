package protocol

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// held is an outbound whose writer is stuck in a write of one frame, so that
// a test can queue what it likes before anything else is written.
type held struct {
	*outbound
	peer *rawPeer
	errs []error
}

func hold(t *testing.T) *held {
	t.Helper()
	near, far := memPipe(1)
	h := &held{peer: newRawPeer(t, far)}
	h.outbound = newOutbound(near, near.CloseWrite, func(c *Chunk) { c.Release() }, func(err error) { h.errs = append(h.errs, err) })
	go h.run()
	t.Cleanup(func() {
		h.stop()
		near.Close()
		<-h.done
	})
	h.push(AppendFrame(nil, KindQuery, 0, nil))
	synctest.Wait()
	return h
}

// kinds are the frames that come until the write side is closed.
func (h *held) kinds() (kinds []Kind) {
	for {
		f, err := h.peer.frames.Next()
		if err != nil {
			require.Equal(h.peer.t, io.EOF, err)
			return kinds
		}
		kinds = append(kinds, f.Kind)
	}
}

func TestFramesGoOutByTheirUrgency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		h.setProgress([]Leaf{{State: LeafReceiving}})
		h.push(AppendFrame(nil, KindReady, 0, nil))
		h.pushChunk(rawChunk(0, []byte("x")))
		h.setAck(7)
		h.sendPing()
		h.sendPong()
		var kinds []Kind
		for range 7 {
			f, err := h.peer.frames.Next()
			require.NoError(t, err)
			kinds = append(kinds, f.Kind)
		}
		assert.Equal(t, []Kind{KindQuery, KindPong, KindPing, KindAck, KindReady, KindChunk, KindProgress}, kinds)
	})
}

func TestLastWordComesBeforeAllOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		for range 10 {
			h.pushChunk(rawChunk(0, []byte("x")))
		}
		h.setAck(7)
		h.lastWord(rejectFrame(errLost))
		h.finish()
		assert.Equal(t, []Kind{KindQuery, KindReject}, h.kinds(), "nothing follows the last word")
	})
}

func TestFinishWritesWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		h.push(AppendFrame(nil, KindReceipt, 0, nil))
		h.finish()
		h.push(AppendFrame(nil, KindReceipt, 0, nil))
		assert.Equal(t, []Kind{KindQuery, KindReceipt, KindReceipt}, h.kinds())
		<-h.done
	})
}

func TestStopEndsAfterTheWriteUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		h.push(AppendFrame(nil, KindReceipt, 0, nil))
		h.stop()
		f, err := h.peer.frames.Next()
		require.NoError(t, err)
		assert.Equal(t, KindQuery, f.Kind)
		<-h.done
		synctest.Wait()
		assert.Zero(t, h.peer.pending(), "written after stop")
		assert.Empty(t, h.errs)
	})
}

// However much a peer asks, and a sink acks, while the way out is blocked: one
// frame answers it.
func TestPongsAndAcksAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		for i := range int64(1000) {
			h.sendPong()
			h.sendPing()
			h.setAck(i)
		}
		h.finish()
		var acks []int64
		var kinds []Kind
		for {
			f, err := h.peer.frames.Next()
			if err != nil {
				break
			}
			kinds = append(kinds, f.Kind)
			if f.Kind == KindAck {
				offset, err := ParseAck(f.Payload)
				require.NoError(t, err)
				acks = append(acks, offset)
			}
		}
		assert.Equal(t, []Kind{KindQuery, KindPong, KindPing, KindAck}, kinds)
		assert.Equal(t, []int64{999}, acks)
	})
}

func TestWriteErrorIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		h.push(AppendFrame(nil, KindReceipt, 0, nil))
		h.closeW() // the write under way fails
		<-h.done
		assert.Equal(t, []error{io.ErrClosedPipe}, h.errs)
		h.push(AppendFrame(nil, KindReceipt, 0, nil)) // nobody writes it; must not block
		h.setAck(1)
		h.finish()
	})
}

// A queue that never runs empty must not grow for ever.
func TestQueueDoesNotGrowWithWhatWentThroughIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		frame := AppendFrame(nil, KindReceipt, 0, nil)
		for range 10 {
			h.push(frame)
		}
		for range 10_000 {
			h.push(frame)
			_, err := h.peer.frames.Next()
			require.NoError(t, err)
		}
		synctest.Wait()
		assert.LessOrEqual(t, cap(h.queue), 64)
	})
}

// progressFrames reads the Progress frames that have come.
func progressFrames(t *testing.T, p *rawPeer) (frames [][]Leaf) {
	t.Helper()
	synctest.Wait()
	for p.pending() > 0 {
		frames = append(frames, expect[*Progress](p).Leaves)
		synctest.Wait()
	}
	return frames
}

func TestProgressIsToldAtMostTenTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, &fakeSink{}, offer(-1))
		const seconds = 5
		for i := range int64(seconds * 1000) {
			h.r.Progress(Leaf{Name: "a", State: LeafReceiving, Offset: i}, Leaf{Name: "b", State: LeafReceiving, Offset: 2 * i})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(progressEvery)
		frames := progressFrames(t, h.rawPeer)
		assert.LessOrEqual(t, len(frames), 10*seconds+1)
		assert.Greater(t, len(frames), 9*seconds)
		assert.Equal(t, []Leaf{
			{Name: "a", State: LeafReceiving, Offset: 5*1000 - 1},
			{Name: "b", State: LeafReceiving, Offset: 2 * (5*1000 - 1)},
		}, frames[len(frames)-1], "the latest state is lost")
	})
}

func TestProgressCarriesOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, &fakeSink{}, offer(-1))
		a, b := Leaf{Name: "a", State: LeafReceiving}, Leaf{Name: "b", State: LeafWaiting}
		h.r.Progress(a)
		assert.Equal(t, [][]Leaf{{a}}, progressFrames(t, h.rawPeer), "the first progress waits")
		h.r.Progress(b)
		assert.Empty(t, progressFrames(t, h.rawPeer), "the second one comes too soon")
		time.Sleep(progressEvery)
		assert.Equal(t, [][]Leaf{{b}}, progressFrames(t, h.rawPeer))
		time.Sleep(time.Second)
		assert.Empty(t, progressFrames(t, h.rawPeer), "progress without a change")
	})
}

func TestProgressOfManyLeavesIsSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, &fakeSink{}, offer(-1))
		var all []Leaf
		for i := range 10 * progressLeaves {
			all = append(all, Leaf{Name: fmt.Sprint("rack-1/reader-", i), State: LeafWaiting, Text: strings.Repeat("t", 200)})
		}
		h.r.Progress(all...)
		time.Sleep(2 * time.Second)
		var told []Leaf
		for _, leaves := range progressFrames(t, h.rawPeer) {
			assert.LessOrEqual(t, len(leaves), progressLeaves)
			told = append(told, leaves...)
		}
		assert.Equal(t, all, told)
	})
}

// One leaf that cannot be told must not keep the others' progress back for ever.
func TestProgressGoesOnAfterALeafThatCannotBeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, &fakeSink{}, offer(-1))
		h.r.Progress(Leaf{Name: strings.Repeat("n", maxLeafName+1), State: LeafWaiting})
		time.Sleep(progressEvery)
		good := Leaf{Name: "a", State: LeafWaiting}
		h.r.Progress(good)
		time.Sleep(2 * progressEvery)
		assert.Equal(t, [][]Leaf{{good}}, progressFrames(t, h.rawPeer))
	})
}

// How all leaves stand is newer than any progress that was not told yet.
func TestStateReplacesProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		h.setProgress([]Leaf{{Name: "a", State: LeafWaiting}})
		h.pushState(AppendFrame(nil, KindReady, 0, nil))
		h.finish()
		assert.Equal(t, []Kind{KindQuery, KindReady}, h.kinds())
	})
}
