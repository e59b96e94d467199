package protocol

import (
	"context"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ready takes the receiver to where the Commit is due.
func ready(t *testing.T, sink *fakeSink) *received {
	t.Helper()
	h := accepted(t, sink, offer(-1))
	h.chunk(0, []byte("hello"))
	h.expectAck(5)
	h.send(&Finish{Size: 5})
	expect[*Ready](h.rawPeer)
	return h
}

func TestSenderThatVanishesBeforeCommit(t *testing.T) {
	for name, end := range map[string]func(*received){
		"killed":            func(h *received) { h.CloseWrite() },
		"closed":            func(h *received) { h.Close() },
		"connection broken": func(h *received) { h.breakWith(errLost) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := ready(t, &fakeSink{})
				end(h)
				<-h.done
				require.Error(t, h.err)
				assert.Equal(t, []string{"begin f", "finish", "abort"}, h.sink.calls(), "published without a commit")
				assert.NotErrorIs(t, h.sink.cause, ErrForget)
			})
		})
	}
}

func TestSenderThatVanishesAfterCommit(t *testing.T) {
	for name, end := range map[string]func(*received){
		"killed":            func(h *received) { h.CloseWrite() },
		"closed":            func(h *received) { h.Close() },
		"connection broken": func(h *received) { h.breakWith(errLost) },
		"then breaks rules": func(h *received) { h.chunk(5, []byte("x")) },
		"takes it back":     func(h *received) { h.send(&Abort{}) },
		"daemon stops":      func(h *received) { h.cancel(Errorf(CodeShutdown, "stopping")) },
		"stops answering":   func(*received) { time.Sleep(2 * DeadAfter) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				publish := make(chan struct{})
				sink := &fakeSink{}
				sink.onCommit = func(ctx context.Context) []Receipt {
					<-publish
					if ctx.Err() != nil {
						t.Error("the context of Commit ended with the sender")
					}
					return []Receipt{{Status: LeafPublished}}
				}
				h := ready(t, sink)
				h.send(&Commit{})
				synctest.Wait()
				end(h)
				synctest.Wait()
				close(publish)
				<-h.done
				require.NoError(t, h.err)
				assert.Equal(t, []Receipt{{Status: LeafPublished}}, h.receipts)
				assert.Equal(t, []string{"begin f", "finish", "commit"}, sink.calls())
			})
		})
	}
}

func TestPublishUnderWayMayGoOnForAWhileWhenItsDaemonStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		sink.onCommit = func(ctx context.Context) []Receipt {
			<-ctx.Done()
			return []Receipt{{Status: LeafFailed, Code: CodeShutdown, Text: ctx.Err().Error()}}
		}
		h := ready(t, sink)
		h.send(&Commit{})
		synctest.Wait()
		begun := time.Now()
		h.cancel(Errorf(CodeShutdown, "stopping"))
		assert.Equal(t, LeafFailed, expect[*Receipt](h.rawPeer).Status)
		assert.Equal(t, commitGrace, time.Since(begun))
	})
}

// The Commit may come, and the connection break, before the goroutine that
// drives the transfer has gone on from Ready: then both are there to choose from.
func TestCommitCountsMoreThanWhatComesAfterIt(t *testing.T) {
	for range 20 { // as select chooses at random
		near, far := memPipe(1 << 20)
		p := newRawPeer(t, near)
		sink := &fakeSink{}
		r := NewReceiver(far, NewFrameReader(far), offer(0), sink, testWindow)
		sink.onFinish = func(context.Context) ([]Leaf, error) {
			r.out.mu.Lock() // Ready cannot be pushed until this is unlocked
			return []Leaf{{State: LeafReady}}, nil
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Run(t.Context())
		}()
		expect[*Accept](p)
		p.send(&Finish{})
		for r.Status().Phase != string(PhaseReady) {
			select {
			case <-done:
				t.Fatal("the transfer ended before it was ready")
			default:
				runtime.Gosched()
			}
		}
		p.send(&Commit{})
		p.breakWith(errLost)
		<-r.hungUp
		r.out.mu.Unlock()
		<-done
		require.Equal(t, []string{"begin f", "finish", "commit"}, sink.calls())
	}
}

func TestDaemonThatStopsBeforeCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := ready(t, &fakeSink{})
		h.cancel(ErrInterrupted)
		m := h.expectReject(CodeInterrupted)
		assert.Equal(t, ErrInterrupted.Text, m.Text)
		<-h.done
		assert.Equal(t, ErrInterrupted, h.err)
		assert.ErrorIs(t, h.sink.cause, ErrForget)
		assert.Equal(t, []string{"begin f", "finish", "abort"}, h.sink.calls())
	})
}

// Receipts must be read before the stream goes, but not by a sender that does
// not hang up.
func TestReceiverLingersUntilTheSenderHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := ready(t, &fakeSink{})
		h.send(&Commit{})
		expect[*Receipt](h.rawPeer)
		_, err := h.next()
		assert.Equal(t, io.EOF, err, "the receiver has nothing more to say")
		begun := time.Now()
		<-h.done
		assert.Equal(t, lingerTimeout, time.Since(begun))
	})
}

func TestReceiptsThatCameAreReturnedWithTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := offered(t, SenderConfig{})
		go func() {
			expect[*Commit](h.peer)
			h.peer.send(&Receipt{Leaf: "b", Status: LeafPublished, Bytes: 5})
			h.peer.CloseWrite()
		}()
		receipts, err := h.Commit(t.Context())
		assert.True(t, HasCode(err, CodeUnreachable), "%v", err)
		assert.Equal(t, []Receipt{{Leaf: "b", Status: LeafPublished, Bytes: 5}}, receipts)
	})
}

// lateContext lets a select that has it begin only after ready.
type lateContext struct {
	context.Context
	ready <-chan struct{}
}

func (c lateContext) Done() <-chan struct{} {
	<-c.ready
	return c.Context.Done()
}

// All receipts have come and then the connection breaks: when Commit gets to
// look, both are there to choose from.
func TestAllReceiptsCountMoreThanWhatComesAfterThem(t *testing.T) {
	for range 20 { // as select chooses at random
		synctest.Test(t, func(t *testing.T) {
			h := offered(t, SenderConfig{})
			go func() {
				expect[*Commit](h.peer)
				h.peer.send(&Receipt{Leaf: "a", Status: LeafPublished})
				h.peer.send(&Receipt{Leaf: "b", Status: LeafPublished})
				h.peer.breakWith(errLost)
			}()
			receipts, err := h.Commit(lateContext{t.Context(), h.ended})
			assert.NoError(t, err)
			assert.Len(t, receipts, 2)
		})
	}
}

func TestEndAfterTheReceiptsIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := offered(t, SenderConfig{})
		h.peer.send(&Receipt{Leaf: "a", Status: LeafPublished})
		h.peer.send(&Receipt{Leaf: "b", Status: LeafFailed, Code: CodeIO})
		h.peer.CloseWrite()
		synctest.Wait()
		assert.Empty(t, h.told())
		receipts, err := h.Commit(t.Context())
		assert.NoError(t, err)
		assert.Len(t, receipts, 2)
	})
}
