package protocol

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A Sender and a Receiver, joined by a memPipe. Each of these tests runs in a
// synctest bubble, which fails when a goroutine is left behind.
type hop struct {
	*Sender
	sink *fakeSink
	far  *memStream // the receiver's end

	receipts []Receipt // of Run, after hangUp
	err      error
	done     chan struct{}
}

const testWindow = 256 << 10

// newHop runs a Receiver for whatever the Sender offers, as a daemon does.
func newHop(t *testing.T, sink *fakeSink, cfg SenderConfig) *hop {
	t.Helper()
	near, far := memPipe(1 << 20)
	h := &hop{Sender: NewSender(near, cfg), sink: sink, far: far, done: make(chan struct{})}
	go func() {
		defer close(h.done)
		frames := NewFrameReader(far)
		f, err := frames.Next()
		if err != nil {
			h.err = err
			return
		}
		m, err := ParseMessage(f.Kind, f.Payload)
		if err != nil {
			h.err = err
			return
		}
		h.receipts, h.err = NewReceiver(far, frames, m.(*Offer), sink, testWindow).Run(t.Context())
	}()
	t.Cleanup(func() {
		h.Close()
		h.Sender.Wait()
		<-h.done
	})
	return h
}

// hangUp ends the stream as a sender does and waits for the Receiver.
func (h *hop) hangUp() {
	h.Close()
	<-h.done
}

// sendAll sends content in chunks of size, compressed where that pays.
func (h *hop) sendAll(t *testing.T, content []byte, from int64, size int) {
	t.Helper()
	enc := NewEncoder(CompressAuto)
	for at := from; at < int64(len(content)); {
		part := content[at:min(at+int64(size), int64(len(content)))]
		c := NewChunk(len(part))
		copy(c.Buffer(), part)
		require.NoError(t, h.Send(t.Context(), enc.Seal(c, at, len(part))))
		at += int64(len(part))
	}
}

func offer(size int64) *Offer { return &Offer{ID: "x", Name: "f", Size: size, Digest: DigestNone} }

func TestTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := append(text(2<<20), random(2<<20, 10)...)
		acked := int64(0)
		h := newHop(t, &fakeSink{}, SenderConfig{OnAck: func(offset int64) { acked = offset }})
		a, err := h.Offer(t.Context(), &Offer{Name: "f", Size: int64(len(content)), Digest: DigestSHA256})
		require.NoError(t, err)
		assert.Equal(t, &Accept{Window: testWindow, MaxChunk: testWindow / 4, Leaves: []Leaf{{State: LeafReceiving}}}, a)

		h.sendAll(t, content, 0, a.MaxChunk)
		ready, err := h.Finish(t.Context(), &Finish{Size: int64(len(content)), Digest: sha256Hello})
		require.NoError(t, err)
		assert.Equal(t, []Leaf{{State: LeafReady}}, ready.Leaves)
		assert.Equal(t, int64(len(content)), acked)
		assert.Equal(t, []string{"begin f", "finish"}, h.sink.calls(), "published before the commit")

		receipts, err := h.Commit(t.Context())
		require.NoError(t, err)
		h.hangUp()
		require.NoError(t, h.err)
		assert.Equal(t, []Receipt{{Status: LeafPublished, Bytes: int64(len(content))}}, receipts)
		assert.Equal(t, receipts, h.receipts)
		assert.True(t, bytes.Equal(content, h.sink.content.Bytes()))
		assert.Equal(t, Digest(sha256Hello), h.sink.finish.Digest)
		assert.Equal(t, []string{"begin f", "finish", "commit"}, h.sink.calls())
	})
}

