// The sender that the tests push with, step by step.

package daemon_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

// piece is the content in each chunk of a pusher. Four are a small window.
const (
	piece       = 64 << 10
	smallWindow = 4 * piece
)

// pusher is a transfer, seen from its sender.
type pusher struct {
	*protocol.Sender
	t        *testing.T
	dialer   *protocol.Dialer
	acked    atomic.Int64
	progress chan protocol.Leaf
	ended    chan error
	accept   *protocol.Accept
	sent     int64
	hasher   *protocol.Hasher
}

func newPusher(t *testing.T, addr string) *pusher {
	t.Helper()
	d := protocol.NewDialer(addr, protocol.SessionConfig{Agent: "test"})
	stream, err := d.Open(patient(t))
	require.NoError(t, err)
	p := &pusher{
		t: t, dialer: d, progress: make(chan protocol.Leaf, 1<<16), ended: make(chan error, 1),
		hasher: protocol.NewHasher(protocol.DigestXXH128),
	}
	p.Sender = protocol.NewSender(stream, protocol.SenderConfig{
		OnAck: func(offset int64) { p.acked.Store(offset) },
		OnProgress: func(leaves []protocol.Leaf) {
			for _, l := range leaves {
				p.progress <- l
			}
		},
		OnEnd: func(err error) { p.ended <- err },
	})
	t.Cleanup(func() {
		p.Close()
		d.Close()
		p.Wait()
	})
	return p
}

func newOffer(name string, size int, p protocol.Policy) *protocol.Offer {
	return &protocol.Offer{
		ID: "id-of-" + name, Attempt: 1, Name: protocol.Name(name), Size: int64(size),
		Digest: protocol.DigestXXH128, Codec: protocol.CodecLZ4, Policy: p,
	}
}

// begin offers, and is accepted.
func begin(t *testing.T, addr string, o *protocol.Offer) *pusher {
	t.Helper()
	p := newPusher(t, addr)
	require.NoError(t, p.offer(o))
	return p
}

func (p *pusher) offer(o *protocol.Offer) (err error) {
	p.accept, err = p.Offer(patient(p.t), o)
	return err
}

// send sends content in pieces.
func (p *pusher) send(content []byte) error {
	for len(content) > 0 {
		n := min(len(content), piece, p.accept.MaxChunk)
		if err := p.sendChunk(content[:n], protocol.CompressNone); err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

func (p *pusher) sendChunk(content []byte, mode protocol.Compression) error {
	_, _ = p.hasher.Write(content)
	c := protocol.NewChunk(len(content))
	copy(c.Buffer(), content)
	c = protocol.NewEncoder(mode).Seal(c, p.sent, len(content))
	p.sent += int64(len(content))
	return p.Send(patient(p.t), c)
}

func (p *pusher) finish() (*protocol.Ready, error) {
	return p.Finish(patient(p.t), &protocol.Finish{Size: p.sent, Digest: p.hasher.Digest()})
}

func (p *pusher) commit() ([]protocol.Receipt, error) { return p.Commit(patient(p.t)) }

// complete finishes and commits. Nobody fails.
func (p *pusher) complete() []protocol.Receipt {
	p.t.Helper()
	_, err := p.finish()
	require.NoError(p.t, err)
	receipts, err := p.commit()
	require.NoError(p.t, err)
	return receipts
}

// awaitProgress waits until a leaf is told of that is.
func (p *pusher) awaitProgress(what string, is func(protocol.Leaf) bool) {
	p.t.Helper()
	for !is(receive(p.t, p.progress, "progress: "+what)) {
	}
}

// push does a whole transfer. It returns the first error.
func push(t *testing.T, addr string, o *protocol.Offer, content []byte) ([]protocol.Receipt, error) {
	t.Helper()
	p := newPusher(t, addr)
	defer p.Close()
	if err := p.offer(o); err != nil {
		return nil, err
	}
	if err := p.send(content); err != nil {
		return nil, err
	}
	if _, err := p.finish(); err != nil {
		return nil, err
	}
	return p.commit()
}

// byLeaf finds the receipts of leaves, of which there must be one each.
func byLeaf(t *testing.T, receipts []protocol.Receipt) map[string]protocol.Receipt {
	t.Helper()
	all := map[string]protocol.Receipt{}
	for _, r := range receipts {
		assert.NotContains(t, all, r.Leaf)
		all[r.Leaf] = r
	}
	return all
}

// statuses is what the receipts say of each leaf.
func statuses(t *testing.T, receipts []protocol.Receipt) map[string]protocol.LeafState {
	t.Helper()
	all := map[string]protocol.LeafState{}
	for name, r := range byLeaf(t, receipts) {
		all[name] = r.Status
	}
	return all
}

func assertPublished(t *testing.T, s *store, name string, content []byte) {
	t.Helper()
	got, ok := s.file(name)
	if assert.True(t, ok, "%s is published", name) {
		assert.True(t, got == string(content), "%s has the content that was sent", name)
	}
}

func assertNothingPublished(t *testing.T, stores ...*store) {
	t.Helper()
	for i, s := range stores {
		s.mu.Lock()
		assert.Empty(t, s.files, "reader %d", i+1)
		s.mu.Unlock()
	}
}

// awaitEnd waits until a daemon is done with a transfer.
func awaitEnd(t *testing.T, n *node) ending {
	t.Helper()
	return receive(t, n.ended, "the transfer to end at a daemon")
}

// short is a stall timeout for tests that wait for it: long enough for the
// busiest machine to answer in.
const short = 1500 * time.Millisecond
