// Broadcasters below broadcasters.

package daemon_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// tree serves a broadcaster over r1 and eu, which is one over eu/r1 and eu/r2.
func tree(t *testing.T, r1, euR1, euR2 *store) (root, eu *node) {
	t.Helper()
	eu, _ = broadcaster(t, never, euR1, euR2)
	return serve(t, fanout(t, never, hop("r1", reader(t, r1).addr), hop("eu", eu.addr)), daemon.Options{}), eu
}

func names(leaves []protocol.Leaf) []string {
	var all []string
	for _, l := range leaves {
		all = append(all, l.Name)
	}
	return all
}

func TestTreeNamesLeavesByTheirPaths(t *testing.T) {
	stores := []*store{newStore(t), newStore(t), newStore(t)}
	root, _ := tree(t, stores[0], stores[1], stores[2])
	content := random(3 * piece)
	p := begin(t, root.addr, newOffer("f", len(content), protocol.All))
	paths := []string{"r1", "eu/r1", "eu/r2"}
	assert.Equal(t, paths, names(p.accept.Leaves))
	require.NoError(t, p.send(content))
	seen := map[string]bool{}
	p.awaitProgress("of all leaves", func(l protocol.Leaf) bool {
		if l.State == protocol.LeafReceiving {
			seen[l.Name] = true
		}
		return seen[paths[0]] && seen[paths[1]] && seen[paths[2]]
	})
	ready, err := p.finish()
	require.NoError(t, err)
	assert.Equal(t, paths, names(ready.Leaves))
	receipts, err := p.commit()
	require.NoError(t, err)
	require.Len(t, receipts, 3)
	for i, r := range receipts {
		assert.Equal(t, paths[i], r.Leaf)
		assert.Equal(t, protocol.LeafPublished, r.Status)
		assertPublished(t, stores[i], "f", content)
	}
}

func TestTreeAllOrNone(t *testing.T) {
	content := random(3 * piece)
	for _, phase := range phases[:3] {
		t.Run(phase.name, func(t *testing.T) {
			stores := []*store{newStore(t), newStore(t), failing(t, phase.name)}
			root, _ := tree(t, stores[0], stores[1], stores[2])
			_, err := push(t, root.addr, newOffer("f", len(content), protocol.All), content)
			assertCode(t, phase.err.Code, err)
			e := protocol.AsError(err)
			assert.Equal(t, "eu/r2", e.Leaf)
			failed := map[string]protocol.Code{}
			for _, l := range e.Leaves {
				if l.State == protocol.LeafFailed {
					failed[l.Name] = l.Code
				}
			}
			assert.Equal(t, phase.err.Code, failed["eu/r2"])
			assert.NotContains(t, failed, "r1")
			if code, ok := failed["eu/r1"]; ok {
				assert.Equal(t, protocol.CodePolicy, code, "a healthy reader has failed for another's sake only")
			}
			assertNothingPublished(t, stores...)
		})
	}
}

func TestTreeOthersPublish(t *testing.T) {
	content := random(3 * piece)
	for _, phase := range phases {
		t.Run(phase.name, func(t *testing.T) {
			stores := []*store{newStore(t), newStore(t), failing(t, phase.name)}
			root, _ := tree(t, stores[0], stores[1], stores[2])
			receipts, err := push(t, root.addr, newOffer("f", len(content), policy(t, "2")), content)
			require.NoError(t, err)
			assert.Equal(t, map[string]protocol.LeafState{
				"r1": protocol.LeafPublished, "eu/r1": protocol.LeafPublished, "eu/r2": protocol.LeafFailed,
			}, statuses(t, receipts))
			assert.Equal(t, phase.err.Code, byLeaf(t, receipts)["eu/r2"].Code)
			assertPublished(t, stores[0], "f", content)
			assertPublished(t, stores[1], "f", content)
			assertNothingPublished(t, stores[2])
		})
	}
}