func TestEmptyTransfer(t *testing.T) {
	for _, size := range []int64{0, -1} {
		synctest.Test(t, func(t *testing.T) {
			h := newHop(t, &fakeSink{}, SenderConfig{})
			_, err := h.Offer(t.Context(), offer(size))
			require.NoError(t, err)
			_, err = h.Finish(t.Context(), &Finish{})
			require.NoError(t, err)
			receipts, err := h.Commit(t.Context())
			require.NoError(t, err)
			h.hangUp()
			assert.Equal(t, []Receipt{{Status: LeafPublished}}, receipts)
			assert.Empty(t, h.sink.writes())
		})
	}
}

func TestResumedTransfer(t *testing.T) {
	for _, at := range []int64{1, 50_000, 65_536, 99_999, 100_000} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content := random(100_000, 11)
				h := newHop(t, &fakeSink{answer: Accept{Offset: at}}, SenderConfig{})
				a, err := h.Offer(t.Context(), offer(100_000))
				require.NoError(t, err)
				require.Equal(t, at, a.Offset)
				h.sendAll(t, content, 0, 16<<10) // from the start, as a Fanout does
				_, err = h.Finish(t.Context(), &Finish{Size: 100_000})
				require.NoError(t, err)
				for _, offset := range h.sink.writes() {
					assert.Greater(t, offset+16<<10, at, "a chunk that the receiver has was sent")
				}
				if at < 100_000 {
					assert.LessOrEqual(t, h.sink.writes()[0], at, "a gap at the seam")
				}
				assert.True(t, bytes.HasSuffix(content, h.sink.content.Bytes()))
			})
		})
	}
}

func TestReceiptsComeInTheOrderOfTheLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaves := []Leaf{{Name: "a", State: LeafReceiving}, {Name: "b", State: LeafReceiving}, {Name: "c", State: LeafReceiving}}
		h := newHop(t, &fakeSink{
			answer: Accept{Leaves: leaves},
			onCommit: func(context.Context) []Receipt {
				return []Receipt{
					{Leaf: "c", Status: LeafPublished},
					{Leaf: "a", Status: LeafFailed, Code: CodeIO, Text: "bad disk"},
					{Leaf: "b", Status: LeafUnchanged},
				}
			},
		}, SenderConfig{})
		_, err := h.Offer(t.Context(), offer(0))
		require.NoError(t, err)
		_, err = h.Finish(t.Context(), &Finish{})
		require.NoError(t, err)
		receipts, err := h.Commit(t.Context())
		require.NoError(t, err, "a leaf that failed is not an error of the hop")
		assert.Equal(t, []Receipt{
			{Leaf: "a", Status: LeafFailed, Code: CodeIO, Text: "bad disk"},
			{Leaf: "b", Status: LeafUnchanged},
			{Leaf: "c", Status: LeafPublished},
		}, receipts)
	})
}

func TestSinkThatRefusesTheOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended error
		h := newHop(t, &fakeSink{
			onBegin: func(context.Context) error {
				return &Error{Code: CodeExists, Text: "is there", Leaf: "r1", Leaves: []Leaf{{Name: "r1", State: LeafFailed}}}
			},
		}, SenderConfig{OnEnd: func(err error) { ended = err }})
		_, err := h.Offer(t.Context(), offer(5))
		assert.Equal(t, &Error{Code: CodeExists, Text: "is there", Leaf: "r1", Leaves: []Leaf{{Name: "r1", State: LeafFailed}}}, err)
		h.hangUp()
		h.Wait()
		assert.Equal(t, err, ended)
		assert.Equal(t, []string{"begin f"}, h.sink.calls(), "a transfer that never began was aborted")
		_, err = h.Finish(t.Context(), &Finish{})
		assert.Equal(t, ended, err, "the first error does not stick")
	})
}

