// Hops that are down, that come up, and that are lost.

package daemon_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// down is an address that nobody listens on. A port that was just free could
// be taken by somebody else.
const down = "127.0.0.1:1"

func TestAllWaitForAHopUntilItStalls(t *testing.T) {
	s := newStore(t)
	up := reader(t, s)
	refusing := listen(t)
	refusing.refuse = -1
	r2 := serveOn(t, refusing, leafOver(t, newStore(t)), daemon.Options{})
	b := serve(t, fanout(t, short, hop("r1", up.addr), hop("r2", r2.addr)), daemon.Options{})
	p := newPusher(t, b.addr)
	err := p.offer(newOffer("f", 0, protocol.All))
	assertCode(t, protocol.CodeUnreachable, err)
	assert.Equal(t, "r2", protocol.AsError(err).Leaf)
	assert.Greater(t, refusing.count(), 1, "it was tried again")
	p.awaitProgress("why it takes so long", func(l protocol.Leaf) bool {
		return l.Name == "r2" && l.State == protocol.LeafWaiting && l.Code == protocol.CodeUnreachable && l.Text != ""
	})
	assertCode(t, protocol.CodeTruncated, awaitEnd(t, up).err)
	assertNothingPublished(t, s)
}

func TestAllGoOnWhenTheHopComesUp(t *testing.T) {
	one, two := newStore(t), newStore(t)
	late := listen(t)
	late.refuse = 3
	r1, r2 := reader(t, one), serveOn(t, late, leafOver(t, two), daemon.Options{})
	b := serve(t, fanout(t, never, hop("r1", r1.addr), hop("r2", r2.addr)), daemon.Options{})
	content := random(2 * piece)
	receipts, err := push(t, b.addr, newOffer("f", len(content), protocol.All), content)
	require.NoError(t, err)
	assert.Len(t, receipts, 2)
	assert.Equal(t, 4, late.count())
	assertPublished(t, one, "f", content)
	assertPublished(t, two, "f", content)
}

// One reader that refuses ends the wait for another that is down: the push
// cannot succeed any more.
func TestAllDoNotWaitAfterARefusal(t *testing.T) {
	b := serve(t, fanout(t, never, hop("r1", down), hop("r2", reader(t, failing(t, "offer")).addr)), daemon.Options{})
	_, err := push(t, b.addr, newOffer("f", 0, protocol.All), nil)
	require.ErrorContains(t, err, "r2: not in this directory")
	require.ErrorContains(t, err, "r1: ")
}

// Unless all are needed, nobody waits for a hop that is down.
func TestAnyGoesOnWithoutAHop(t *testing.T) {
	s := newStore(t)
	b := serve(t, fanout(t, never, hop("r1", reader(t, s).addr), hop("r2", down)), daemon.Options{})
	content := random(2 * piece)
	p := begin(t, b.addr, newOffer("f", len(content), policy(t, "any")))
	require.Len(t, p.accept.Leaves, 2)
	assert.Equal(t, protocol.LeafReceiving, p.accept.Leaves[0].State)
	assert.Equal(t, protocol.LeafFailed, p.accept.Leaves[1].State)
	require.NoError(t, p.send(content))
	receipts := p.complete()
	assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafFailed}, statuses(t, receipts))
	assert.Equal(t, protocol.CodeUnreachable, receipts[1].Code)
	assert.Contains(t, receipts[1].Text, "connection refused")
	assertPublished(t, s, "f", content)
}

