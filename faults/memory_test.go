// Daemons in memory: no sockets, no smux, no disk, so that a test can run them
// in fake time.

package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// node is a daemon: what daemon.Server is on sessions, on pipes. It is a
// protocol.Opener of streams to itself.
type node struct {
	name   string
	sink   func(protocol.Stream) protocol.Sink
	window int64
	work   sync.WaitGroup

	mu      sync.Mutex
	down    bool
	wrap    func(protocol.Stream) protocol.Stream // the caller's end of a new stream; nil: as it is
	ctx     context.Context
	cancel  context.CancelCauseFunc
	streams map[protocol.Stream]bool
	running map[string]*attempt
	ended   []error // how the transfers did
	dials   int
}

type attempt struct {
	offer  *protocol.Offer
	cancel context.CancelCauseFunc
	done   chan struct{}
}

func newNode(name string, window int64, sink func(protocol.Stream) protocol.Sink) *node {
	n := &node{name: name, sink: sink, window: window, streams: map[protocol.Stream]bool{}, running: map[string]*attempt{}}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	return n
}

func (n *node) Addr() string { return n.name }

func (n *node) Close() error { return nil }

func (n *node) Open(context.Context) (protocol.Stream, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials++
	if n.down {
		return nil, protocol.Errorf(protocol.CodeUnreachable, "connection refused")
	}
	near, far := protocol.Pipe()
	n.streams[far] = true
	ctx := n.ctx
	n.work.Go(func() { n.serve(ctx, far) })
	if n.wrap != nil {
		near = n.wrap(near)
	}
	return near, nil
}

// serve does what daemon.Server does with a stream.
func (n *node) serve(ctx context.Context, stream protocol.Stream) {
	defer stream.Close()
	frames := protocol.NewFrameReader(stream)
	hurry := time.AfterFunc(protocol.HelloTimeout, func() { stream.Close() })
	f, err := frames.Next()
	if !hurry.Stop() || err != nil {
		return
	}
	m, err := protocol.ParseMessage(f.Kind, f.Payload)
	if err != nil {
		protocol.WriteReject(stream, err)
		return
	}
	offer := m.(*protocol.Offer)
	r := protocol.NewReceiver(stream, frames, offer, n.sink(stream), n.window)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &attempt{offer: offer, cancel: cancel, done: make(chan struct{})}
	defer close(a.done)
	n.mu.Lock()
	old := n.running[offer.ID]
	if old != nil && !offer.Supersedes(old.offer) {
		n.mu.Unlock()
		protocol.WriteReject(stream, protocol.Errorf(protocol.CodeSuperseded, "attempt %d came after attempt %d", offer.Attempt, old.offer.Attempt))
		return
	}
	n.running[offer.ID] = a
	n.mu.Unlock()
	if old != nil {
		old.cancel(protocol.Errorf(protocol.CodeSuperseded, "attempt %d took over", offer.Attempt))
		<-old.done
	}
	_, err = r.Run(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = append(n.ended, err)
	delete(n.streams, stream)
	if n.running[offer.ID] == a {
		delete(n.running, offer.ID)
	}
}

// cut closes all streams, as a lost connection does.
func (n *node) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.streams {
		s.Close()
	}
	clear(n.streams)
}

// stop makes the node go away; it comes back with start.
func (n *node) stop() {
	n.mu.Lock()
	n.down = true
	n.cancel(errors.New("killed"))
	n.mu.Unlock()
	n.cut()
}

func (n *node) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = false
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
}

// shut ends the node for good.
func (n *node) shut() {
	n.stop()
	n.work.Wait()
}

// kind is what becomes of a transfer at a reader.
type kind int

const (
	good        kind = iota
	noDial           // cannot be reached
	refuses          // the offer
	noSpace          // for half of the content
	noStage          // fails to stage
	lostStaging      // goes away without an answer while it stages
	noPublish        // fails to publish
	lostCommit       // goes away, unpublished, when it is to publish
	lostReceipt      // goes away once, after it has published
	kinds
)

func (k kind) String() string {
	return [...]string{
		"good", "noDial", "refuses", "noSpace", "noStage", "lostStaging", "noPublish", "lostCommit", "lostReceipt",
	}[k]
}

