// Push, when readers fail: the error, and a receipt for each reader.

package client_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

var errFull = protocol.Errorf(protocol.CodeNoSpace, "the disk is full")

// failAt makes a store fail in a phase.
func failAt(s *store, phase string, err error) {
	switch phase {
	case "offer":
		s.onCreate = fails(err)
	case "content":
		s.onWrite = fails(err)
	case "stage":
		s.onStage = fails(err)
	case "publish":
		s.onPublish = fails(err)
	}
}

func TestAllOrNone(t *testing.T) {
	for _, phase := range []string{"offer", "content", "stage"} {
		t.Run(phase, func(t *testing.T) {
			stores := []*store{newStore(t), newStore(t), newStore(t)}
			failAt(stores[1], phase, errFull)
			receipts, err := newClient(t, broadcaster(t, stores...).addr).Push(patient(t), bytesSource("f", random(100000)), client.Options{})
			assertCode(t, protocol.CodeNoSpace, err)
			assert.ErrorContains(t, err, "r2: the disk is full")
			require.Len(t, receipts, 3)
			for i, r := range receipts {
				assert.Equal(t, protocol.LeafFailed, r.Status)
				if r.Leaf == "r2" {
					assert.Equal(t, protocol.CodeNoSpace, r.Code)
					assert.Equal(t, "the disk is full", r.Text)
				} else {
					assert.Equal(t, protocol.CodePolicy, r.Code, "not published for another's sake")
					assert.Equal(t, "not published: r2: the disk is full", r.Text)
				}
				assert.Empty(t, r.Location)
				stores[i].assertNothing(t)
			}
		})
	}
}

func TestPartial(t *testing.T) {
	content := random(100000)
	for _, phase := range []string{"offer", "content", "stage", "publish"} {
		for _, need := range []string{"any", "2"} {
			t.Run(phase+" "+need, func(t *testing.T) {
				stores := []*store{newStore(t), newStore(t), newStore(t)}
				failAt(stores[1], phase, errFull)
				receipts, err := newClient(t, broadcaster(t, stores...).addr).Push(patient(t), bytesSource("f", content), client.Options{Require: policy(t, need)})
				var partial *client.PartialError
				require.ErrorAs(t, err, &partial)
				assert.Equal(t, client.PartialError{Failed: 1, Total: 3}, *partial)
				assert.EqualError(t, err, "1 of 3 readers failed")
				assert.Equal(t, map[string]protocol.LeafState{
					"r1": protocol.LeafPublished, "r2": protocol.LeafFailed, "r3": protocol.LeafPublished,
				}, states(receipts))
				assert.Equal(t, protocol.CodeNoSpace, receipts[1].Code)
				stores[1].assertNothing(t)
				stores[0].assertFile(t, "f", content)
				stores[2].assertFile(t, "f", content)
			})
		}
	}
}

// Too few are left for the policy: those that could have it do not get it.
func TestNotEnough(t *testing.T) {
	for _, phase := range []string{"offer", "content", "stage"} {
		t.Run(phase, func(t *testing.T) {
			stores := []*store{newStore(t), newStore(t), newStore(t)}
			failAt(stores[0], phase, errFull)
			failAt(stores[1], phase, errFull)
			n := broadcaster(t, stores...)
			receipts, err := newClient(t, n.addr).Push(patient(t), bytesSource("f", random(100000)), client.Options{Require: policy(t, "2")})
			assertCode(t, protocol.CodeNoSpace, err)
			assert.ErrorContains(t, err, "1 of 3 readers could, --require is 2")
			require.Len(t, receipts, 3)
			for i, code := range []protocol.Code{protocol.CodeNoSpace, protocol.CodeNoSpace, protocol.CodePolicy} {
				assert.Equal(t, protocol.LeafFailed, receipts[i].Status)
				assert.Equal(t, code, receipts[i].Code)
				stores[i].assertNothing(t)
			}
			require.NotErrorIs(t, receive(t, n.ended, "the end at the broadcaster"), protocol.ErrForget, "the same push may follow")
		})
	}
}

func TestMoreReadersRequiredThanThereAre(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	_, err := newClient(t, broadcaster(t, stores...).addr).Push(patient(t), bytesSource("f", nil), client.Options{Require: policy(t, "3")})
	assertCode(t, protocol.CodePolicy, err)
	assert.ErrorContains(t, err, "only 2 readers")
	for _, s := range stores {
		s.assertNothing(t)
	}
}

// Under all a failure to publish comes too late to keep the others from it.
func TestFailureToPublishUnderAll(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	failAt(stores[1], "publish", errFull)
	receipts, err := newClient(t, broadcaster(t, stores...).addr).Push(patient(t), bytesSource("f", nil), client.Options{})
	assertCode(t, protocol.CodeNoSpace, err)
	assert.ErrorContains(t, err, "r2: the disk is full")
	assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafFailed}, states(receipts))
}