func TestSinkThatFailsMidway(t *testing.T) {
	diskFull := fmt.Errorf("write f at 65536: %w", syscall.ENOSPC)
	fail := map[string]func(*fakeSink) func(*Chunk) error{
		"by its own word": func(s *fakeSink) func(*Chunk) error {
			return func(c *Chunk) error {
				if c.Offset >= 64<<10 {
					s.up.Fail(diskFull)
				}
				return nil
			}
		},
		"in Write": func(*fakeSink) func(*Chunk) error {
			return func(c *Chunk) error {
				if c.Offset >= 64<<10 {
					return diskFull
				}
				return nil
			}
		},
	}
	for name, hook := range fail {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := &fakeSink{}
				sink.onWrite = hook(sink)
				h := newHop(t, sink, SenderConfig{})
				_, err := h.Offer(t.Context(), offer(-1))
				require.NoError(t, err)
				for at := int64(0); err == nil; at += 16 << 10 { // the window, at the latest, stops it
					err = h.Send(t.Context(), rawChunk(at, make([]byte, 16<<10)))
				}
				assert.Equal(t, &Error{Code: CodeNoSpace, Text: diskFull.Error()}, err)
				h.hangUp()
				require.ErrorIs(t, h.err, syscall.ENOSPC)
				assert.Equal(t, []string{"begin f", "abort"}, sink.calls())
				assert.ErrorIs(t, sink.cause, syscall.ENOSPC)
				assert.NotErrorIs(t, sink.cause, ErrForget, "what helps to resume was thrown away")
			})
		})
	}
}

func TestSinkThatFailsToStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHop(t, &fakeSink{
			onFinish: func(context.Context) ([]Leaf, error) { return nil, Errorf(CodeDigest, "not what was said") },
		}, SenderConfig{})
		_, err := h.Offer(t.Context(), offer(0))
		require.NoError(t, err)
		_, err = h.Finish(t.Context(), &Finish{})
		assert.True(t, HasCode(err, CodeDigest), "%v", err)
		h.hangUp()
		assert.Equal(t, []string{"begin f", "finish", "abort"}, h.sink.calls())
	})
}

func TestAbortForgetsTheTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHop(t, &fakeSink{}, SenderConfig{})
		_, err := h.Offer(t.Context(), offer(-1))
		require.NoError(t, err)
		require.NoError(t, h.Send(t.Context(), rawChunk(0, []byte("hello"))))
		h.Abort("interrupted")
		<-h.done
		assert.True(t, HasCode(h.err, CodeAborted), "%v", h.err)
		assert.ErrorContains(t, h.err, "interrupted")
		assert.ErrorIs(t, h.sink.cause, ErrForget)
		assert.Equal(t, []string{"begin f", "abort"}, h.sink.calls())
		assert.Error(t, h.Send(t.Context(), rawChunk(5, []byte("x"))))
	})
}

func TestSenderThatVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHop(t, &fakeSink{}, SenderConfig{})
		_, err := h.Offer(t.Context(), offer(10))
		require.NoError(t, err)
		require.NoError(t, h.Send(t.Context(), rawChunk(0, []byte("hello"))))
		synctest.Wait()
		h.Close() // all that is left on the stream is a clean EOF
		<-h.done
		assert.True(t, HasCode(h.err, CodeTruncated), "%v", h.err)
		assert.ErrorContains(t, h.err, "at 5 bytes")
		assert.NotErrorIs(t, h.sink.cause, ErrForget)
		assert.NotErrorIs(t, h.sink.cause, io.EOF)
		assert.Equal(t, []string{"begin f", "abort"}, h.sink.calls())
	})
}

func TestReceiverThatVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []error
		h := newHop(t, &fakeSink{onWrite: func(*Chunk) error { return nil }}, SenderConfig{OnEnd: func(err error) { ends = append(ends, err) }})
		_, err := h.Offer(t.Context(), offer(-1))
		require.NoError(t, err)
		require.NoError(t, h.Send(t.Context(), rawChunk(0, []byte("hello"))))
		synctest.Wait()
		h.far.Close()
		_, err = h.Finish(t.Context(), &Finish{Size: 5})
		assert.True(t, HasCode(err, CodeUnreachable), "%v", err)
		h.Close()
		h.Wait()
		assert.Equal(t, []error{err}, ends, "OnEnd is called once, with the first error")
	})
}
