// The fan-out: the same bytes to all, at the pace of the slowest.

package daemon_test

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// tap is a protocol.Sink that keeps the frames of the chunks that pass.
type tap struct {
	protocol.Sink
	mu     sync.Mutex
	frames [][]byte
	codecs []protocol.Codec
}

type tapped struct {
	protocol.Transfer
	tap *tap
}

func (s *tap) Begin(ctx context.Context, o *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	t, a, err := s.Sink.Begin(ctx, o, up)
	return &tapped{t, s}, a, err
}

func (t *tapped) Write(c *protocol.Chunk) error {
	t.tap.mu.Lock()
	t.tap.frames = append(t.tap.frames, bytes.Clone(c.Frame()))
	t.tap.codecs = append(t.tap.codecs, c.Codec)
	t.tap.mu.Unlock()
	return t.Transfer.Write(c)
}

func (s *tap) seen() ([][]byte, []protocol.Codec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.frames, s.codecs
}

func TestFanoutGivesAllTheSameBytes(t *testing.T) {
	for _, size := range []int{0, 1, piece - 1, piece, piece + 1, 1<<20 + 7} {
		stores := []*store{newStore(t), newStore(t), newStore(t)}
		b, readers := broadcaster(t, never, stores...)
		content := random(size)
		for _, known := range []bool{true, false} {
			o := newOffer("f", size, protocol.All)
			if !known {
				o.ID, o.Name, o.Size = "other", "g", -1
			}
			receipts, err := push(t, b.addr, o, content)
			require.NoError(t, err)
			require.Len(t, receipts, 3)
			for i, name := range []string{"r1", "r2", "r3"} {
				r := receipts[i]
				r.Seconds = 0
				assert.Equal(t, protocol.Receipt{
					Leaf: name, Status: protocol.LeafPublished, Bytes: int64(size),
					Digest: digest(content), Location: "memory:" + string(o.Name),
				}, r)
				assertPublished(t, stores[i], string(o.Name), content)
				assert.NoError(t, awaitEnd(t, readers[i]).err)
			}
			assert.Len(t, awaitEnd(t, b).receipts, 3)
		}
	}
}

func digest(content []byte) protocol.Digest {
	h := protocol.NewHasher(protocol.DigestXXH128)
	_, _ = h.Write(content)
	return h.Digest()
}

// A broadcaster does not decode: what was compressed once arrives compressed,
// frame by frame as it was sent.
func TestFanoutPassesChunksOnAsTheyAre(t *testing.T) {
	s := newStore(t)
	entry, exit := &tap{}, &tap{Sink: leafOver(t, s)}
	r := serve(t, exit, daemon.Options{})
	entry.Sink = fanout(t, never, hop("r", r.addr))
	b := serve(t, entry, daemon.Options{})

	text := bytes.Repeat([]byte("all work and no play "), 2000)
	noise := random(len(text))
	p := begin(t, b.addr, newOffer("f", 3*len(text), protocol.All))
	for _, c := range [][]byte{text, noise, text} {
		require.NoError(t, p.sendChunk(c, protocol.CompressLZ4))
	}
	p.complete()
	sent, _ := entry.seen()
	arrived, codecs := exit.seen()
	assert.Equal(t, []protocol.Codec{protocol.CodecLZ4, protocol.CodecRaw, protocol.CodecLZ4}, codecs)
	assert.Equal(t, sent, arrived)
	assertPublished(t, s, "f", bytes.Join([][]byte{text, noise, text}, nil))
}

func TestFanoutAcceptsWithTheSmallestOfAll(t *testing.T) {
	for _, c := range []struct{ own, one, two, want int64 }{
		{8 << 20, 4 << 20, 1 << 20, 1 << 20},
		{256 << 10, 4 << 20, 1 << 20, 256 << 10},
		{64 << 20, 64 << 20, 64 << 20, 64 << 20},
		{64 << 10, 64 << 10, 64 << 10, 64 << 10},
	} {
		var hops []*daemon.Hop
		for i, window := range []int64{c.one, c.two} {
			r := serve(t, leafOver(t, newStore(t)), daemon.Options{Window: window})
			hops = append(hops, hop([]string{"r1", "r2"}[i], r.addr))
		}
		b := serve(t, fanout(t, never, hops...), daemon.Options{Window: c.own})
		p := begin(t, b.addr, newOffer("f", 0, protocol.All))
		assert.Equal(t, &protocol.Accept{
			Window: c.want, MaxChunk: int(min(c.want/4, protocol.MaxChunk)),
			Leaves: []protocol.Leaf{
				{Name: "r1", State: protocol.LeafReceiving},
				{Name: "r2", State: protocol.LeafReceiving},
			},
		}, p.accept)
	}
}

