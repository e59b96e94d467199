// What the tests of this package share: stores that do as they are told,
// daemons on loopback, and a sender that pushes to them.

package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait. It is generous: only a test that fails waits for so long.
const patience = 2 * time.Minute

// never is a stall timeout that no test waits for.
const never = time.Hour

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "waited in vain: "+what)
		panic("unreachable")
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 2*time.Millisecond, "waited in vain: "+what)
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func policy(t *testing.T, s string) protocol.Policy {
	t.Helper()
	p, err := protocol.ParsePolicy(s)
	require.NoError(t, err)
	return p
}

func assertCode(t *testing.T, want protocol.Code, err error) {
	t.Helper()
	require.Error(t, err)
	assert.Equal(t, want, protocol.AsError(err).Code, "code of: %v", err)
}

// random returns n bytes that do not compress, the same in every run.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// store is a sink.Store in memory. A gate that is not nil lets one call pass
// for each value sent to it, and all once it is closed.
type store struct {
	refuse, write, stage, publish error // what the steps of a file fail with
	failAt                        int64 // offset from which write counts

	writing, staging, publishing chan struct{}   // gates
	over                         <-chan struct{} // closed with the test, which opens the gates

	onWrite func()      // after each Write
	events  chan string // a step has begun: create, write, stage, publish, discard
	mu      sync.Mutex  // guards the rest
	taken   int64       // content bytes written, of all files
	files   map[string]string
}

func newStore(t *testing.T) *store {
	t.Helper()
	return &store{over: t.Context().Done(), events: make(chan string, 1<<16), files: map[string]string{}}
}

func (s *store) String() string { return "memory:" }

func (s *store) Create(ctx context.Context, o sink.Request) (sink.File, sink.Have, error) {
	s.events <- "create"
	if s.refuse != nil {
		return nil, sink.Have{}, s.refuse
	}
	return &storeFile{store: s, life: ctx, name: string(o.Name)}, sink.Have{}, nil
}

// await waits until a file begins step.
func (s *store) await(t *testing.T, step string) {
	t.Helper()
	for receive(t, s.events, "a file to "+step) != step {
	}
}

func (s *store) file(name string) (content string, published bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, published = s.files[name]
	return content, published
}

func (s *store) took() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

type storeFile struct {
	*store
	life    context.Context
	name    string
	content bytes.Buffer
}

// pass waits at a gate.
func (s *store) pass(ctx context.Context, gate chan struct{}) error {
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-s.over:
		return errOver
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *storeFile) Write(p []byte) (int, error) {
	f.events <- "write"
	if err := f.pass(f.life, f.writing); err != nil {
		return 0, err
	}
	if f.write != nil && int64(f.content.Len()+len(p)) > f.failAt {
		return 0, f.write
	}
	f.content.Write(p)
	f.mu.Lock()
	f.taken += int64(len(p))
	f.mu.Unlock()
	if f.onWrite != nil {
		f.onWrite()
	}
	return len(p), nil
}

func (f *storeFile) Stage(ctx context.Context, _ protocol.Digest) error {
	f.events <- "stage"
	return errors.Join(f.pass(ctx, f.staging), f.stage)
}

func (f *storeFile) Publish(ctx context.Context) (sink.Published, error) {
	f.events <- "publish"
	if err := errors.Join(f.pass(ctx, f.publishing), f.publish); err != nil {
		return sink.Published{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[f.name] = f.content.String()
	return sink.Published{Location: "memory:" + f.name}, nil
}

func (f *storeFile) Discard(bool) { f.events <- "discard" }

var errOver = errors.New("the test is over")

// wire is a listener whose connections can be counted, refused and cut.
type wire struct {
	net.Listener
	mu       sync.Mutex
	accepted int
	refuse   int // connections to close as they come; -1: all
	conns    []net.Conn
}

func (w *wire) Accept() (net.Conn, error) {
	for {
		conn, err := w.Listener.Accept()
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		w.accepted++
		refused := w.refuse != 0
		if refused {
			w.refuse = max(w.refuse-1, -1)
			conn.Close()
		}
		w.conns = append(w.conns, conn)
		w.mu.Unlock()
		if !refused {
			return conn, nil
		}
	}
}

func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accepted
}

// refuseAll lets no further connection in.
func (w *wire) refuseAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = -1
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		conn.Close()
	}
}

// node is a daemon that runs until the end of the test.
type node struct {
	*daemon.Server
	*wire
	addr  string
	ended chan ending // how its transfers ended
}

type ending struct {
	receipts []protocol.Receipt
	err      error
}

func listen(t *testing.T) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return &wire{Listener: ln}
}

func serve(t *testing.T, s protocol.Sink, opts daemon.Options) *node {
	t.Helper()
	return serveOn(t, listen(t), s, opts)
}

func serveOn(t *testing.T, w *wire, s protocol.Sink, opts daemon.Options) *node {
	t.Helper()
	n := &node{wire: w, addr: w.Addr().String(), ended: make(chan ending, 1000)}
	opts.OnTransfer = func(receipts []protocol.Receipt, err error) { n.ended <- ending{receipts, err} }
	n.Server = daemon.NewServer(s, opts)
	served := make(chan error, 1)
	go func() { served <- n.Serve(w) }()
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		stopped := make(chan struct{})
		go func() { defer close(stopped); _ = n.Shutdown(now) }()
		receive(t, stopped, "Shutdown to return")
		assert.NoError(t, receive(t, served, "Serve to return"))
	})
	return n
}

func reader(t *testing.T, s sink.Store) *node {
	t.Helper()
	return serve(t, leafOver(t, s), daemon.Options{})
}

// fanout makes the sink of a broadcaster with a hop to each address.
func fanout(t *testing.T, stall time.Duration, hops ...*daemon.Hop) *daemon.Fanout {
	t.Helper()
	f, err := daemon.NewFanout(hops, daemon.FanoutOptions{Stall: stall, Lag: never})
	require.NoError(t, err)
	t.Cleanup(f.Close)
	return f
}

func hop(name, addr string) *daemon.Hop {
	return daemon.NewHop(name, protocol.NewDialer(addr, protocol.SessionConfig{}))
}

// broadcaster serves a fan-out to stores, which are called r1, r2, ...; their
// readers are returned too.
func broadcaster(t *testing.T, stall time.Duration, stores ...*store) (b *node, readers []*node) {
	t.Helper()
	var hops []*daemon.Hop
	for i, s := range stores {
		r := reader(t, s)
		readers = append(readers, r)
		hops = append(hops, hop("r"+string(rune('1'+i)), r.addr))
	}
	return serve(t, fanout(t, stall, hops...), daemon.Options{}), readers
}

// leafOver is the sink of a reader with store. What it has suspended ends with the test.
func leafOver(t *testing.T, store sink.Store) *sink.Leaf {
	t.Helper()
	l := sink.NewLeaf(store)
	t.Cleanup(l.Close)
	return l
}