func TestHopLostMidWay(t *testing.T) {
	content := random(8 * piece)
	for _, need := range []string{"all", "any"} {
		t.Run(need, func(t *testing.T) {
			good, lost := newStore(t), newStore(t)
			lost.writing = make(chan struct{})
			b, readers := broadcaster(t, never, good, lost)
			p := begin(t, b.addr, newOffer("f", len(content), policy(t, need)))
			require.NoError(t, p.send(content[:4*piece]))
			lost.await(t, "write")
			readers[1].cut()
			err := awaitEnd(t, readers[1]).err
			require.Error(t, err)
			require.NotErrorIs(t, err, protocol.ErrForget, "what helps to resume may be kept")
			if need == "all" {
				err = receive(t, p.ended, "the end of the push")
				assertCode(t, protocol.CodeUnreachable, err)
				assert.Equal(t, "r2", protocol.AsError(err).Leaf)
				assertCode(t, protocol.CodeTruncated, awaitEnd(t, readers[0]).err)
				assertNothingPublished(t, good, lost)
				return
			}
			require.NoError(t, p.send(content[4*piece:]))
			receipts := p.complete()
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafFailed}, statuses(t, receipts))
			assert.Equal(t, protocol.CodeUnreachable, receipts[1].Code)
			assertPublished(t, good, "f", content)
			assertNothingPublished(t, lost)
		})
	}
}

func TestHopLostBetweenReadyAndCommit(t *testing.T) {
	content := random(piece)
	for _, need := range []string{"all", "any"} {
		t.Run(need, func(t *testing.T) {
			good, lost := newStore(t), newStore(t)
			b, readers := broadcaster(t, never, good, lost)
			p := begin(t, b.addr, newOffer("f", len(content), policy(t, need)))
			require.NoError(t, p.send(content))
			_, err := p.finish()
			require.NoError(t, err)
			readers[1].cut()
			if need == "all" {
				assertCode(t, protocol.CodeUnreachable, receive(t, p.ended, "the end of the push"))
				_, err := p.commit()
				require.Error(t, err)
				assertCode(t, protocol.CodeTruncated, awaitEnd(t, readers[0]).err)
				assertNothingPublished(t, good, lost)
				return
			}
			p.awaitProgress("the loss", func(l protocol.Leaf) bool { return l.Name == "r2" && l.State == protocol.LeafFailed })
			receipts, err := p.commit()
			require.NoError(t, err)
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafFailed}, statuses(t, receipts))
			assertPublished(t, good, "f", content)
			assertNothingPublished(t, lost)
		})
	}
}

// After the commit a lost reader has the file, or will have it. The receipt
// must not say otherwise, and say what to do.
func TestHopLostAfterCommit(t *testing.T) {
	content := random(piece)
	for _, need := range []string{"all", "any", "all", "any", "all", "any", "all", "any"} { // the loss is seen in two places: either may be first
		t.Run(need, func(t *testing.T) {
			good, lost := newStore(t), newStore(t)
			lost.publishing = make(chan struct{})
			b, readers := broadcaster(t, never, good, lost)
			p := begin(t, b.addr, newOffer("f", len(content), policy(t, need)))
			require.NoError(t, p.send(content))
			_, err := p.finish()
			require.NoError(t, err)
			committed := make(chan []protocol.Receipt, 1)
			go func() {
				receipts, err := p.commit()
				assert.NoError(t, err)
				committed <- receipts
			}()
			lost.await(t, "publish")
			readers[1].cut()
			receipts := receive(t, committed, "the receipts")
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafFailed}, statuses(t, receipts))
			assert.Equal(t, protocol.CodeUnreachable, receipts[1].Code)
			assert.Contains(t, receipts[1].Text, "push again to find out")
			assertPublished(t, good, "f", content)

			close(lost.publishing)
			assert.NoError(t, awaitEnd(t, readers[1]).err)
			assertPublished(t, lost, "f", content)
		})
	}
}

func TestHopKeepsItsSession(t *testing.T) {
	s := newStore(t)
	b, readers := broadcaster(t, never, s)
	for _, name := range []string{"a", "b", "c", "d"} {
		_, err := push(t, b.addr, newOffer(name, 1, protocol.All), []byte(name))
		require.NoError(t, err)
		assertPublished(t, s, name, []byte(name))
	}
	assert.Equal(t, 1, readers[0].count())
	readers[0].cut()
	_, err := push(t, b.addr, newOffer("e", 1, protocol.All), []byte("e"))
	require.NoError(t, err, "a session that was lost is made anew")
	assert.Equal(t, 2, readers[0].count())
}
