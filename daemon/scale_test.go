// Many readers, and many pushes at once.

package daemon_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// pushAtOnce offers files to addr over as many sessions, sends content when all
// offers were accepted, and commits when all are ready. So all of them are
// under way at the same time, whatever the scheduler does.
func pushAtOnce(t *testing.T, addr string, files int, content []byte) {
	t.Helper()
	senders := make([]*protocol.Sender, files)
	for i := range senders {
		d := protocol.NewDialer(addr, protocol.SessionConfig{})
		stream, err := d.Open(patient(t))
		require.NoError(t, err)
		s := protocol.NewSender(stream, protocol.SenderConfig{})
		t.Cleanup(func() {
			s.Close()
			d.Close()
			s.Wait()
		})
		senders[i] = s
	}
	each := func(step func(i int, s *protocol.Sender) error) {
		t.Helper()
		errs := make([]error, files)
		var wg sync.WaitGroup
		for i, s := range senders {
			wg.Go(func() { errs[i] = step(i, s) })
		}
		wg.Wait()
		for i, err := range errs {
			require.NoError(t, err, "push %d", i)
		}
	}
	ctx := patient(t)
	each(func(i int, s *protocol.Sender) error {
		_, err := s.Offer(ctx, newOffer(fmt.Sprintf("f%d", i), len(content), protocol.All))
		return err
	})
	each(func(_ int, s *protocol.Sender) error {
		c := protocol.NewChunk(len(content))
		copy(c.Buffer(), content)
		if err := s.Send(ctx, protocol.NewEncoder(protocol.CompressNone).Seal(c, 0, len(content))); err != nil {
			return err
		}
		_, err := s.Finish(ctx, &protocol.Finish{Size: int64(len(content)), Digest: digest(content)})
		return err
	})
	each(func(_ int, s *protocol.Sender) error {
		_, err := s.Commit(ctx)
		return err
	})
}

// A reader allows 128 streams on a session, and takes more pushes than that at
// once from a broadcaster all the same.
func TestMorePushesAtOnceThanASessionHasStreams(t *testing.T) {
	const pushes = 300
	s := newStore(t)
	b, readers := broadcaster(t, never, s)
	content := random(piece / 4)
	pushAtOnce(t, b.addr, pushes, content)
	for i := range pushes {
		assertPublished(t, s, fmt.Sprintf("f%d", i), content)
	}
	sessions := readers[0].count()
	assert.Greater(t, sessions, pushes/protocol.DefaultMaxStreams, "they fit on so few")
	assert.LessOrEqual(t, sessions, 2*pushes/protocol.DefaultMaxStreams+1, "half full they are good for all")
}

func TestTwoHundredReaders(t *testing.T) {
	const readers = 200
	stores := make([]*store, readers)
	hops := make([]*daemon.Hop, readers)
	for i := range stores {
		stores[i] = newStore(t)
		hops[i] = hop(fmt.Sprintf("r%d", i), reader(t, stores[i]).addr)
	}
	b := serve(t, fanout(t, never, hops...), daemon.Options{})
	content := random(5*piece + 7)
	receipts, err := push(t, b.addr, newOffer("f", len(content), protocol.All), content)
	require.NoError(t, err)
	assert.Len(t, byLeaf(t, receipts), readers)
	for i, r := range receipts {
		assert.Equal(t, protocol.LeafPublished, r.Status, "reader %d", i)
		assertPublished(t, stores[i], "f", content)
	}
}

// occupied is an Opener without a free stream for some time.
type occupied struct {
	protocol.Opener
	left atomic.Int32 // so many calls
}

func (o *occupied) Open(ctx context.Context) (protocol.Stream, error) {
	if o.left.Add(-1) >= 0 {
		return nil, protocol.Errorf(protocol.CodeBusy, "all streams are in use")
	}
	return o.Opener.Open(ctx)
}

// Whatever the policy, a hop that is busy is there and is tried again.
func TestBusyHopIsTriedAgain(t *testing.T) {
	for _, needs := range []string{"all", "any", "1"} {
		s := newStore(t)
		o := &occupied{Opener: protocol.NewDialer(reader(t, s).addr, protocol.SessionConfig{})}
		o.left.Store(2)
		b := serve(t, fanout(t, never, daemon.NewHop("r", o)), daemon.Options{})
		content := random(piece)
		_, err := push(t, b.addr, newOffer("f", len(content), policy(t, needs)), content)
		require.NoError(t, err, needs)
		assertPublished(t, s, "f", content)
	}
}