// store is a reader's sink in memory. What happens to it happens on every
// attempt, but lostReceipt.
type store struct {
	kind  kind
	pace  int    // bytes a second that it takes; 0: all there are
	stuck int64  // takes nothing from this offset on; 0: it does
	mute  bool   // never answers an offer
	loses func() // called before each attempt but the first

	mu        sync.Mutex
	attempts  int
	parts     map[string][]byte // by transfer id
	published map[string][]byte // by name
	sources   map[string]string // of what is published: fingerprints, by name
	at        time.Time         // of the latest publishing
	lost      bool
}

func newStore(k kind) *store {
	return &store{kind: k, parts: map[string][]byte{}, published: map[string][]byte{}, sources: map[string]string{}}
}

func (s *store) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.parts)
}

func (s *store) content(name string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.published[name]
	return b, ok
}

// on is the sink for one stream.
func (s *store) on(stream protocol.Stream) protocol.Sink { return storeSink{s, stream} }

type storeSink struct {
	*store
	stream protocol.Stream
}

func (s storeSink) Begin(ctx context.Context, offer *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	s.mu.Lock()
	s.attempts++
	again := s.attempts > 1
	s.mu.Unlock()
	if again && s.loses != nil {
		s.loses()
	}
	switch {
	case s.mute:
		<-ctx.Done()
		return nil, nil, context.Cause(ctx)
	case s.kind == refuses:
		return nil, nil, protocol.Errorf(protocol.CodeExists, "%q exists and is different", offer.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &storing{storeSink: s, offer: offer, up: up, queue: make(chan *protocol.Chunk, 1<<14), idle: make(chan struct{})}
	leaf := protocol.Leaf{State: protocol.LeafReceiving}
	if f, ok := s.sources[string(offer.Name)]; ok && f == source(offer) {
		t.unchanged, t.content = true, s.published[string(offer.Name)]
		leaf.State = protocol.LeafUnchanged
	} else {
		t.content = s.parts[offer.ID]
	}
	leaf.Offset = int64(len(t.content))
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go t.work()
	return t, &protocol.Accept{Offset: leaf.Offset, Leaves: []protocol.Leaf{leaf}}, nil
}

// source is equal for offers of equal content.
func source(o *protocol.Offer) string {
	if o.Fingerprint != "" {
		return o.Fingerprint
	}
	return o.ID
}

// storing is a transfer into a store.
type storing struct {
	storeSink
	offer     *protocol.Offer
	up        protocol.Upstream
	unchanged bool
	ctx       context.Context
	cancel    context.CancelFunc
	queue     chan *protocol.Chunk
	idle      chan struct{}

	content []byte // of the goroutine until idle
	err     error

	ends  sync.Mutex
	ended bool
}

func (t *storing) Write(c *protocol.Chunk) error {
	t.ends.Lock()
	defer t.ends.Unlock()
	if !t.ended {
		t.queue <- c.Retain()
	}
	return nil
}

func (t *storing) end() {
	t.ends.Lock()
	defer t.ends.Unlock()
	if !t.ended {
		t.ended = true
		close(t.queue)
	}
}

func (t *storing) work() {
	defer close(t.idle)
	for c := range t.queue {
		if t.err == nil && t.ctx.Err() == nil {
			if t.err = t.take(c); t.err != nil {
				t.up.Fail(t.err)
			}
		}
		c.Release()
	}
}

func (t *storing) take(c *protocol.Chunk) error {
	b, _, err := c.Decode(nil)
	if err != nil {
		return err
	}
	if t.stuck > 0 && c.End() > t.stuck {
		<-t.ctx.Done()
		return nil
	}
	if t.kind == noSpace && c.End() > t.offer.Size/2 {
		return protocol.Errorf(protocol.CodeNoSpace, "no space left")
	}
	if t.pace > 0 {
		select {
		case <-time.After(time.Duration(c.RawLen) * time.Second / time.Duration(t.pace)):
		case <-t.ctx.Done():
			return nil
		}
	}
	t.content = append(t.content, b[int64(len(t.content))-c.Offset:]...)
	offset := int64(len(t.content))
	t.up.Ack(offset)
	t.up.Progress(protocol.Leaf{State: protocol.LeafReceiving, Offset: offset})
	return nil
}

func (t *storing) Finish(ctx context.Context, f *protocol.Finish) ([]protocol.Leaf, error) {
	t.end()
	select {
	case <-t.idle:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	leaf := protocol.Leaf{State: protocol.LeafReady, Offset: int64(len(t.content))}
	switch {
	case t.err != nil:
		return nil, t.err
	case t.unchanged:
		leaf.State = protocol.LeafUnchanged
	case t.kind == noStage:
		return nil, protocol.Errorf(protocol.CodeIO, "input/output error")
	case t.kind == lostStaging:
		t.stream.Close()
		return nil, errors.New("lost")
	}
	h := protocol.NewHasher(f.Digest.Algorithm())
	_, _ = h.Write(t.content)
	if !t.unchanged && h.Digest() != f.Digest {
		return nil, protocol.Errorf(protocol.CodeDigest, "digest %s, want %s", h.Digest(), f.Digest)
	}
	return []protocol.Leaf{leaf}, nil
}

func (t *storing) Commit(context.Context) []protocol.Receipt {
	t.cancel()
	r := protocol.Receipt{Status: protocol.LeafPublished, Bytes: int64(len(t.content))}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.unchanged:
		r.Status = protocol.LeafUnchanged
	case t.kind == noPublish:
		r.Status, r.Code, r.Text = protocol.LeafFailed, protocol.CodeIO, "rename: input/output error"
	case t.kind == lostCommit:
		t.parts[t.offer.ID] = t.content
		t.stream.Close()
	default:
		t.published[string(t.offer.Name)], t.sources[string(t.offer.Name)], t.at = t.content, source(t.offer), time.Now()
		if t.kind == lostReceipt && !t.lost {
			t.lost = true
			t.stream.Close()
		}
	}
	return []protocol.Receipt{r}
}

func (t *storing) Abort(cause error) {
	t.cancel()
	t.end()
	<-t.idle
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(cause, protocol.ErrForget) || t.unchanged {
		delete(t.parts, t.offer.ID)
		return
	}
	t.parts[t.offer.ID] = t.content
}

// memory is a source that is at hand.
type memory struct {
	name string
	data []byte
}

func (m memory) Name() string { return m.name }

func (m memory) Stat() (client.Stat, error) {
	return client.Stat{Size: int64(len(m.data)), Mode: 0o644}, nil
}

func (m memory) Fingerprint() (string, error) {
	h := protocol.NewHasher(protocol.DigestXXH128)
	_, _ = h.Write(m.data)
	return string(h.Digest()), nil
}

func (m memory) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m.data)), nil
}