// A broadcaster below that has lost all of its readers is a lost hop, and each
// of them still gets its receipt.
func TestTreeLosesABranch(t *testing.T) {
	content := random(3 * piece)
	for _, phase := range phases[:3] {
		t.Run(phase.name, func(t *testing.T) {
			stores := []*store{newStore(t), failing(t, phase.name), failing(t, phase.name)}
			root, _ := tree(t, stores[0], stores[1], stores[2])
			receipts, err := push(t, root.addr, newOffer("f", len(content), policy(t, "any")), content)
			require.NoError(t, err)
			assert.Equal(t, map[string]protocol.LeafState{
				"r1": protocol.LeafPublished, "eu/r1": protocol.LeafFailed, "eu/r2": protocol.LeafFailed,
			}, statuses(t, receipts))
			for _, name := range []string{"eu/r1", "eu/r2"} {
				r := byLeaf(t, receipts)[name]
				assert.Equal(t, phase.err.Code, r.Code)
				assert.Equal(t, phase.err.Text, r.Text)
			}
			assertPublished(t, stores[0], "f", content)
			assertNothingPublished(t, stores[1:]...)
		})
	}
}

// A branch that is cut off comes back whole: to the root a broadcaster is a
// hop like any other.
func TestTreeBranchIsCutOff(t *testing.T) {
	stores := []*store{newStore(t), newStore(t), newStore(t)}
	stores[2].writing = make(chan struct{})
	root, eu := tree(t, stores[0], stores[1], stores[2])
	content := random(3 * piece)
	p := begin(t, root.addr, newOffer("f", len(content), policy(t, "any")))
	require.NoError(t, p.send(content))
	stores[2].await(t, "write")
	eu.cut()
	close(stores[2].writing)
	eventually(t, "the hop is dialled again", func() bool { return eu.count() == 2 })
	receipts := p.complete()
	assert.Equal(t, map[string]protocol.LeafState{
		"r1": protocol.LeafPublished, "eu/r1": protocol.LeafPublished, "eu/r2": protocol.LeafPublished,
	}, statuses(t, receipts))
	for _, s := range stores {
		assertPublished(t, s, "f", content)
	}
}

// Broadcasters that feed each other must be found out, not fill the network.
func TestLoopOfBroadcasters(t *testing.T) {
	for _, need := range []string{"all", "any"} {
		t.Run(need, func(t *testing.T) {
			one, two := listen(t), listen(t)
			serveOn(t, one, fanout(t, never, hop("two", two.Addr().String())), daemon.Options{})
			serveOn(t, two, fanout(t, never, hop("one", one.Addr().String())), daemon.Options{})
			_, err := push(t, one.Addr().String(), newOffer("f", 0, policy(t, need)), nil)
			assertCode(t, protocol.CodeLoop, err)
		})
	}
}

func TestBroadcasterThatFeedsItself(t *testing.T) {
	w := listen(t)
	serveOn(t, w, fanout(t, never, hop("me", w.Addr().String())), daemon.Options{})
	_, err := push(t, w.Addr().String(), newOffer("f", 0, protocol.All), nil)
	assertCode(t, protocol.CodeLoop, err)
}

func TestOfferPassesAsManyDaemonsAsItMay(t *testing.T) {
	s := newStore(t)
	addr := reader(t, s).addr
	for range 2 {
		addr = serve(t, fanout(t, never, hop("b", addr)), daemon.Options{}).addr
	}
	o := newOffer("f", 1, protocol.All)
	o.Hops = 2 // two broadcasters, and no reader
	_, err := push(t, addr, o, []byte("x"))
	assertCode(t, protocol.CodeLoop, err)
	assertNothingPublished(t, s)
	o.Hops, o.ID = 3, "another"
	receipts, err := push(t, addr, o, []byte("x"))
	require.NoError(t, err)
	assert.Equal(t, "b/b", receipts[0].Leaf)
	assertPublished(t, s, "f", []byte("x"))
}

