// Hops that are down, that come up, and that are lost.

package daemon_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
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

// A reader that is down when its broadcaster starts has a session soon after it
// comes up, before anybody pushes, and another when it has dropped that one.
func TestSessionsAreKeptReady(t *testing.T) {
	late := listen(t)
	late.refuse = 2
	s := newStore(t)
	r := serveOn(t, late, leafOver(t, s), daemon.Options{Idle: 200 * time.Millisecond})
	f := fanout(t, never, hop("r1", r.addr))
	b := serve(t, f, daemon.Options{})
	f.Connect()
	connected := func(n int) func() bool {
		return func() bool { return late.count() >= n && r.Status().Sessions == 1 }
	}
	eventually(t, "a session", connected(3))
	content := random(piece)
	_, err := push(t, b.addr, newOffer("f", len(content), protocol.All), content)
	require.NoError(t, err)
	assertPublished(t, s, "f", content)
	eventually(t, "another session", connected(late.count()+1))
}

func TestPushUsesTheSessionAtHand(t *testing.T) {
	s := newStore(t)
	r := reader(t, s)
	f := fanout(t, never, hop("r1", r.addr))
	b := serve(t, f, daemon.Options{})
	f.Connect()
	eventually(t, "a session", func() bool { return r.Status().Sessions == 1 })
	_, err := push(t, b.addr, newOffer("f", 0, protocol.All), nil)
	require.NoError(t, err)
	assert.Equal(t, 1, r.count())
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

// A lost connection is nobody's failure: the hop is dialled again and goes on.
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
			close(lost.writing)
			eventually(t, "the hop is dialled again", func() bool { return readers[1].count() == 2 })
			require.NoError(t, p.send(content[4*piece:]))
			receipts := p.complete()
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafPublished}, statuses(t, receipts))
			assertPublished(t, good, "f", content)
			assertPublished(t, lost, "f", content)
			assert.Equal(t, 2, readers[1].count())
			assert.Equal(t, 1, readers[0].count())
			assert.Equal(t, int64(len(content)), lost.took(), "what it had is not stored again")
		})
	}
}

// A hop may be lost again and again, also while it catches up.
func TestHopLostManyTimes(t *testing.T) {
	content := random(64 * piece)
	good, lost := newStore(t), newStore(t)
	b, readers := broadcaster(t, never, good, lost)
	p := begin(t, b.addr, newOffer("f", len(content), protocol.All))
	for i := 0; i < 64; i += 4 {
		require.NoError(t, p.send(content[i*piece:(i+4)*piece]))
		if i%8 == 0 {
			readers[1].cut()
		}
	}
	receipts := p.complete()
	assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafPublished}, statuses(t, receipts))
	assertPublished(t, good, "f", content)
	assertPublished(t, lost, "f", content)
	assert.Equal(t, int64(len(content)), lost.took())
}

// A reader that comes back without what it had is fed from what is retained.
// Where that is not enough it has to be fed by the source: under all by
// another attempt, otherwise after the others.
func TestHopComesBackWithNothing(t *testing.T) {
	content := random(32 * piece)
	for _, c := range []struct {
		need   string
		sent   int // pieces, before the loss
		enough bool
	}{{"all", 1, true}, {"any", 1, true}, {"all", 16, false}, {"any", 16, false}} {
		t.Run(fmt.Sprint(c.need, " after ", c.sent), func(t *testing.T) {
			good, lost := newStore(t), newStore(t)
			r1 := reader(t, good)
			w := listen(t)
			leaf := sink.NewLeaf(lost)
			t.Cleanup(leaf.Close)
			r2 := daemon.NewServer(leaf, daemon.Options{})
			go func() { _ = r2.Serve(w) }()
			b := serve(t, fanout(t, never, hop("r1", r1.addr), hop("r2", w.Addr().String())), daemon.Options{Window: smallWindow})
			p := begin(t, b.addr, newOffer("f", len(content), policy(t, c.need)))
			require.NoError(t, p.send(content[:c.sent*piece]))
			eventually(t, "all is taken", func() bool { return p.acked.Load() == int64(c.sent*piece) })

			now, cancel := context.WithCancel(t.Context())
			cancel()
			_ = r2.Shutdown(now)
			leaf.Close() // what was suspended is gone, and this store keeps nothing
			ln, err := net.Listen("tcp", w.Addr().String())
			require.NoError(t, err)
			serveOn(t, &wire{Listener: ln}, leafOver(t, lost), daemon.Options{})

			switch {
			case c.enough:
				require.NoError(t, p.send(content[c.sent*piece:smallWindow]))
				eventually(t, "it is fed", func() bool { return lost.took() == smallWindow+piece })
				require.NoError(t, p.send(content[smallWindow:]))
				receipts := p.complete()
				assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafPublished}, statuses(t, receipts))
				assertPublished(t, lost, "f", content)
			case c.need == "all":
				assertCode(t, protocol.CodeParked, receive(t, p.ended, "the end of the attempt"))
			default:
				require.NoError(t, p.send(content[c.sent*piece:]))
				receipts := p.complete()
				assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafFailed}, statuses(t, receipts))
				assert.Equal(t, protocol.CodeParked, byLeaf(t, receipts)["r2"].Code)
				assertPublished(t, good, "f", content)
			}
		})
	}
}

