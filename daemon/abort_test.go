// Pushes that are taken back, lost, or overtaken.

package daemon_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

func TestAbortReachesTheLeaves(t *testing.T) {
	for _, when := range []string{"before content", "mid-way", "while staging", "when ready"} {
		t.Run(when, func(t *testing.T) {
			stores := []*store{newStore(t), newStore(t)}
			switch when {
			case "mid-way":
				stores[1].writing = make(chan struct{})
			case "while staging":
				stores[1].staging = make(chan struct{})
			}
			b, readers := broadcaster(t, never, stores...)
			p := begin(t, b.addr, newOffer("f", 2*piece, protocol.All))
			finished := make(chan error, 1)
			switch when {
			case "mid-way":
				require.NoError(t, p.send(random(piece)))
				stores[1].await(t, "write")
			case "while staging":
				require.NoError(t, p.send(random(2*piece)))
				go func() {
					_, err := p.finish()
					finished <- err
				}()
				stores[1].await(t, "stage")
			case "when ready":
				require.NoError(t, p.send(random(2*piece)))
				_, err := p.finish()
				require.NoError(t, err)
			}
			p.Abort("changed my mind")
			for _, n := range append(readers, b) {
				err := awaitEnd(t, n).err
				assertCode(t, protocol.CodeAborted, err)
				require.ErrorIs(t, err, protocol.ErrForget)
				assert.ErrorContains(t, err, "changed my mind")
			}
			for _, s := range stores {
				s.await(t, "discard")
			}
			assertNothingPublished(t, stores...)
			if when == "while staging" {
				require.Error(t, receive(t, finished, "Finish to return"))
			}
		})
	}
}

// The offer is not answered yet: one reader has accepted, another is down.
func TestAbortOfAnOffer(t *testing.T) {
	for _, deep := range []bool{false, true} {
		s := newStore(t)
		r := reader(t, s)
		nodes := []*node{r, serve(t, fanout(t, never, hop("r1", r.addr), hop("r2", down)), daemon.Options{})}
		waiting := "r2"
		if deep {
			nodes = append(nodes, serve(t, fanout(t, never, hop("eu", nodes[1].addr)), daemon.Options{}))
			waiting = "eu/r2"
		}
		p := newPusher(t, nodes[len(nodes)-1].addr)
		offered := make(chan error, 1)
		go func() { offered <- p.offer(newOffer("f", piece, protocol.All)) }()
		s.await(t, "create")
		p.awaitProgress("the wait for r2", func(l protocol.Leaf) bool { return l.Name == waiting && l.Code != "" })
		p.Abort("changed my mind")
		require.Error(t, receive(t, offered, "Offer to return"))
		for _, n := range nodes {
			assert.ErrorIs(t, awaitEnd(t, n).err, protocol.ErrForget)
		}
		s.await(t, "discard")
	}
}

// A client that is gone without a word may come back: nothing is forgotten.
func TestClientVanishes(t *testing.T) {
	for _, when := range []string{"before content", "mid-way", "when ready"} {
		t.Run(when, func(t *testing.T) {
			stores := []*store{newStore(t), newStore(t)}
			if when == "mid-way" {
				stores[1].writing = make(chan struct{})
			}
			b, readers := broadcaster(t, never, stores...)
			p := begin(t, b.addr, newOffer("f", 2*piece, protocol.All))
			switch when {
			case "mid-way":
				require.NoError(t, p.send(random(piece)))
				stores[1].await(t, "write")
			case "when ready":
				require.NoError(t, p.send(random(2*piece)))
				_, err := p.finish()
				require.NoError(t, err)
			}
			p.dialer.Close()
			for _, n := range append(readers, b) {
				err := awaitEnd(t, n).err
				assertCode(t, protocol.CodeTruncated, err)
				require.NotErrorIs(t, err, protocol.ErrForget)
			}
			assertNothingPublished(t, stores...)
		})
	}
}

// After the commit the client is not needed any more.
func TestClientVanishesAfterCommit(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	stores[1].publishing = make(chan struct{})
	b, readers := broadcaster(t, never, stores...)
	content := random(piece)
	p := begin(t, b.addr, newOffer("f", len(content), protocol.All))
	require.NoError(t, p.send(content))
	_, err := p.finish()
	require.NoError(t, err)
	committed := make(chan error, 1)
	go func() {
		_, err := p.commit()
		committed <- err
	}()
	stores[1].await(t, "publish")
	p.dialer.Close()
	require.Error(t, receive(t, committed, "Commit to return"))
	close(stores[1].publishing)
	for i, n := range append(readers, b) {
		end := awaitEnd(t, n)
		require.NoError(t, end.err)
		for _, r := range end.receipts {
			assert.Equal(t, protocol.LeafPublished, r.Status)
		}
		if i < 2 {
			assertPublished(t, stores[i], "f", content)
		}
	}
}

// chains are a reader, and a reader behind a broadcaster.
func chains(t *testing.T, test func(t *testing.T, s *store, n *node)) {
	t.Helper()
	t.Run("reader", func(t *testing.T) {
		s := newStore(t)
		s.writing = make(chan struct{})
		test(t, s, serve(t, leafOver(t, s), daemon.Options{}))
	})
	t.Run("broadcaster", func(t *testing.T) {
		s := newStore(t)
		s.writing = make(chan struct{})
		b, _ := broadcaster(t, never, s)
		test(t, s, b)
	})
}

// A connection that is half dead must not write beside its successor.
func TestLaterAttemptEndsTheEarlier(t *testing.T) {
	chains(t, func(t *testing.T, s *store, n *node) {
		content := random(2 * piece)
		first := begin(t, n.addr, newOffer("f", len(content), protocol.All))
		require.NoError(t, first.send(content))
		s.await(t, "write")
		again := newOffer("f", len(content), protocol.All)
		again.Attempt = 2
		second := begin(t, n.addr, again)
		s.await(t, "create")
		assertCode(t, protocol.CodeSuperseded, receive(t, first.ended, "the end of the first attempt"))
		close(s.writing)
		require.NoError(t, second.send(content))
		second.complete()
		assertPublished(t, s, "f", content)
	})
}

func TestEarlierAttemptIsRefused(t *testing.T) {
	chains(t, func(t *testing.T, s *store, n *node) {
		content := random(piece)
		o := newOffer("f", len(content), protocol.All)
		o.Attempt = 2
		p := begin(t, n.addr, o)
		require.NoError(t, p.send(content))
		s.await(t, "write")
		for _, attempt := range []int{0, 1, 2} {
			late := newOffer("f", len(content), protocol.All)
			late.Attempt = attempt
			_, err := push(t, n.addr, late, content)
			assertCode(t, protocol.CodeSuperseded, err)
		}
		close(s.writing)
		p.complete()
		assertPublished(t, s, "f", content)
	})
}

// Once a transfer is over its id is free: the same attempt may come again.
func TestAttemptAfterTheEnd(t *testing.T) {
	chains(t, func(t *testing.T, s *store, n *node) {
		close(s.writing)
		for range 3 {
			_, err := push(t, n.addr, newOffer("f", 4, protocol.All), []byte("data"))
			require.NoError(t, err)
			eventually(t, "the daemon to see the end", func() bool { return len(n.Status().Transfers) == 0 })
		}
		assertPublished(t, s, "f", []byte("data"))
	})
}