// random is n bytes that depend on s alone.
func random(s uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(s), byte(s>>8), byte(s>>16), byte(s>>24)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// cluster is a broadcaster and its readers, r1 and so on.
type cluster struct {
	stores      []*store
	readers     []*node
	fanout      *daemon.Fanout
	broadcaster *node
}

func newCluster(t *testing.T, window int64, opts daemon.FanoutOptions, stores ...*store) *cluster {
	c := &cluster{stores: stores}
	var hops []*daemon.Hop
	for i, s := range stores {
		r := newNode(fmt.Sprintf("r%d", i+1), window, s.on)
		r.down = s.kind == noDial
		c.readers = append(c.readers, r)
		hops = append(hops, daemon.NewHop(r.name, r))
	}
	var err error
	c.fanout, err = daemon.NewFanout(hops, opts)
	require.NoError(t, err)
	c.broadcaster = newNode("broadcaster", window, func(protocol.Stream) protocol.Sink { return c.fanout })
	return c
}

func (c *cluster) push(ctx context.Context, src client.Source, opts client.Options) ([]client.Receipt, error) {
	return client.NewOver("broadcaster", c.broadcaster).Push(ctx, src, opts)
}

func (c *cluster) shut() {
	c.broadcaster.shut()
	c.fanout.Close()
	for _, r := range c.readers {
		r.shut()
	}
}

func policy(t *testing.T, s string) protocol.Policy {
	p, err := protocol.ParsePolicy(s)
	require.NoError(t, err)
	return p
}
