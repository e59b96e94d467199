// What one failed reader means for the others, phase by phase.

package daemon_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

// phases are the steps of a push in which a reader can fail, with what the
// stores here fail with.
var phases = []struct {
	name string
	err  *protocol.Error
}{
	{"offer", protocol.Errorf(protocol.CodeDenied, "not in this directory")},
	{"content", protocol.Errorf(protocol.CodeNoSpace, "the disk is full")},
	{"stage", protocol.Errorf(protocol.CodeIO, "the disk is broken")},
	{"publish", protocol.Errorf(protocol.CodeExists, "somebody was faster")},
}

// failing is a store that fails in a phase; "" is one that does not.
func failing(t *testing.T, phase string) *store {
	s := newStore(t)
	for _, p := range phases {
		switch {
		case p.name != phase:
		case phase == "offer":
			s.refuse = p.err
		case phase == "content":
			s.write, s.failAt = p.err, piece
		case phase == "stage":
			s.stage = p.err
		case phase == "publish":
			s.publish = p.err
		}
	}
	return s
}

// Under all, one failure before the commit is everybody's, and the sender
// learns whose it was.
func TestAllPublishOrNone(t *testing.T) {
	content := random(3 * piece)
	for _, phase := range phases[:3] {
		t.Run(phase.name, func(t *testing.T) {
			stores := []*store{newStore(t), failing(t, phase.name), newStore(t)}
			b, readers := broadcaster(t, never, stores...)
			_, err := push(t, b.addr, newOffer("f", len(content), protocol.All), content)
			assertCode(t, phase.err.Code, err)
			e := protocol.AsError(err)
			assert.Equal(t, "r2", e.Leaf)
			assert.Equal(t, phase.err.Text, e.Text)
			require.Len(t, e.Leaves, 3)
			for i, name := range []string{"r1", "r2", "r3"} {
				l := e.Leaves[i]
				assert.Equal(t, name, l.Name)
				assert.Equal(t, name == "r2", l.State == protocol.LeafFailed, "%+v", l)
			}
			assert.Equal(t, phase.err.Code, e.Leaves[1].Code)

			assertCode(t, phase.err.Code, awaitEnd(t, b).err)
			for i, r := range readers {
				if end := awaitEnd(t, r); i == 1 {
					assertCode(t, phase.err.Code, end.err)
				} else {
					assertCode(t, protocol.CodePolicy, end.err)
					assert.ErrorIs(t, end.err, protocol.ErrOver, "nobody comes back to it")
				}
			}
			assertNothingPublished(t, stores...)
		})
	}
}

// After the commit there is no way back: the receipts say who has it.
func TestAllFailureToPublishIsInTheReceipts(t *testing.T) {
	stores := []*store{newStore(t), failing(t, "publish"), newStore(t)}
	b, _ := broadcaster(t, never, stores...)
	content := random(piece)
	receipts, err := push(t, b.addr, newOffer("f", len(content), protocol.All), content)
	require.NoError(t, err)
	assert.Equal(t, map[string]protocol.LeafState{
		"r1": protocol.LeafPublished, "r2": protocol.LeafFailed, "r3": protocol.LeafPublished,
	}, statuses(t, receipts))
	r := byLeaf(t, receipts)["r2"]
	assert.Equal(t, protocol.CodeExists, r.Code)
	assert.Equal(t, "somebody was faster", r.Text)
	assertPublished(t, stores[0], "f", content)
	assertNothingPublished(t, stores[1])
	assertPublished(t, stores[2], "f", content)
}