// One hop that wants a CRC is enough to ask for it.
func TestFanoutAsksForACRC(t *testing.T) {
	for _, want := range []bool{false, true} {
		one := serve(t, leafOver(t, newStore(t)), daemon.Options{})
		two := serve(t, asks{leafOver(t, newStore(t)), want}, daemon.Options{})
		b := serve(t, fanout(t, never, hop("r1", one.addr), hop("r2", two.addr)), daemon.Options{})
		assert.Equal(t, want, begin(t, b.addr, newOffer("f", 0, protocol.All)).accept.CRC)
	}
}

// asks is a sink that wants a CRC, or not.
type asks struct {
	protocol.Sink
	crc bool
}

func (s asks) Begin(ctx context.Context, o *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	tr, accept, err := s.Sink.Begin(ctx, o, up)
	if accept != nil {
		accept.CRC = s.crc
	}
	return tr, accept, err
}

func TestFanoutAcksWhatAllHave(t *testing.T) {
	fast, slow := newStore(t), newStore(t)
	slow.writing = make(chan struct{})
	opts := daemon.Options{Window: smallWindow} // so that each chunk is worth an ack
	r1, r2 := serve(t, leafOver(t, fast), opts), serve(t, leafOver(t, slow), opts)
	b := serve(t, fanout(t, never, hop("r1", r1.addr), hop("r2", r2.addr)), opts)
	content := random(smallWindow)
	p := begin(t, b.addr, newOffer("f", len(content), protocol.All))
	require.NoError(t, p.send(content))
	// Acks overtake progress: when the fast reader is known to have it all,
	// an ack that counted only that reader would have come before.
	p.awaitProgress("r1 has it all", func(l protocol.Leaf) bool {
		return l.Name == "r1" && l.Offset == int64(len(content))
	})
	assert.Zero(t, p.acked.Load())

	slow.writing <- struct{}{}
	eventually(t, "the ack of one chunk", func() bool { return p.acked.Load() > 0 })
	assert.Equal(t, int64(piece), p.acked.Load())

	close(slow.writing)
	p.complete()
	assert.Equal(t, int64(len(content)), p.acked.Load())
	assertPublished(t, fast, "f", content)
	assertPublished(t, slow, "f", content)
}

// No reader is ever more than the window ahead of another, which is what
// bounds the memory of the broadcaster.
func TestFanoutIsPacedByTheSlowest(t *testing.T) {
	fast, slow := newStore(t), newStore(t)
	slow.writing = make(chan struct{})
	var lead atomic.Int64
	fast.onWrite = func() { lead.Store(max(lead.Load(), fast.took()-slow.took())) }
	r1, r2 := reader(t, fast), reader(t, slow)
	b := serve(t, fanout(t, never, hop("r1", r1.addr), hop("r2", r2.addr)), daemon.Options{Window: smallWindow})
	content := random(32 * piece)
	p := begin(t, b.addr, newOffer("f", len(content), policy(t, "any")))
	require.Equal(t, int64(smallWindow), p.accept.Window)
	sent := make(chan error, 1)
	go func() { sent <- p.send(content) }()

	eventually(t, "the fast reader to use the whole window", func() bool { return fast.took() == smallWindow })
	for range 16 {
		slow.writing <- struct{}{}
	}
	assert.LessOrEqual(t, fast.took(), int64(16*piece+smallWindow))
	close(slow.writing)
	require.NoError(t, receive(t, sent, "the content to be sent"))
	receipts := p.complete()
	assert.Len(t, receipts, 2)
	assert.LessOrEqual(t, lead.Load(), int64(smallWindow))
	assertPublished(t, fast, "f", content)
	assertPublished(t, slow, "f", content)
}

func TestFanoutNeedsHopsOfDifferentNames(t *testing.T) {
	_, err := daemon.NewFanout(nil, daemon.FanoutOptions{})
	require.ErrorContains(t, err, "at least one reader")
	_, err = daemon.NewFanout([]*daemon.Hop{hop("a", "h:1"), hop("b", "h:2"), hop("a", "h:3")}, daemon.FanoutOptions{})
	require.ErrorContains(t, err, `"a"`)
}

func TestParseHop(t *testing.T) {
	for in, want := range map[string][2]string{
		"host":           {"host:7001", "host:7001"},
		"host:99":        {"host:99", "host:99"},
		"eu=host":        {"eu", "host:7001"},
		"eu=host:99":     {"eu", "host:99"},
		"eu=[::1]:99":    {"eu", "[::1]:99"},
		"::1":            {"[::1]:7001", "[::1]:7001"},
		":99":            {"localhost:99", "localhost:99"},
		"=host":          {},
		"a/b=host":       {},
		"eu=":            {},
		"":               {},
		"host:port:more": {},
		"host:0":         {},
		"host:70000":     {},
	} {
		name, addr, err := daemon.ParseHop(in, "7001")
		if want[0] == "" {
			require.Error(t, err, "%q", in)
			continue
		}
		require.NoError(t, err, "%q", in)
		assert.Equal(t, want, [2]string{name, addr}, "%q", in)
	}
}
