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

// What a sink says of itself and its leaves, on its way to the sender.

func TestAcceptIsFittedToTheSession(t *testing.T) {
	tests := []struct{ answer, want Accept }{
		{Accept{}, Accept{Window: testWindow, MaxChunk: testWindow / 4}},
		{Accept{Window: 1 << 30, MaxChunk: MaxChunk}, Accept{Window: testWindow, MaxChunk: testWindow / 4}},
		{Accept{Window: 128 << 10}, Accept{Window: 128 << 10, MaxChunk: 32 << 10}},
		{Accept{Window: 128 << 10, MaxChunk: 1000, Offset: 7}, Accept{Window: 128 << 10, MaxChunk: 1000, Offset: 7}},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			h := receive(t, &fakeSink{answer: tt.answer}, offer(-1), 1<<20)
			got := expect[*Accept](h.rawPeer)
			tt.want.Leaves = []Leaf{{State: LeafReceiving}}
			assert.Equal(t, &tt.want, got)
		})
	}
}

// What a sink says wrong is told to the sender, and the transfer is aborted.
func TestSinkThatAcceptsNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := receive(t, &fakeSink{answer: Accept{Leaves: []Leaf{{Name: strings.Repeat("n", maxLeafName+1), State: LeafReceiving}}}}, offer(-1), 1<<20)
		expect[*Reject](h.rawPeer)
		<-h.done
		assert.Equal(t, []string{"begin f", "abort"}, h.sink.calls())
	})
}

func TestLongTextsOfASinkAreClipped(t *testing.T) {
	long := strings.Repeat("a line of a command's output <stderr>\n", 4000)
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, &fakeSink{
			onFinish: func(context.Context) ([]Leaf, error) {
				return []Leaf{{State: LeafFailed, Code: CodeCommand, Text: long}}, nil
			},
			onCommit: func(context.Context) []Receipt {
				return []Receipt{{Status: LeafFailed, Code: CodeCommand, Text: long, Location: long}}
			},
		}, offer(0))
		h.send(&Finish{})
		leaf := expect[*Ready](h.rawPeer).Leaves[0]
		assert.Equal(t, CodeCommand, leaf.Code)
		assert.LessOrEqual(t, len(leaf.Text), maxTextLen)
		h.send(&Commit{})
		r := expect[*Receipt](h.rawPeer)
		assert.LessOrEqual(t, len(r.Text), maxTextLen)
		assert.LessOrEqual(t, len(r.Location), maxTextLen)
	})
}

// Under a policy that lets some readers fail, what they say of it must not be
// what fails the others.
func TestManyLongTextsOfLeavesDoNotFailATransfer(t *testing.T) {
	leaves := []Leaf{{Name: "good", State: LeafReceiving}}
	for i := range 40 {
		leaves = append(leaves, Leaf{Name: fmt.Sprint("bad-", i), State: LeafFailed, Code: CodeCommand, Text: strings.Repeat("stderr ", 1000)})
	}
	synctest.Test(t, func(t *testing.T) {
		h := receive(t, &fakeSink{
			answer:   Accept{Leaves: leaves},
			onFinish: func(context.Context) ([]Leaf, error) { return leaves, nil },
		}, offer(0), 1<<20)
		for _, told := range [][]Leaf{
			expect[*Accept](h.rawPeer).Leaves,
			func() []Leaf { h.send(&Finish{}); return expect[*Ready](h.rawPeer).Leaves }(),
		} {
			require.Len(t, told, len(leaves))
			for i, l := range told {
				assert.Equal(t, leaves[i].Name, l.Name)
				assert.Equal(t, leaves[i].State, l.State)
				assert.Equal(t, leaves[i].Code, l.Code)
				if leaves[i].Text != "" {
					assert.Contains(t, l.Text, "stderr")
				}
			}
		}
	})
}

func TestLongTextInAnAcceptIsClipped(t *testing.T) {
	leaves := []Leaf{{Name: "good", State: LeafReceiving}, {Name: "bad", State: LeafFailed, Code: CodeIO, Text: strings.Repeat("x", maxTextLen+1)}}
	synctest.Test(t, func(t *testing.T) {
		h := receive(t, &fakeSink{answer: Accept{Leaves: leaves}}, offer(0), 1<<20)
		assert.LessOrEqual(t, len(expect[*Accept](h.rawPeer).Leaves[1].Text), maxTextLen)
	})
}
