package protocol

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// manyLeaves are more than one frame holds.
func manyLeaves(n int) []Leaf {
	leaves := make([]Leaf, n)
	for i := range leaves {
		leaves[i] = Leaf{Name: fmt.Sprintf("europe-west-%d/%s", i, strings.Repeat("r", 100)), State: LeafReceiving, Text: "\x01 <"}
	}
	return leaves
}

func TestPagedLeavesRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 200, 5000} {
		leaves := manyLeaves(n)
		frames, err := appendPaged(leaves, func(rest []Leaf) Message { return &Ready{Leaves: rest} })
		require.NoError(t, err)
		fr := NewFrameReader(strings.NewReader(string(frames)))
		var p pages
		for {
			f, err := fr.Next()
			require.NoError(t, err)
			m, err := ParseMessage(f.Kind, f.Payload)
			require.NoError(t, err)
			if l, ok := m.(*Leaves); ok {
				assert.NotEmpty(t, l.Leaves)
				require.NoError(t, p.add(l))
				continue
			}
			got := p.complete(m.(*Ready).Leaves)
			require.Len(t, got, n)
			for i := range got {
				require.Equal(t, leaves[i], got[i])
			}
			break
		}
		assert.Empty(t, p, "complete starts the next list")
	}
}

func TestPagesAreBounded(t *testing.T) {
	var p pages
	require.NoError(t, p.add(&Leaves{Leaves: make([]Leaf, maxPaged)}))
	require.Error(t, p.add(&Leaves{Leaves: make([]Leaf, 1)}))
}

// A push through a tree of thousands of readers works as one to three.
func TestTransferWithThousandsOfLeaves(t *testing.T) {
	leaves := manyLeaves(3000)
	ready := make([]Leaf, len(leaves))
	for i, l := range leaves {
		l.State = LeafReady
		ready[i] = l
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHop(t, &fakeSink{
			answer:   Accept{Leaves: leaves},
			onFinish: func(context.Context) ([]Leaf, error) { return ready, nil },
			onCommit: func(context.Context) []Receipt {
				receipts := make([]Receipt, len(leaves))
				for i, l := range leaves {
					receipts[i] = Receipt{Leaf: l.Name, Status: LeafPublished}
				}
				return receipts
			},
		}, SenderConfig{})
		a, err := h.Offer(t.Context(), offer(0))
		require.NoError(t, err)
		assert.Len(t, a.Leaves, len(leaves))
		r, err := h.Finish(t.Context(), &Finish{})
		require.NoError(t, err)
		assert.Equal(t, ready, r.Leaves)
		receipts, err := h.Commit(t.Context())
		require.NoError(t, err)
		require.Len(t, receipts, len(leaves))
		assert.Equal(t, leaves[2999].Name, receipts[2999].Leaf)
		h.hangUp()
		require.NoError(t, h.err)
	})
}

func TestTwoLeavesOfOneNameAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHop(t, &fakeSink{answer: Accept{Leaves: []Leaf{{Name: "a", State: LeafReceiving}, {Name: "a", State: LeafReceiving}}}}, SenderConfig{})
		_, err := h.Offer(t.Context(), offer(0))
		require.ErrorContains(t, err, `two leaves are called "a"`)
	})
}