// ask queries a daemon and returns the answers by their nodes.
func ask(t *testing.T, addr string, hops int) (first *protocol.Status, all map[string]*protocol.Status) {
	t.Helper()
	d := protocol.NewDialer(addr, protocol.SessionConfig{})
	defer d.Close()
	stream, err := d.Open(patient(t))
	require.NoError(t, err)
	defer stream.Close()
	answers, err := protocol.AskStatus(patient(t), stream, hops)
	require.NoError(t, err)
	require.NotEmpty(t, answers)
	all = map[string]*protocol.Status{}
	for _, st := range answers {
		assert.NotContains(t, all, st.Node)
		all[st.Node] = st
	}
	return answers[0], all
}

func TestQueryOverATreeWithADeadHop(t *testing.T) {
	s := newStore(t)
	s.writing = make(chan struct{})
	r := serve(t, leafOver(t, s), daemon.Options{Agent: "reader/1", About: "memory:"})
	eu := serve(t, fanout(t, never, hop("r1", r.addr), hop("dead", down)), daemon.Options{Agent: "eu/1"})
	root := serve(t, fanout(t, never, hop("gone", down), hop("eu", eu.addr)), daemon.Options{Agent: "root/1", About: "fanout"})
	p := begin(t, root.addr, newOffer("f", piece, policy(t, "any")))
	require.NoError(t, p.send(random(piece)))
	s.await(t, "write")

	first, all := ask(t, root.addr, 0)
	assert.Len(t, all, 5)
	assert.Same(t, all[""], first, "the daemon asked comes first")
	assert.Equal(t, "root/1", first.Agent)
	assert.Equal(t, "fanout", first.Sink)
	assert.Equal(t, "eu/1", all["eu"].Agent)
	assert.Equal(t, "reader/1", all["eu/r1"].Agent)
	assert.Equal(t, "memory:", all["eu/r1"].Sink)
	for _, node := range []string{"gone", "eu/dead"} {
		require.Contains(t, all, node)
		assert.Contains(t, all[node].Error, "connection refused")
	}
	for _, node := range []string{"", "eu", "eu/r1"} {
		require.Len(t, all[node].Transfers, 1, node)
		transfer := all[node].Transfers[0]
		assert.Equal(t, "id-of-f", transfer.ID)
		assert.Equal(t, "f", transfer.Name)
		assert.Equal(t, int64(piece), transfer.Size)
		assert.Equal(t, string(protocol.PhaseReceiving), transfer.Phase)
		assert.Empty(t, all[node].Error)
		assert.Positive(t, all[node].Sessions)
	}

	_, all = ask(t, root.addr, 1)
	assert.Len(t, all, 1, "no deeper than asked")
	_, all = ask(t, root.addr, 2)
	assert.Len(t, all, 3)

	close(s.writing)
	p.complete()
	p.Close()
	awaitEnd(t, root)
	eventually(t, "the transfer to leave the status", func() bool { return len(root.Status().Transfers) == 0 })
}

// The answers of a loop end with the hop budget.
func TestQueryOfALoop(t *testing.T) {
	w := listen(t)
	serveOn(t, w, fanout(t, never, hop("me", w.Addr().String())), daemon.Options{})
	_, all := ask(t, w.Addr().String(), 4)
	assert.Len(t, all, 4)
	assert.Contains(t, all, "me/me/me")
}

func TestFanoutStatusEndsWithItsContext(t *testing.T) {
	silent := listen(t) // connections are taken by the system, and nobody answers
	defer silent.Close()
	f := fanout(t, never, hop("silent", silent.Addr().String()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	answered := make(chan []*protocol.Status, 1)
	go func() { answered <- f.Status(ctx, 1) }()
	all := receive(t, answered, "an answer")
	require.Len(t, all, 1)
	assert.Equal(t, "silent", all[0].Node)
	assert.NotEmpty(t, all[0].Error)
}
