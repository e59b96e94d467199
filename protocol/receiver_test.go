package protocol

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// received is a Receiver with the test as its sender.
type received struct {
	*rawPeer
	sink *fakeSink
	r    *Receiver

	cancel   context.CancelCauseFunc // of Run's context
	receipts []Receipt
	err      error
	done     chan struct{}
}

// receive runs a Receiver for o. Acks and rejects that the test does not read
// find room for limit bytes.
func receive(t *testing.T, sink *fakeSink, o *Offer, limit int) *received {
	t.Helper()
	near, far := memPipe(limit)
	h := &received{rawPeer: newRawPeer(t, near), sink: sink, done: make(chan struct{})}
	h.r = NewReceiver(far, NewFrameReader(far), o, sink, testWindow)
	ctx, cancel := context.WithCancelCause(t.Context())
	h.cancel = cancel
	go func() {
		defer close(h.done)
		h.receipts, h.err = h.r.Run(ctx)
	}()
	t.Cleanup(func() {
		near.Close()
		<-h.done
		cancel(nil)
	})
	return h
}

// accepted is receive past the Accept.
func accepted(t *testing.T, sink *fakeSink, o *Offer) *received {
	t.Helper()
	h := receive(t, sink, o, 1<<20)
	expect[*Accept](h.rawPeer)
	return h
}

// takeNothing is a sink that queues and never acks.
func takeNothing() *fakeSink { return &fakeSink{onWrite: func(*Chunk) error { return nil }} }

