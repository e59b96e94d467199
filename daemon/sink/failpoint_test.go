// A failure at every step of publishing. These tests set Failpoint, so they do
// not run beside others.

package sink

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

// faultUp is an Upstream that notes what it is told.
type faultUp struct {
	mu     sync.Mutex
	acked  int64
	failed error
	texts  []string
}

func (u *faultUp) Window() int64       { return protocol.DefaultWindow }
func (u *faultUp) Room() protocol.Room { return protocol.Room{} }

func (u *faultUp) Ack(offset int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.acked = max(u.acked, offset)
}

func (u *faultUp) Progress(leaves ...protocol.Leaf) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range leaves {
		u.texts = append(u.texts, l.Text)
	}
}

func (u *faultUp) Fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed == nil {
		u.failed = err
	}
}

// faultSend hands content from the transfer's offset to end over in chunks.
func faultSend(t testing.TB, tr protocol.Transfer, content []byte, from, end int64, size int) {
	t.Helper()
	for at := from; at < end; {
		n := min(int64(size), end-at)
		c := protocol.NewChunk(int(n))
		copy(c.Buffer(), content[at:at+n])
		c.Seal(at, int(n), protocol.CodecRaw, int(n))
		require.NoError(t, tr.Write(c))
		c.Release()
		at += n
	}
}

// faultReceive does a push through a Leaf as a Receiver does, to its receipt.
func faultReceive(t testing.TB, l *Leaf, p *powerPush) (a *protocol.Accept, r protocol.Receipt, err error) {
	t.Helper()
	offer := p.offer
	tr, a, err := l.Begin(strictContext, &offer, &faultUp{})
	if err != nil {
		return nil, r, err
	}
	faultSend(t, tr, p.content, a.Offset, int64(len(p.content)), 256<<10)
	if _, err = tr.Finish(strictContext, &protocol.Finish{Size: int64(len(p.content)), Digest: powerDigest(p.content)}); err != nil {
		tr.Abort(err)
		return a, r, err
	}
	receipts := tr.Commit(strictContext)
	require.Len(t, receipts, 1)
	if r = receipts[0]; r.Status == protocol.LeafFailed {
		err = &protocol.Error{Code: r.Code, Text: r.Text}
	}
	return a, r, err
}

// faultSteps sets Failpoint for one test.
func faultSteps(t *testing.T, f func(step string) error) {
	before := Failpoint
	Failpoint = f
	t.Cleanup(func() { Failpoint = before })
}

// faultHits is how often an ordinary publish passes each step.
func faultHits(t *testing.T, p *powerPush, old []byte) map[string]int {
	hits := map[string]int{}
	faultSteps(t, func(step string) error {
		hits[step]++
		return nil
	})
	l, disk := faultLeaf(t, newStrictFS(), p, old)
	_, _, err := faultReceive(t, l, p)
	require.NoError(t, err)
	require.True(t, disk.holds(p.name, p.content))
	return hits
}

func faultLeaf(t *testing.T, disk *strictFS, p *powerPush, old []byte) (*Leaf, *strictFS) {
	disk.limit = 10_000
	if old != nil {
		disk.put(t, p.name, old, true)
	}
	d, err := newDir("/fault", disk, strictSame, DirOptions{})
	require.NoError(t, err)
	l := NewLeaf(d)
	t.Cleanup(l.Close)
	return l, disk
}

func TestFailpoints(t *testing.T) {
	for _, old := range [][]byte{nil, []byte("old")} {
		p := newPowerPush("a/file", powerContent(40, 1_200_000))
		p.offer.Force = old != nil
		hits := faultHits(t, p, old)
		require.Equal(t, []string{"journal", "published", "receipt", "rename", "renamed", "sync", "synced", "write"},
			slices.Sorted(maps.Keys(hits)), "the steps of a publish")
		require.Equal(t, 2, hits["journal"])
		require.Greater(t, hits["write"], 2)

		for step, n := range hits {
			for k := range n {
				for _, restart := range []bool{false, true} {
					name := fmt.Sprintf("%s_%d_force=%v_restart=%v", step, k, p.offer.Force, restart)
					t.Run(name, func(t *testing.T) { faultAtStep(t, p, old, step, k, restart) })
				}
			}
		}
	}
}

// faultAtStep fails the k-th time that a step is passed, and pushes again.
func faultAtStep(t *testing.T, p *powerPush, old []byte, step string, k int, restart bool) {
	seen, renames := 0, 0
	faultSteps(t, func(s string) error {
		if s != step {
			return nil
		}
		if seen++; seen-1 == k {
			return strictEIO
		}
		return nil
	})
	disk := newStrictFS()
	disk.fail = func(op strictOp) error {
		if op.Kind == "rename" && op.Name == p.name {
			renames++
		}
		return nil
	}
	l, _ := faultLeaf(t, disk, p, old)
	_, r, err := faultReceive(t, l, p)
	if step == "receipt" { // what is done is done
		require.NoError(t, err)
		require.Equal(t, protocol.LeafPublished, r.Status)
	} else {
		require.Error(t, err)
		require.True(t, protocol.HasCode(err, protocol.CodeIO), "%v", err)
	}
	after := step == "renamed" || step == "published" || step == "receipt"
	want := old
	if after {
		want = p.content
	}
	require.True(t, disk.holds(p.name, want), "the name holds %d bytes", len(disk.content(p.name)))
	require.Zero(t, disk.open, "files are open")

	if restart {
		l, _ = faultLeaf(t, disk, p, nil)
	}
	a, r, err := faultReceive(t, l, p)
	require.NoError(t, err)
	require.True(t, disk.holds(p.name, p.content))
	require.Equal(t, 1, renames, "published more than once")
	require.Zero(t, disk.open, "files are open")
	switch step {
	case "renamed", "published", "receipt":
		require.Equal(t, protocol.LeafUnchanged, r.Status)
	case "sync", "synced", "rename": // all of it was there
		require.Equal(t, int64(len(p.content)), a.Offset)
		require.Equal(t, protocol.LeafPublished, r.Status)
	default:
		require.Equal(t, protocol.LeafPublished, r.Status)
	}
	require.NoError(t, powerLeft(disk, p))
	require.True(t, disk.crash(strictNothing, strictNothing).holds(p.name, p.content), "it is not durable")
}
