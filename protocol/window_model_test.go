package protocol

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestWindowKeepsItsInvariants drives a window with random steps of a sender,
// a writer and a receiver, in any order that these can have.
func TestWindowKeepsItsInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(minWindow, 2*minWindow).Draw(t, "size")
		start := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		m := &windowModel{w: newWindow(size, start), sent: start, wrote: start, acked: start}
		t.Repeat(map[string]func(*rapid.T){
			"reserve": m.reserve,
			"written": m.written,
			"ack":     m.ack,
			"":        m.check,
		})
		for m.next < len(m.chunks) {
			m.written(t)
		}
		require.NoError(t, m.w.ack(m.sent))
		m.acked = m.sent
		m.check(t)
		assert.Empty(t, m.w.chunks, "not all chunks were released in the end")
	})
}

type windowModel struct {
	w      *window
	chunks []*Chunk // all that were reserved; each also has a reference of ours
	next   int      // the first of them that is not written

	sent, wrote, acked int64
}

func (m *windowModel) reserve(t *rapid.T) {
	n := rapid.IntRange(1, minWindow/4).Draw(t, "bytes")
	c := NewChunk(n)
	c.Seal(m.sent, n, CodecRaw, n)
	inflight := 0
	for _, c := range m.chunks {
		if c.End() > min(m.acked, m.wrote) {
			inflight++
		}
	}
	fits := c.End()-m.acked <= m.w.size && inflight < MaxInflight(m.w.size)
	c.Retain()
	ended, cancel := context.WithCancel(context.Background())
	cancel() // a reserve that would have to wait gives up at once
	err := m.w.reserve(ended, c)
	if !fits {
		require.ErrorIs(t, err, context.Canceled, "reserved beyond the window")
		c.Release()
		c.Release()
		return
	}
	require.NoError(t, err, "refused what fits")
	m.chunks = append(m.chunks, c)
	m.sent = c.End()
}

func (m *windowModel) written(t *rapid.T) {
	if m.next == len(m.chunks) {
		t.Skip("nothing to write")
	}
	m.wrote = m.chunks[m.next].End()
	m.next++
	m.w.written(m.wrote)
}

func (m *windowModel) ack(t *rapid.T) {
	offset := rapid.Int64Range(max(0, m.acked-10), m.sent+10).Draw(t, "offset")
	err := m.w.ack(offset)
	if offset > m.sent {
		require.True(t, HasCode(err, CodeProtocol), "ack of what was not sent: %v", err)
		return
	}
	require.NoError(t, err)
	m.acked = max(m.acked, offset)
}

func (m *windowModel) check(t *rapid.T) {
	require.Equal(t, m.acked, m.w.acked)
	require.LessOrEqual(t, m.sent-m.acked, m.w.size, "more unacknowledged than the window")
	require.LessOrEqual(t, len(m.w.chunks), MaxInflight(m.w.size))
	for _, c := range m.chunks {
		want := int32(2)
		if c.End() <= min(m.acked, m.wrote) {
			want = 1
		}
		require.Equal(t, want, c.refs.Load(), "references of the chunk to %d: acked %d, written %d", c.End(), m.acked, m.wrote)
	}
}