func TestReceiverRefusesWhatBreaksTheRules(t *testing.T) {
	const most = testWindow / 4
	resumed := func() *fakeSink { return &fakeSink{answer: Accept{Offset: 1000}} }
	tests := []struct {
		name string
		sink *fakeSink
		size int64 // offered
		do   func(p *rawPeer)
		want Code
		text string
	}{
		{"gap at the start", nil, -1, func(p *rawPeer) { p.chunk(1, []byte("x")) }, CodeProtocol, "chunk at 1 where 0 was next"},
		{"gap", nil, -1, func(p *rawPeer) { p.chunk(0, []byte("ab")); p.chunk(3, []byte("c")) }, CodeProtocol, "chunk at 3 where 2 was next"},
		{"overlap", nil, -1, func(p *rawPeer) { p.chunk(0, []byte("ab")); p.chunk(1, []byte("bc")) }, CodeProtocol, "chunk at 1 where 2 was next"},
		{"repetition", nil, -1, func(p *rawPeer) { p.chunk(0, []byte("ab")); p.chunk(0, []byte("ab")) }, CodeProtocol, "chunk at 0 where 2 was next"},
		{"after the seam of a resume", resumed(), -1, func(p *rawPeer) { p.chunk(1001, []byte("x")) }, CodeProtocol, "where 1000 was next"},
		{"before the seam of a resume", resumed(), -1, func(p *rawPeer) { p.chunk(990, make([]byte, 10)) }, CodeProtocol, "where 1000 was next"},
		{"over the seam twice", resumed(), -1, func(p *rawPeer) { p.chunk(999, make([]byte, 10)); p.chunk(999, make([]byte, 20)) }, CodeProtocol, "chunk at 999 where 1009 was next"},
		{"chunk too large", nil, -1, func(p *rawPeer) { p.chunk(0, make([]byte, most+1)) }, CodeProtocol, "at most 65536"},
		{"beyond the window", takeNothing(), -1, func(p *rawPeer) {
			for i := range int64(5) {
				p.chunk(i*most, make([]byte, most))
			}
		}, CodeWindow, "beyond the window"},
		{"too many chunks", takeNothing(), -1, func(p *rawPeer) {
			for i := range int64(MaxInflight(testWindow)) + 1 {
				p.chunk(i, []byte("x"))
			}
		}, CodeWindow, "more than 64 chunks"},
		{"more than offered", nil, 4, func(p *rawPeer) { p.chunk(0, []byte("hello")) }, CodeSize, "more content than the 4 bytes offered"},
		{"something for an empty file", nil, 0, func(p *rawPeer) { p.chunk(0, []byte("x")) }, CodeSize, "more content"},
		{"finish with less than offered", nil, 9, func(p *rawPeer) { p.chunk(0, []byte("hello")); p.send(&Finish{Size: 5}) }, CodeSize, "only 5 of the 9 bytes offered came"},
		{"finish with more than came", nil, -1, func(p *rawPeer) { p.chunk(0, []byte("hello")); p.send(&Finish{Size: 6}) }, CodeSize, "finish says 6 bytes, 5 came"},
		{"finish with less than came", nil, -1, func(p *rawPeer) { p.chunk(0, []byte("hello")); p.send(&Finish{Size: 4}) }, CodeSize, "finish says 4 bytes, 5 came"},
		{"chunk after finish", nil, -1, func(p *rawPeer) { p.send(&Finish{}); p.chunk(0, []byte("x")) }, CodeProtocol, "chunk at 0 while"},
		{"finish twice", nil, -1, func(p *rawPeer) { p.send(&Finish{}); p.send(&Finish{}) }, CodeProtocol, "finish while"},
		{"commit before finish", nil, -1, func(p *rawPeer) { p.send(&Commit{}) }, CodeProtocol, "commit while receiving"},
		{"ack", nil, -1, func(p *rawPeer) { p.ack(0) }, CodeProtocol, "ack from a sender"},
		{"offer again", nil, -1, func(p *rawPeer) { p.send(offer(1)) }, CodeProtocol, "offer from a sender"},
		{"receipt", nil, -1, func(p *rawPeer) { p.send(&Receipt{Status: LeafPublished}) }, CodeProtocol, "receipt from a sender"},
		{"hello", nil, -1, func(p *rawPeer) { p.send(&Hello{Versions: []int{1}}) }, CodeProtocol, "hello from a sender"},
		{"unknown frame", nil, -1, func(p *rawPeer) { p.write(AppendFrame(nil, 99, 0, nil)) }, CodeProtocol, "unknown kind 99"},
		{"damaged frame", nil, -1, func(p *rawPeer) {
			raw := AppendFrame(nil, KindFinish, 0, []byte(`{"size":0}`))
			raw[len(raw)-1]++
			p.write(raw)
		}, CodeChecksum, "damaged"},
		{"cut in a frame", nil, -1, func(p *rawPeer) {
			p.write(AppendFrame(nil, KindFinish, 0, []byte(`{"size":0}`))[:9])
			p.CloseWrite()
		}, CodeTruncated, "before the transfer was complete"},
		{"end before finish", nil, -1, func(p *rawPeer) { p.chunk(0, []byte("hello")); p.CloseWrite() }, CodeTruncated, "at 5 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := tt.sink
				if sink == nil {
					sink = &fakeSink{}
				}
				h := accepted(t, sink, offer(tt.size))
				tt.do(h.rawPeer)
				for f, err := h.next(); ; f, err = h.next() { // what is on the way before the Reject
					require.NoError(t, err, "no reject came")
					if f.Kind == KindReject {
						m, err := ParseMessage(f.Kind, f.Payload)
						require.NoError(t, err)
						assert.Equal(t, tt.want, m.(*Reject).Code)
						assert.Contains(t, m.(*Reject).Text, tt.text)
						break
					}
				}
				<-h.done
				assert.True(t, HasCode(h.err, tt.want), "%v", h.err)
				assert.Equal(t, "abort", sink.calls()[len(sink.calls())-1])
				assert.NotContains(t, sink.calls(), "commit")
				assert.ErrorContains(t, sink.cause, tt.text)
			})
		})
	}
}

func TestFinishWithoutThePromisedDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, &fakeSink{}, &Offer{Name: "f", Size: -1, Digest: DigestXXH128})
		h.send(&Finish{})
		h.expectReject(CodeDigest)
	})
}

