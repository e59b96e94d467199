package protocol

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// opening is receive with a sink that answers the offer when answer is called.
func opening(t *testing.T, sink *fakeSink, o *Offer) (h *received, answer func(error)) {
	t.Helper()
	answers := make(chan error, 1)
	sink.onBegin = func(ctx context.Context) error {
		select {
		case err := <-answers:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return receive(t, sink, o, 1<<20), func(err error) { synctest.Wait(); answers <- err }
}

func TestSmallFileIsHeldUntilItIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := random(MaxEarly, 31)
		sink := &fakeSink{}
		h, answer := opening(t, sink, offer(MaxEarly))
		h.chunk(0, content)
		h.send(&Finish{Size: MaxEarly})
		synctest.Wait()
		assert.Empty(t, sink.wrote, "the sink has not accepted yet")
		answer(nil)
		expect[*Accept](h.rawPeer) // before the ack
		for f, err := h.next(); f.Kind != KindReady; f, err = h.next() {
			require.NoError(t, err)
			assert.Equal(t, KindAck, f.Kind)
		}
		assert.True(t, bytes.Equal(content, sink.content.Bytes()))
		h.send(&Commit{})
		expect[*Receipt](h.rawPeer)
	})
}

// The chunk is early and Finish is not: both ways are open to a sender.
func TestEarlyChunkAndLateFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, answer := opening(t, &fakeSink{}, offer(-1))
		h.chunk(0, []byte("early "))
		answer(nil)
		expect[*Accept](h.rawPeer)
		h.expectAck(6)
		h.chunk(6, []byte("and late"))
		h.expectAck(14)
		h.send(&Finish{Size: 14})
		expect[*Ready](h.rawPeer)
		assert.Equal(t, "early and late", h.sink.content.String())
	})
}

func TestEarlyContentThatTheSinkHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, answer := opening(t, &fakeSink{answer: Accept{Offset: 5, Leaves: []Leaf{{State: LeafUnchanged}}}}, offer(5))
		h.chunk(0, []byte("hello"))
		h.send(&Finish{Size: 5})
		answer(nil)
		assert.EqualValues(t, 5, expect[*Accept](h.rawPeer).Offset)
		expect[*Ready](h.rawPeer)
		assert.Empty(t, h.sink.wrote)
	})
}

// It was sent early, and came late.
func TestSmallFileThatComesWhenTheSinkHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, &fakeSink{answer: Accept{Offset: 5}}, offer(5))
		h.chunk(0, []byte("hello"))
		h.send(&Finish{Size: 5})
		expect[*Ready](h.rawPeer)
		assert.Empty(t, h.sink.wrote)
	})
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, &fakeSink{answer: Accept{Offset: 5}}, offer(5))
		h.chunk(0, []byte("hello"))
		h.chunk(0, []byte("hello"))
		h.expectReject(CodeProtocol)
	})
}

func TestEarlyContentIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := opening(t, &fakeSink{}, offer(-1))
		h.chunk(0, make([]byte, MaxEarly+1))
		assert.Contains(t, h.expectReject(CodeProtocol).Text, "16385 bytes of data, where at most 16384 may come")
	})
	finish := &Finish{Size: 1}
	tests := map[string]func(p *rawPeer){
		"two chunks":         func(p *rawPeer) { p.chunk(0, []byte("a")); p.chunk(1, []byte("b")) },
		"not from the start": func(p *rawPeer) { p.chunk(1, []byte("b")) },
		"after the end":      func(p *rawPeer) { p.send(&Finish{}); p.chunk(0, []byte("a")) },
		"two ends":           func(p *rawPeer) { p.chunk(0, []byte("a")); p.send(finish); p.send(finish) },
		"commit":             func(p *rawPeer) { p.chunk(0, []byte("a")); p.send(finish); p.send(&Commit{}) },
	}
	for name, do := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, _ := opening(t, &fakeSink{}, offer(-1))
				do(h.rawPeer)
				assert.Contains(t, h.expectReject(CodeProtocol).Text, "while opening")
			})
		})
	}
}

