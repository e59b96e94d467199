package protocol

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The deadlines of a transfer, in time that synctest makes pass.

func TestStalledTransferEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stall = 20 * time.Second
		h := offered(t, SenderConfig{Stall: stall})
		h.answerPings()
		require.NoError(t, h.Send(t.Context(), rawChunk(0, make([]byte, 32<<10))))
		require.NoError(t, h.Send(t.Context(), rawChunk(32<<10, make([]byte, 32<<10))))
		for i := range int64(3) { // slow is not stalled
			time.Sleep(stall - time.Second)
			h.peer.ack((i + 1) << 10)
		}
		synctest.Wait()
		require.Empty(t, h.told())

		time.Sleep(stall - 1)
		synctest.Wait()
		require.Empty(t, h.told())
		time.Sleep(stall/4 + 1)
		synctest.Wait()
		require.Len(t, h.told(), 1)
		assert.True(t, HasCode(h.told()[0], CodeStalled), "%v", h.told()[0])
		assert.ErrorContains(t, h.told()[0], "stalled at 3.0 KiB")
		assert.ErrorContains(t, h.told()[0], "without progress")
	})
}

// A leaf that says that it is busy with what it has is not stalled, for as long
// as an answer may take. One that is only being dialled again is.
func TestBusyIsNotStalled(t *testing.T) {
	for code, want := range map[Code]time.Duration{"": AnswerTimeout, CodeUnreachable: 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			const stall = 20 * time.Second
			h := offered(t, SenderConfig{Stall: stall})
			h.answerPings()
			require.NoError(t, h.Send(t.Context(), rawChunk(0, make([]byte, 32<<10))))
			begun := time.Now()
			for len(h.told()) == 0 {
				h.peer.send(&Progress{Leaves: []Leaf{{State: LeafWaiting, Code: code, Text: "busy"}}})
				time.Sleep(stall / 10)
				synctest.Wait()
			}
			assert.True(t, HasCode(h.told()[0], CodeStalled), "%v", h.told()[0])
			assert.InDelta(t, want.Seconds(), time.Since(begun).Seconds(), stall.Seconds())
		})
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB", 1 << 50: "1.0 PiB",
		1 << 62: "4096.0 PiB",
	} {
		assert.Equal(t, want, sizeText(n))
	}
}

func TestTransferWithNothingToAckDoesNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := offered(t, SenderConfig{Stall: 20 * time.Second})
		h.answerPings()
		time.Sleep(time.Hour) // a source that waits
		require.NoError(t, h.Send(t.Context(), rawChunk(0, []byte("hello"))))
		time.Sleep(19 * time.Second)
		h.peer.ack(5)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Empty(t, h.told())
	})
}

func TestWithoutStallASinkMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := offered(t, SenderConfig{})
		h.answerPings()
		require.NoError(t, h.Send(t.Context(), rawChunk(0, []byte("hello"))))
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		assert.Empty(t, h.told())
	})
}

func TestSenderGivesUpADeadReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := send(t, SenderConfig{})
		begun := time.Now()
		_, err := h.Offer(t.Context(), offer(-1))
		assert.True(t, HasCode(err, CodeDead), "%v", err)
		assert.Equal(t, DeadAfter, time.Since(begun))
	})
}

func TestReceiverGivesUpADeadSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		h := accepted(t, &fakeSink{}, offer(-1))
		<-h.done
		assert.True(t, HasCode(h.err, CodeDead), "%v", h.err)
		assert.Equal(t, DeadAfter, time.Since(begun))
		assert.Equal(t, []string{"begin f", "abort"}, h.sink.calls())
	})
}

// A sink that takes its time to begin, and a source that has nothing to send,
// keep a transfer open for as long as both ends live.
func TestIdleTransferLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		release := make(chan struct{})
		sink.onFinish = func(context.Context) ([]Leaf, error) { <-release; return []Leaf{{State: LeafReady}}, nil }
		h := newHop(t, sink, SenderConfig{})
		_, err := h.Offer(t.Context(), offer(-1))
		require.NoError(t, err)
		time.Sleep(time.Hour)
		require.NoError(t, h.Send(t.Context(), rawChunk(0, []byte("hello"))))
		go func() { time.Sleep(AnswerTimeout - time.Second); close(release) }()
		_, err = h.Finish(t.Context(), &Finish{Size: 5})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = h.Commit(t.Context())
		assert.NoError(t, err)
	})
}

func TestPingsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near := accepted(t, &fakeSink{}, offer(-1)).rawPeer
		far := offered(t, SenderConfig{}).peer
		for _, p := range []*rawPeer{near, far} {
			for range 3 {
				p.write(pingFrame)
				f, err := p.next()
				require.NoError(t, err)
				assert.Equal(t, KindPong, f.Kind)
			}
			p.write(pongFrame) // nobody asked: harmless
			p.write(pingFrame)
			f, err := p.next()
			require.NoError(t, err)
			assert.Equal(t, KindPong, f.Kind)
		}
	})
}