// A sender whose file is everywhere already has not read it.
func TestFinishOfWhatAllLeavesHaveNeedsNoDigest(t *testing.T) {
	for _, tt := range []struct {
		other LeafState
		good  bool
	}{{LeafUnchanged, true}, {LeafFailed, true}, {LeafReceiving, false}, {LeafReady, false}} {
		synctest.Test(t, func(t *testing.T) {
			leaves := []Leaf{{Name: "a", State: LeafUnchanged}, {Name: "b", State: tt.other}}
			h := accepted(t, &fakeSink{answer: Accept{Offset: 5, Leaves: leaves}}, &Offer{Name: "f", Size: 5, Digest: DigestXXH128})
			h.send(&Finish{Size: 5})
			if tt.good {
				expect[*Ready](h.rawPeer)
			} else {
				h.expectReject(CodeDigest)
			}
		})
	}
}

func TestCommitBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, &fakeSink{
			onFinish: func(ctx context.Context) ([]Leaf, error) { <-ctx.Done(); return nil, ctx.Err() },
		}, offer(0))
		h.send(&Finish{})
		synctest.Wait()
		h.send(&Commit{})
		m := h.expectReject(CodeProtocol)
		assert.Contains(t, m.Text, "commit while finishing")
		<-h.done
		assert.Equal(t, []string{"begin f", "finish", "abort"}, h.sink.calls())
	})
}

// While the Reject is on its way, the sender goes on sending what it has.
func TestNothingIsWrittenAfterAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{onWrite: func(*Chunk) error { return nil }}
		h := receive(t, sink, offer(-1), headerSize) // no room for the Reject
		expect[*Accept](h.rawPeer)
		h.chunk(0, []byte("a"))
		synctest.Wait()
		sink.up.Fail(errors.New("disk broken"))
		synctest.Wait()
		require.Equal(t, []string{"begin f", "abort"}, sink.calls())
		h.chunk(1, []byte("b"))
		synctest.Wait()
		assert.Equal(t, []int64{0}, sink.writes(), "Transfer.Write was called after Abort")
		expect[*Reject](h.rawPeer)
	})
}

func TestOfferGetsAnID(t *testing.T) {
	a := NewReceiver(nil, nil, &Offer{Name: "f"}, nil, testWindow)
	b := NewReceiver(nil, nil, &Offer{Name: "f"}, nil, testWindow)
	assert.NotEmpty(t, a.Offer().ID)
	assert.NotEqual(t, a.Offer().ID, b.Offer().ID)
	assert.Equal(t, "x", NewReceiver(nil, nil, offer(1), nil, testWindow).Offer().ID)
}

func TestStatusFollowsTheTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := receive(t, &fakeSink{
			onBegin:  func(context.Context) error { <-release; return nil },
			onFinish: func(context.Context) ([]Leaf, error) { <-release; return []Leaf{{State: LeafReady}}, nil },
			onCommit: func(context.Context) []Receipt { <-release; return []Receipt{{Status: LeafPublished}} },
		}, offer(5), 1<<20)
		status := func(phase Phase, offset int64, seconds float64) {
			t.Helper()
			synctest.Wait()
			want := TransferStatus{ID: "x", Name: "f", Size: 5, Offset: offset, Received: offset, Phase: string(phase), Seconds: seconds}
			assert.Equal(t, want, h.r.Status())
		}
		status(PhaseOpening, 0, 0)
		time.Sleep(2 * time.Second)
		release <- struct{}{}
		status(PhaseReceiving, 0, 2)
		h.chunk(0, []byte("hello"))
		status(PhaseReceiving, 5, 2)
		h.send(&Finish{Size: 5})
		status(PhaseFinishing, 5, 2)
		release <- struct{}{}
		status(PhaseReady, 5, 2)
		h.send(&Commit{})
		status(PhasePublish, 5, 2)
		close(release)
	})
}