// Under any other policy the rest goes on, and the failed one has a receipt
// that says why.
func TestOthersPublish(t *testing.T) {
	content := random(3 * piece)
	for _, need := range []string{"any", "2"} {
		for _, phase := range phases {
			t.Run(need+" "+phase.name, func(t *testing.T) {
				stores := []*store{newStore(t), failing(t, phase.name), newStore(t)}
				b, _ := broadcaster(t, never, stores...)
				p := begin(t, b.addr, newOffer("f", len(content), policy(t, need)))
				require.NoError(t, p.send(content))
				ready, err := p.finish()
				require.NoError(t, err)
				require.Len(t, ready.Leaves, 3)
				for i, l := range ready.Leaves {
					if i == 1 && phase.name != "publish" {
						assert.Equal(t, protocol.LeafFailed, l.State)
						assert.Equal(t, phase.err.Code, l.Code)
					} else {
						assert.Equal(t, protocol.LeafReady, l.State, "%+v", l)
					}
				}
				receipts, err := p.commit()
				require.NoError(t, err)
				p.Close()
				assert.Equal(t, map[string]protocol.LeafState{
					"r1": protocol.LeafPublished, "r2": protocol.LeafFailed, "r3": protocol.LeafPublished,
				}, statuses(t, receipts))
				r := byLeaf(t, receipts)["r2"]
				assert.Equal(t, phase.err.Code, r.Code)
				assert.Equal(t, phase.err.Text, r.Text)
				assertPublished(t, stores[0], "f", content)
				assertNothingPublished(t, stores[1])
				assertPublished(t, stores[2], "f", content)
				assert.Equal(t, receipts, awaitEnd(t, b).receipts)
			})
		}
	}
}

// When the last reader has failed there is nobody to go on for.
func TestAllHaveFailed(t *testing.T) {
	content := random(3 * piece)
	for _, phase := range phases[:3] {
		t.Run(phase.name, func(t *testing.T) {
			stores := []*store{failing(t, phase.name), failing(t, phase.name)}
			b, _ := broadcaster(t, never, stores...)
			_, err := push(t, b.addr, newOffer("f", len(content), policy(t, "any")), content)
			assertCode(t, phase.err.Code, err)
			assert.ErrorContains(t, err, "r1, r2: "+phase.err.Text)
			for _, l := range protocol.AsError(err).Leaves {
				assert.Equal(t, protocol.LeafFailed, l.State)
			}
			assertNothingPublished(t, stores...)
		})
	}
}

// Under all, the first refusal does not hide the others.
func TestAllRefusalsAreTold(t *testing.T) {
	one, two := failing(t, "offer"), newStore(t)
	two.refuse = protocol.Errorf(protocol.CodeConflict, "in use")
	b, _ := broadcaster(t, never, one, newStore(t), two)
	_, err := push(t, b.addr, newOffer("f", 0, protocol.All), nil)
	require.ErrorContains(t, err, "r1: not in this directory")
	require.ErrorContains(t, err, "r3: in use")
	assert.NotContains(t, err.Error(), "r2")
}

// A reader that takes nothing fails after the stall timeout, and holds the
// others up no longer.
func TestStalledReader(t *testing.T) {
	content := random(6 * piece)
	for _, c := range []struct {
		need string
		want protocol.LeafState
	}{{"all", protocol.LeafFailed}, {"any", protocol.LeafPublished}} {
		t.Run(c.need, func(t *testing.T) {
			good, stuck := newStore(t), newStore(t)
			stuck.writing = make(chan struct{}) // never opens
			b, readers := broadcaster(t, short, good, stuck)
			p := begin(t, b.addr, newOffer("f", len(content), policy(t, c.need)))
			require.NoError(t, p.send(content))
			_, err := p.finish()
			if c.need == "all" {
				assertCode(t, protocol.CodeStalled, err)
				assert.Equal(t, "r2", protocol.AsError(err).Leaf)
				assertNothingPublished(t, good, stuck)
				return
			}
			require.NoError(t, err)
			receipts, err := p.commit()
			require.NoError(t, err)
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafFailed}, statuses(t, receipts))
			assert.Equal(t, protocol.CodeStalled, byLeaf(t, receipts)["r2"].Code)
			assertPublished(t, good, "f", content)
			assertCode(t, protocol.CodeTruncated, awaitEnd(t, readers[1]).err)
		})
	}
}

// A reader that is slow is not one that is stuck: as long as it takes content,
// however little, it has not stalled.
func TestSlowReaderIsNotStalled(t *testing.T) {
	slow := newStore(t)
	slow.writing = make(chan struct{})
	b, _ := broadcaster(t, short, slow)
	const pieces = 5
	content := random(pieces * piece)
	p := begin(t, b.addr, newOffer("f", len(content), protocol.All))
	require.NoError(t, p.send(content))
	pace := time.NewTicker(short / 3)
	defer pace.Stop()
	for range pieces {
		slow.await(t, "write")
		<-pace.C
		select {
		case slow.writing <- struct{}{}:
		case err := <-p.ended:
			require.NoError(t, err, "the push goes on")
		}
	}
	p.complete()
	assertPublished(t, slow, "f", content)
}
