package protocol

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeSink takes one transfer, keeps its content and notes what is called. The
// hooks, where set, replace what a good sink does.
type fakeSink struct {
	answer Accept // a leaf "" when it has none

	onBegin  func(ctx context.Context) error
	onWrite  func(c *Chunk) error // acks nothing unless it does
	onFinish func(ctx context.Context) ([]Leaf, error)
	onCommit func(ctx context.Context) []Receipt
	onAbort  func()

	up Upstream // set by Begin

	mu     sync.Mutex
	called []string // without the writes
	wrote  []int64  // where the chunks began
	cause  error    // of the Abort

	// Read when the transfer has ended.
	content bytes.Buffer
	finish  *Finish
}

func (s *fakeSink) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.called = append(s.called, what)
}

// calls are what has been called so far, without the writes.
func (s *fakeSink) calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.called)
}

// writes are where the chunks so far began.
func (s *fakeSink) writes() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wrote)
}

func (s *fakeSink) Begin(ctx context.Context, offer *Offer, up Upstream) (Transfer, *Accept, error) {
	s.note(string("begin " + offer.Name))
	s.up = up
	if s.onBegin != nil {
		if err := s.onBegin(ctx); err != nil {
			return nil, nil, err
		}
	}
	a := s.answer
	if a.Leaves == nil {
		a.Leaves = []Leaf{{State: LeafReceiving}}
	}
	return (*fakeTransfer)(s), &a, nil
}

type fakeTransfer fakeSink

func (t *fakeTransfer) Write(c *Chunk) error {
	t.mu.Lock()
	t.wrote = append(t.wrote, c.Offset)
	t.mu.Unlock()
	if t.onWrite != nil {
		return t.onWrite(c)
	}
	content, _, err := c.Decode(nil)
	if err != nil {
		return err
	}
	t.content.Write(content)
	t.up.Ack(c.End())
	return nil
}

func (t *fakeTransfer) Finish(ctx context.Context, f *Finish) ([]Leaf, error) {
	(*fakeSink)(t).note("finish")
	t.finish = f
	if t.onFinish != nil {
		return t.onFinish(ctx)
	}
	return t.leaves(LeafReady), nil
}

func (t *fakeTransfer) leaves(state LeafState) []Leaf {
	leaves := []Leaf{{State: state}}
	if t.answer.Leaves != nil {
		leaves = append([]Leaf(nil), t.answer.Leaves...)
	}
	for i := range leaves {
		leaves[i].State = state
	}
	return leaves
}

func (t *fakeTransfer) Commit(ctx context.Context) []Receipt {
	(*fakeSink)(t).note("commit")
	if t.onCommit != nil {
		return t.onCommit(ctx)
	}
	var receipts []Receipt
	for _, l := range t.leaves(LeafPublished) {
		receipts = append(receipts, Receipt{Leaf: l.Name, Status: LeafPublished, Bytes: int64(t.content.Len())})
	}
	return receipts
}

func (t *fakeTransfer) Abort(cause error) {
	(*fakeSink)(t).note("abort")
	t.mu.Lock()
	t.cause = cause
	t.mu.Unlock()
	if t.onAbort != nil {
		t.onAbort()
	}
}

// rawPeer is the other end of a stream, played by the test frame by frame.
type rawPeer struct {
	*memStream
	t      *testing.T
	frames *FrameReader
}

func newRawPeer(t *testing.T, s *memStream) *rawPeer {
	return &rawPeer{memStream: s, t: t, frames: NewFrameReader(s)}
}

func (p *rawPeer) write(frame []byte) {
	p.t.Helper()
	_, err := p.Write(frame)
	require.NoError(p.t, err)
}

func (p *rawPeer) send(m Message) {
	p.t.Helper()
	frame, err := AppendMessage(nil, m)
	require.NoError(p.t, err)
	p.write(frame)
}

func (p *rawPeer) chunk(offset int64, content []byte) {
	p.t.Helper()
	c := rawChunk(offset, content)
	p.write(c.Frame())
	c.Release()
}

func (p *rawPeer) ack(offset int64) {
	p.t.Helper()
	p.write(AppendAck(nil, offset))
}

// next reads the next frame but pings.
func (p *rawPeer) next() (Frame, error) {
	for {
		f, err := p.frames.Next()
		if f.Kind != KindPing {
			return f, err
		}
	}
}

// expect reads a message of M's kind, with the whole of its leaves.
func expect[M Message](p *rawPeer) M {
	p.t.Helper()
	var first pages
	for {
		f, err := p.next()
		require.NoError(p.t, err)
		m, err := ParseMessage(f.Kind, f.Payload)
		if l, ok := m.(*Leaves); ok {
			require.NoError(p.t, first.add(l))
			continue
		}
		var want M
		require.Equal(p.t, want.Kind(), f.Kind, "%s", f.Payload)
		require.NoError(p.t, err)
		switch m := m.(type) {
		case *Accept:
			m.Leaves = first.complete(m.Leaves)
		case *Ready:
			m.Leaves = first.complete(m.Leaves)
		case *Reject:
			m.Leaves = first.complete(m.Leaves)
		}
		return m.(M)
	}
}

// expectAck reads an ack.
func (p *rawPeer) expectAck(offset int64) {
	p.t.Helper()
	f, err := p.next()
	require.NoError(p.t, err)
	require.Equal(p.t, KindAck, f.Kind, "%s", f.Payload)
	got, err := ParseAck(f.Payload)
	require.NoError(p.t, err)
	assert.Equal(p.t, offset, got)
}

// expectReject reads a Reject with code, and then the end of the stream.
func (p *rawPeer) expectReject(code Code) *Reject {
	p.t.Helper()
	m := expect[*Reject](p)
	assert.Equal(p.t, code, m.Code, "%s", m.Text)
	_, err := p.next()
	assert.Error(p.t, err, "frames after the reject")
	return m
}
