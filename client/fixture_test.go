// What the tests of this package share: daemons on loopback, with stores that
// can be held up, and sources.

package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait. It is generous: only a test that fails waits for so long.
const patience = 2 * time.Minute

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

// store is a directory whose steps can be held up or made to fail: each hook,
// when there is one, comes before its step.
type store struct {
	*sink.Dir
	path                                  string
	onCreate, onWrite, onStage, onPublish func(ctx context.Context) error
}

func newStore(t *testing.T) *store {
	t.Helper()
	path := t.TempDir()
	dir, err := sink.OpenDir(path, sink.DirOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, dir.Close()) })
	return &store{Dir: dir, path: path}
}

func call(hook func(context.Context) error, ctx context.Context) error {
	if hook == nil {
		return nil
	}
	return hook(ctx)
}

func (s *store) Create(ctx context.Context, o sink.Request) (sink.File, sink.Have, error) {
	if err := call(s.onCreate, ctx); err != nil {
		return nil, sink.Have{}, err
	}
	f, have, err := s.Dir.Create(ctx, o)
	return &storeFile{File: f, store: s, life: ctx}, have, err
}

type storeFile struct {
	sink.File
	store *store
	life  context.Context
}

func (f *storeFile) Write(p []byte) (int, error) {
	if err := call(f.store.onWrite, f.life); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *storeFile) Stage(ctx context.Context, d protocol.Digest) error {
	if err := call(f.store.onStage, ctx); err != nil {
		return err
	}
	return f.File.Stage(ctx, d)
}

func (f *storeFile) Publish(ctx context.Context) (sink.Published, error) {
	if err := call(f.store.onPublish, ctx); err != nil {
		return sink.Published{}, err
	}
	return f.File.Publish(ctx)
}

// files lists what is in the store, parts and directories included.
func (s *store) files(t *testing.T) []string {
	t.Helper()
	all := []string{}
	require.NoError(t, filepath.WalkDir(s.path, func(path string, _ os.DirEntry, err error) error {
		if filepath.Base(path) == ".sbcast-state" { // the store's own
			return filepath.SkipDir
		}
		if path != s.path && filepath.Ext(path) != ".part" { // which waits to be resumed
			name, _ := filepath.Rel(s.path, path)
			all = append(all, filepath.ToSlash(name))
		}
		return err
	}))
	return all
}

// assertNothing waits until there is nothing in the store: what was lost on
// the way to a reader is discarded there in the reader's own time.
func (s *store) assertNothing(t *testing.T) {
	t.Helper()
	assert.Eventually(t, func() bool { return len(s.files(t)) == 0 }, patience, 2*time.Millisecond, "the store is empty")
}

func (s *store) assertFile(t *testing.T, name string, content []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(s.path, filepath.FromSlash(name)))
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got), "%s has the content that was pushed", name)
}

// gate is a hook that says that it was reached, and waits until it is opened
// or the test is over.
type gate struct {
	reached chan struct{}
	opened  chan struct{}
	over    <-chan struct{}
}

func newGate(t *testing.T) *gate {
	t.Helper()
	return &gate{reached: make(chan struct{}, 1<<16), opened: make(chan struct{}), over: t.Context().Done()}
}

func (g *gate) hook(ctx context.Context) error {
	g.reached <- struct{}{}
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-g.over:
		return errOver
	}
}

func (g *gate) open() { close(g.opened) }

var errOver = errors.New("the test is over")

func fails(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// node is a daemon that runs until the end of the test.
type node struct {
	net.Listener
	addr     string
	accepted atomic.Int32
	ended    chan error // how its transfers ended
}

func (n *node) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if err == nil {
		n.accepted.Add(1)
	}
	return conn, err
}

func serve(t *testing.T, s protocol.Sink, opts daemon.Options) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &node{Listener: ln, addr: ln.Addr().String(), ended: make(chan error, 1000)}
	opts.OnTransfer = func(_ []protocol.Receipt, err error) { n.ended <- err }
	server := daemon.NewServer(s, opts)
	served := make(chan error, 1)
	go func() { served <- server.Serve(n) }()
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		stopped := make(chan struct{})
		go func() { defer close(stopped); _ = server.Shutdown(now) }()
		receive(t, stopped, "Shutdown to return")
		assert.NoError(t, receive(t, served, "Serve to return"))
	})
	return n
}

func reader(t *testing.T, s sink.Store) *node {
	t.Helper()
	return serve(t, leafOver(t, s), daemon.Options{})
}

// broadcaster serves a fan-out to stores, which are called r1, r2, ...
func broadcaster(t *testing.T, stores ...*store) *node {
	t.Helper()
	var addrs []string
	for _, s := range stores {
		addrs = append(addrs, reader(t, s).addr)
	}
	return broadcast(t, addrs...)
}

func broadcast(t *testing.T, addrs ...string) *node {
	t.Helper()
	var hops []*daemon.Hop
	for i, addr := range addrs {
		hops = append(hops, daemon.NewHop("r"+string(rune('1'+i)), protocol.NewDialer(addr, protocol.SessionConfig{})))
	}
	f, err := daemon.NewFanout(hops, daemon.FanoutOptions{Stall: time.Hour, Lag: time.Hour})
	require.NoError(t, err)
	t.Cleanup(f.Close)
	return serve(t, f, daemon.Options{})
}

// down is an address that nobody listens on. A port that was just free could
// be taken by somebody else.
const down = "127.0.0.1:1"

func newClient(t *testing.T, host string) *client.Client {
	t.Helper()
	c, err := client.New(host, protocol.SessionConfig{Agent: "test"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

// source is a Source that may lie about its size.
type source struct {
	name string
	size int64
	io.Reader
}

func bytesSource(name string, content []byte) *source {
	return &source{name, int64(len(content)), bytes.NewReader(content)}
}

func (s *source) Name() string { return s.name }

func (s *source) Stat() (client.Stat, error) {
	return client.Stat{Size: s.size, Mode: 0o640, MTime: time.Unix(1e9, 0)}, nil
}

func (s *source) Fingerprint() (string, error) { return "", nil }

func (s *source) Open(context.Context) (io.ReadCloser, error) { return io.NopCloser(s), nil }

// endless is content without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func states(receipts []client.Receipt) map[string]protocol.LeafState {
	all := map[string]protocol.LeafState{}
	for _, r := range receipts {
		all[r.Leaf] = r.Status
	}
	return all
}

// leafOver is the sink of a reader with store. What it has suspended ends with the test.
func leafOver(t *testing.T, store sink.Store) *sink.Leaf {
	t.Helper()
	l := sink.NewLeaf(store)
	t.Cleanup(l.Close)
	return l
}
