package protocol

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sending is a Sender with the test as its receiver.
type sending struct {
	*Sender
	peer *rawPeer

	mu   sync.Mutex
	ends []error
}

// told is what OnEnd has been told.
func (h *sending) told() []error {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ends)
}

func send(t *testing.T, cfg SenderConfig) *sending {
	t.Helper()
	near, far := memPipe(1 << 20)
	h := &sending{peer: newRawPeer(t, far)}
	cfg.OnEnd = func(err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ends = append(h.ends, err)
	}
	h.Sender = NewSender(near, cfg)
	t.Cleanup(func() {
		h.Close()
		h.Wait()
		assert.Len(t, h.told(), 1, "OnEnd is called once")
	})
	return h
}

// offered is send past the Accept, with leaves a and b.
func offered(t *testing.T, cfg SenderConfig) *sending {
	t.Helper()
	h := send(t, cfg)
	h.peer.send(&Accept{Window: testWindow, MaxChunk: testWindow / 4, Leaves: []Leaf{
		{Name: "a", State: LeafReceiving}, {Name: "b", State: LeafReceiving},
	}})
	_, err := h.Offer(t.Context(), offer(-1))
	require.NoError(t, err)
	expect[*Offer](h.peer)
	return h
}

// answerPings answers pings until the stream ends, and drops all else.
func (h *sending) answerPings() {
	go func() {
		for {
			f, err := h.peer.frames.Next()
			if err != nil {
				return
			}
			if f.Kind == KindPing {
				_, _ = h.peer.Write(pongFrame)
			}
		}
	}()
}

func TestSenderRefusesWhatBreaksTheRules(t *testing.T) {
	again := &Accept{Window: testWindow, MaxChunk: 1, Leaves: []Leaf{{State: LeafReceiving}}}
	tests := []struct {
		name string
		do   func(p *rawPeer)
		want Code
		text string
	}{
		{"accept twice", func(p *rawPeer) { p.send(again) }, CodeProtocol, "accept twice"},
		{"ack of what was not sent", func(p *rawPeer) { p.ack(6) }, CodeProtocol, "ack of offset 6 when only"},
		{"ack of nonsense", func(p *rawPeer) { p.write(AppendFrame(nil, KindAck, 0, []byte("12345"))) }, CodeProtocol, "ack of 5 bytes"},
		{"ready twice", func(p *rawPeer) { p.send(&Ready{}); p.send(&Ready{}) }, CodeProtocol, "ready twice"},
		{"receipt of an unknown leaf", func(p *rawPeer) { p.send(&Receipt{Leaf: "c", Status: LeafPublished}) }, CodeProtocol, `unexpected receipt of leaf "c"`},
		{"receipt of nobody", func(p *rawPeer) { p.send(&Receipt{Status: LeafPublished}) }, CodeProtocol, `leaf ""`},
		{"receipt twice", func(p *rawPeer) {
			p.send(&Receipt{Leaf: "a", Status: LeafPublished})
			p.send(&Receipt{Leaf: "a", Status: LeafPublished})
		}, CodeProtocol, `leaf "a"`},
		{"chunk", func(p *rawPeer) { p.chunk(0, []byte("x")) }, CodeProtocol, "where at most 0 may come"},
		{"offer", func(p *rawPeer) { p.send(offer(1)) }, CodeProtocol, "offer from a receiver"},
		{"finish", func(p *rawPeer) { p.send(&Finish{}) }, CodeProtocol, "finish from a receiver"},
		{"commit", func(p *rawPeer) { p.send(&Commit{}) }, CodeProtocol, "commit from a receiver"},
		{"status", func(p *rawPeer) { p.send(&Status{}) }, CodeProtocol, "status from a receiver"},
		{"bad message", func(p *rawPeer) { p.write(AppendFrame(nil, KindReady, 0, []byte("[]"))) }, CodeProtocol, "ready"},
		{"unknown frame", func(p *rawPeer) { p.write(AppendFrame(nil, 99, 0, nil)) }, CodeProtocol, "unknown kind 99"},
		{"damaged frame", func(p *rawPeer) { p.write(append(AppendAck(nil, 5)[:19], 0)) }, CodeChecksum, "damaged"},
		{"reject", func(p *rawPeer) { p.send(&Reject{Code: CodeNoSpace, Text: "disk full"}) }, CodeNoSpace, "disk full"},
		{"end", func(p *rawPeer) { p.CloseWrite() }, CodeUnreachable, "went away"},
		{"cut in a frame", func(p *rawPeer) { p.write(pongFrame[:3]); p.CloseWrite() }, CodeTruncated, "unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := offered(t, SenderConfig{})
				require.NoError(t, h.Send(t.Context(), rawChunk(0, []byte("hello"))))
				tt.do(h.peer)
				synctest.Wait()
				require.Len(t, h.told(), 1)
				assert.True(t, HasCode(h.told()[0], tt.want), "%v", h.told()[0])
				assert.ErrorContains(t, h.told()[0], tt.text)
				<-h.Done()
				assert.Equal(t, h.told()[0], h.Err())
				assert.Equal(t, h.told()[0], h.Send(t.Context(), rawChunk(5, []byte("x"))))
				_, err := h.Finish(t.Context(), &Finish{})
				assert.Equal(t, h.told()[0], err)
				_, err = h.Commit(t.Context())
				assert.Equal(t, h.told()[0], err)
			})
		})
	}
}

func TestAckBeforeAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := send(t, SenderConfig{})
		h.peer.ack(0)
		_, err := h.Offer(t.Context(), offer(-1))
		assert.True(t, HasCode(err, CodeProtocol), "%v", err)
	})
}