// A hop that stays away fails: under all when it has for the stall timeout,
// otherwise when the others are done.
func TestHopStaysAway(t *testing.T) {
	content := random(8 * piece)
	for _, need := range []string{"all", "any"} {
		t.Run(need, func(t *testing.T) {
			good, lost := newStore(t), newStore(t)
			stall := short
			if need == "any" {
				stall = never
			}
			b, readers := broadcaster(t, stall, good, lost)
			p := begin(t, b.addr, newOffer("f", len(content), policy(t, need)))
			require.NoError(t, p.send(content[:4*piece]))
			readers[1].refuseAll()
			readers[1].cut()
			require.NoError(t, p.send(content[4*piece:]))
			if need == "all" {
				err := receive(t, p.ended, "the end of the push")
				assertCode(t, protocol.CodeUnreachable, err)
				assert.Equal(t, "r2", protocol.AsError(err).Leaf)
				assertNothingPublished(t, good, lost)
				return
			}
			receipts := p.complete()
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafFailed}, statuses(t, receipts))
			assert.Equal(t, protocol.CodeParked, byLeaf(t, receipts)["r2"].Code)
			assertPublished(t, good, "f", content)
			assertNothingPublished(t, lost)
		})
	}
}

// Where others are enough, they do not wait for one that is away, however
// much there is to come.
func TestHopAwayDoesNotHoldOthersUp(t *testing.T) {
	content := random(32 * piece)
	good, lost := newStore(t), newStore(t)
	r1, r2 := reader(t, good), reader(t, lost)
	b := serve(t, fanout(t, never, hop("r1", r1.addr), hop("r2", r2.addr)), daemon.Options{Window: smallWindow})
	p := begin(t, b.addr, newOffer("f", len(content), policy(t, "any")))
	require.NoError(t, p.send(content[:2*piece]))
	r2.refuseAll()
	r2.cut()
	require.NoError(t, p.send(content[2*piece:]), "eight windows go by")
	receipts := p.complete()
	assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafFailed}, statuses(t, receipts))
	assertPublished(t, good, "f", content)
}

// With nobody there to take it, nothing is acknowledged.
func TestAllHopsAway(t *testing.T) {
	content := random(32 * piece)
	only := newStore(t)
	r := reader(t, only)
	b := serve(t, fanout(t, short, hop("r1", r.addr)), daemon.Options{Window: smallWindow})
	p := begin(t, b.addr, newOffer("f", len(content), policy(t, "any")))
	require.NoError(t, p.send(content[:2*piece]))
	eventually(t, "all is taken", func() bool { return p.acked.Load() == 2*piece })
	r.refuseAll()
	r.cut()
	require.Error(t, p.send(content[2*piece:]))
	assert.Equal(t, int64(2*piece), p.acked.Load())
	assertCode(t, protocol.CodeUnreachable, receive(t, p.ended, "the end of the push"))
}

// Between Ready and Commit too a hop is dialled again: it stages and is ready
// once more before it publishes.
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
			eventually(t, "the hop is dialled again", func() bool { return readers[1].count() == 2 })
			receipts, err := p.commit()
			require.NoError(t, err)
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "r2": protocol.LeafPublished}, statuses(t, receipts))
			assertPublished(t, good, "f", content)
			assertPublished(t, lost, "f", content)
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