// What was sent ahead is judged like all content.
func TestEarlyContentThatBreaksTheRules(t *testing.T) {
	tests := map[string]struct {
		size int64
		do   func(p *rawPeer)
		want Code
	}{
		"more than offered": {1, func(p *rawPeer) { p.chunk(0, []byte("ab")) }, CodeSize},
		"less than it says": {-1, func(p *rawPeer) { p.chunk(0, []byte("ab")); p.send(&Finish{Size: 3}) }, CodeSize},
		"nothing":           {1, func(p *rawPeer) { p.send(&Finish{Size: 1}) }, CodeSize},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, answer := opening(t, &fakeSink{}, offer(tt.size))
				tt.do(h.rawPeer)
				answer(nil)
				h.expectReject(tt.want)
			})
		})
	}
}

func TestEarlyContentOfAnOfferThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, answer := opening(t, &fakeSink{}, offer(1))
		h.chunk(0, []byte("a"))
		h.send(&Finish{Size: 1})
		answer(Errorf(CodeExists, "in the way"))
		assert.Equal(t, "in the way", h.expectReject(CodeExists).Text)
		assert.Empty(t, h.sink.wrote)
	})
}

func TestOfferWhole(t *testing.T) {
	for _, at := range []int64{0, 2, 5} { // what the receiver has
		synctest.Test(t, func(t *testing.T) {
			sink := &fakeSink{answer: Accept{Offset: at}}
			h := newHop(t, sink, SenderConfig{})
			content := []byte("hello")
			f := &Finish{Size: 5}
			a, err := h.OfferWhole(t.Context(), offer(5), rawChunk(0, content), f)
			require.NoError(t, err)
			assert.Equal(t, at, a.Offset)
			_, err = h.Finish(t.Context(), f)
			require.NoError(t, err)
			receipts, err := h.Commit(t.Context())
			require.NoError(t, err)
			require.Len(t, receipts, 1)
			assert.Equal(t, at < 5, len(sink.wrote) == 1)
		})
	}
}

func TestOfferWholeOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHop(t, &fakeSink{}, SenderConfig{})
		_, err := h.OfferWhole(t.Context(), offer(0), nil, &Finish{})
		require.NoError(t, err)
		_, err = h.Finish(t.Context(), &Finish{})
		require.NoError(t, err)
		_, err = h.Commit(t.Context())
		require.NoError(t, err)
	})
}

// All goes in one flight, and what is not acknowledged counts as under way.
func TestOfferWholeGoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := send(t, SenderConfig{})
		answered := make(chan error, 1)
		go func() {
			_, err := h.OfferWhole(t.Context(), offer(5), rawChunk(0, []byte("hello")), &Finish{Size: 5})
			answered <- err
		}()
		expect[*Offer](h.peer)
		f, err := h.peer.next()
		require.NoError(t, err)
		require.Equal(t, KindChunk, f.Kind)
		f.Chunk.Release()
		expect[*Finish](h.peer)
		h.peer.send(&Accept{Window: testWindow, MaxChunk: testWindow / 4, Leaves: []Leaf{{State: LeafReceiving}}})
		require.NoError(t, <-answered)
		h.peer.ack(5)
		h.peer.ack(6)
		synctest.Wait()
		assert.True(t, HasCode(h.Err(), CodeProtocol), "%v", h.Err())
		assert.ErrorContains(t, h.Err(), "only 5 bytes were sent")
	})
}

func TestOfferWholeThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHop(t, &fakeSink{onBegin: func(context.Context) error { return errors.Join(ErrForget, errLost) }}, SenderConfig{})
		_, err := h.OfferWhole(t.Context(), offer(1), rawChunk(0, []byte("a")), &Finish{Size: 1})
		assert.Error(t, err)
	})
}