func TestUnknownSkippableFramesDoNotDisturbASender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := offered(t, SenderConfig{})
		h.peer.write(AppendFrame(nil, 99, FlagSkip, []byte("news")))
		h.peer.send(&Ready{})
		_, err := h.Finish(t.Context(), &Finish{})
		assert.NoError(t, err)
	})
}

func TestSinkThatDoesNotAckStopsTheSenderAtTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHop(t, takeNothing(), SenderConfig{})
		a, err := h.Offer(t.Context(), offer(-1))
		require.NoError(t, err)
		var sent atomic.Int64
		stopped := make(chan error)
		go func() {
			for {
				c := rawChunk(sent.Load(), make([]byte, a.MaxChunk))
				if err := h.Send(t.Context(), c); err != nil {
					stopped <- err
					return
				}
				sent.Add(int64(a.MaxChunk))
			}
		}()
		synctest.Wait()
		assert.EqualValues(t, testWindow, sent.Load())

		h.sink.up.Ack(int64(a.MaxChunk))
		synctest.Wait()
		assert.EqualValues(t, testWindow+a.MaxChunk, sent.Load(), "credit for one chunk lets another number through")

		h.Close()
		assert.True(t, HasCode(<-stopped, CodeAborted), "Close does not end a Send that waits")
	})
}

func TestBlockedSendEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := offered(t, SenderConfig{})
		for at := int64(0); at < testWindow; at += testWindow / 4 {
			require.NoError(t, h.Send(t.Context(), rawChunk(at, make([]byte, testWindow/4))))
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLost)
		defer cancel()
		assert.Equal(t, errLost, h.Send(ctx, rawChunk(testWindow, []byte("x"))))
	})
}

func TestSenderReleasesWhatIsAcked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var acks []int64
		h := offered(t, SenderConfig{OnAck: func(offset int64) { acks = append(acks, offset) }})
		a, b := rawChunk(0, []byte("hello")), rawChunk(5, []byte("you"))
		require.NoError(t, h.Send(t.Context(), a))
		require.NoError(t, h.Send(t.Context(), b))
		synctest.Wait()
		assert.EqualValues(t, 1, a.refs.Load())
		h.peer.ack(5)
		synctest.Wait()
		assert.Zero(t, a.refs.Load())
		assert.EqualValues(t, 1, b.refs.Load())
		h.peer.ack(8)
		synctest.Wait()
		assert.Zero(t, b.refs.Load())
		assert.Equal(t, []int64{5, 8}, acks)
	})
}

func TestProgressIsToldBeforeAndAfterAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Leaf
		h := send(t, SenderConfig{OnProgress: func(leaves []Leaf) { told = append(told, leaves...) }})
		waiting := Leaf{Name: "a", State: LeafWaiting, Text: "connecting"}
		receiving := Leaf{Name: "a", State: LeafReceiving, Offset: 5}
		h.peer.send(&Progress{Leaves: []Leaf{waiting}})
		h.peer.send(&Accept{Window: testWindow, MaxChunk: 1, Leaves: []Leaf{receiving}})
		h.peer.send(&Progress{Leaves: []Leaf{receiving}})
		_, err := h.Offer(t.Context(), offer(-1))
		require.NoError(t, err)
		synctest.Wait()
		assert.Equal(t, []Leaf{waiting, receiving}, told)
	})
}

func TestCallsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLost)
		defer cancel()
		_, err := send(t, SenderConfig{}).Offer(ctx, offer(-1))
		assert.Equal(t, errLost, err)
		_, err = offered(t, SenderConfig{}).Finish(ctx, &Finish{})
		assert.Equal(t, errLost, err)
		receipts, err := offered(t, SenderConfig{}).Commit(ctx)
		assert.Equal(t, errLost, err)
		assert.Empty(t, receipts)
	})
}

// A receiver that lives and answers pings but never says how it ended.
func TestAnswersAreWaitedForInVain(t *testing.T) {
	calls := map[string]func(*sending, context.Context) error{ // by what the error says
		"not ready":  func(h *sending, ctx context.Context) error { _, err := h.Finish(ctx, &Finish{}); return err },
		"no receipt": func(h *sending, ctx context.Context) error { _, err := h.Commit(ctx); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := offered(t, SenderConfig{})
				h.answerPings()
				begun := time.Now()
				err := call(h, t.Context())
				assert.True(t, HasCode(err, CodeStalled), "%v", err)
				assert.ErrorContains(t, err, name)
				assert.Equal(t, AnswerTimeout, time.Since(begun))
			})
		})
	}
}

func TestAbortWaitsForTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := offered(t, SenderConfig{})
		require.NoError(t, h.Send(t.Context(), rawChunk(0, []byte("hello"))))
		go func() {
			for f, err := h.peer.next(); err == nil; f, err = h.peer.next() {
				if f.Kind == KindAbort {
					time.Sleep(abortGrace / 2)
					h.peer.send(&Reject{Code: CodeAborted, Text: "forgotten"})
					return
				}
			}
		}()
		begun := time.Now()
		h.Abort("enough")
		assert.Equal(t, abortGrace/2, time.Since(begun))
		h.Wait()
		assert.ErrorContains(t, h.told()[0], "forgotten")
	})
}

func TestAbortDoesNotWaitForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := offered(t, SenderConfig{})
		begun := time.Now()
		h.Abort("enough")
		assert.Equal(t, abortGrace, time.Since(begun))
		assert.Equal(t, "enough", expect[*Abort](h.peer).Text)
		begun = time.Now()
		h.Abort("again")
		assert.Zero(t, time.Since(begun))
	})
}