func TestDirectPushThatFails(t *testing.T) {
	for _, phase := range []string{"offer", "content", "stage", "publish"} {
		s := newStore(t)
		failAt(s, phase, errFull)
		addr := reader(t, s).addr
		receipts, err := newClient(t, addr).Push(patient(t), bytesSource("f", random(1000)), client.Options{})
		assertCode(t, protocol.CodeNoSpace, err)
		assert.ErrorContains(t, err, "the disk is full")
		if phase == "publish" || len(receipts) > 0 { // a Reject can come in place of the Accept, which says who it is
			require.Len(t, receipts, 1)
			assert.Equal(t, addr, receipts[0].Leaf)
			assert.Equal(t, protocol.LeafFailed, receipts[0].Status)
			assert.Equal(t, protocol.CodeNoSpace, receipts[0].Code)
			assert.Equal(t, "the disk is full", receipts[0].Text)
		}
		s.assertNothing(t)
	}
}

func TestDryRun(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	n := broadcaster(t, stores...)
	c := newClient(t, n.addr)
	receipts, err := c.Push(patient(t), &source{"f", 7, unread{t}}, client.Options{DryRun: true})
	require.NoError(t, err)
	assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafReady, "r2": protocol.LeafReady}, states(receipts))
	for _, s := range stores {
		assert.Empty(t, s.files(t))
	}
	require.ErrorIs(t, receive(t, n.ended, "the end at the broadcaster"), protocol.ErrForget)
}

func TestDryRunThatIsRefused(t *testing.T) {
	for need, ready := range map[string]protocol.LeafState{"all": protocol.LeafFailed, "any": protocol.LeafReady} {
		stores := []*store{newStore(t), newStore(t)}
		require.NoError(t, os.WriteFile(filepath.Join(stores[1].path, "f"), []byte("something else"), 0o666))
		c := newClient(t, broadcaster(t, stores...).addr)
		receipts, err := c.Push(patient(t), &source{"f", 7, unread{t}}, client.Options{DryRun: true, Require: policy(t, need)})
		if need == "all" {
			assertCode(t, protocol.CodeExists, err)
		} else {
			var partial *client.PartialError
			require.ErrorAs(t, err, &partial)
		}
		assert.Equal(t, map[string]protocol.LeafState{"r1": ready, "r2": protocol.LeafFailed}, states(receipts))
		assert.Equal(t, protocol.CodeExists, receipts[1].Code)
		stores[0].assertNothing(t)
		assert.Equal(t, []string{"f"}, stores[1].files(t))
	}
}

// unread is content that nobody must ask for.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	assert.Fail(u.t, "the source is read")
	return 0, errors.New("not to be read")
}

// silent is a protocol.Sink that does not answer offers.
type silent struct{ begun chan struct{} }

func newSilent() silent { return silent{make(chan struct{}, 100)} }

func (s silent) Begin(ctx context.Context, _ *protocol.Offer, _ protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	s.begun <- struct{}{}
	<-ctx.Done()
	return nil, nil, context.Cause(ctx)
}

func TestNoAnswerToTheOffer(t *testing.T) {
	opts := client.Options{Timeout: 2 * time.Second}
	for _, c := range []struct {
		name  string
		addr  string
		text  []string
		leafs int
	}{
		{"a silent daemon", serve(t, newSilent(), daemon.Options{}).addr, []string{"no answer to the offer for 2s"}, 0},
		{"a reader that is down", broadcast(t, reader(t, newStore(t)).addr, down).addr, []string{"no answer to the offer for 2s; waiting for r2 (", "connection refused"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			receipts, err := newClient(t, c.addr).Push(patient(t), bytesSource("f", nil), opts)
			assertCode(t, protocol.CodeStalled, err)
			for _, text := range c.text {
				assert.ErrorContains(t, err, text)
			}
			assert.NotContains(t, err.Error(), "r1")
			assert.Len(t, receipts, c.leafs)
			for _, r := range receipts {
				assert.Equal(t, protocol.LeafFailed, r.Status)
			}
		})
	}
}

func TestNoProgress(t *testing.T) {
	s, g := newStore(t), newGate(t)
	s.onWrite = g.hook
	receipts, err := newClient(t, broadcaster(t, s).addr).Push(patient(t), bytesSource("f", random(1000)), client.Options{Timeout: time.Second})
	assertCode(t, protocol.CodeStalled, err)
	assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafFailed}, states(receipts))
	s.assertNothing(t)
}
