// What the tests of this package share.

package sink_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait. It is generous: only a test that fails waits for so long.
const patience = 2 * time.Minute

// within runs f, which must return.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	receive(t, done, what)
}

// receive takes the next value from ch, or notes that it was closed.
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

func offer(name string, size int64) *protocol.Offer {
	return &protocol.Offer{ID: "0197-test", Name: protocol.Name(name), Size: size, Digest: protocol.DigestXXH128}
}

// request is what a Leaf asks a store.
func request(o *protocol.Offer) sink.Request {
	return sink.Request{Offer: o, Prefix: io.Discard, Tell: func(string) {}}
}

func digest(alg protocol.DigestAlg, content []byte) protocol.Digest {
	h := protocol.NewHasher(alg)
	_, _ = h.Write(content)
	return h.Digest()
}

// put takes content through all the steps of a file.
func put(t *testing.T, store sink.Store, o *protocol.Offer, content string) (sink.Published, error) {
	t.Helper()
	f, _, err := store.Create(t.Context(), request(o))
	if err != nil {
		return sink.Published{}, err
	}
	if err := fill(t, f, content); err != nil {
		f.Discard(false)
		return sink.Published{}, err
	}
	p, err := f.Publish(t.Context())
	if err != nil {
		f.Discard(false)
	}
	return p, err
}

// fill writes content in two pieces and stages it.
func fill(t *testing.T, f sink.File, content string) error {
	t.Helper()
	for _, piece := range []string{content[:len(content)/2], content[len(content)/2:]} {
		if piece == "" {
			continue
		}
		n, err := f.Write([]byte(piece))
		if err != nil {
			return err
		}
		require.Len(t, piece, n)
	}
	return f.Stage(t.Context(), "")
}

// entries lists what is beneath dir, directories with a slash at the end.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	all := []string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if d.Name() == ".sbcast-state" { // the store's own
			return fs.SkipDir
		}
		name, err := filepath.Rel(dir, path)
		if d.IsDir() {
			name += "/"
		}
		all = append(all, filepath.ToSlash(name))
		return err
	}))
	return all
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o666))
}

func assertContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, want, string(got))
}

func assertCode(t *testing.T, want protocol.Code, err error) {
	t.Helper()
	require.Error(t, err)
	assert.Equal(t, want, protocol.AsError(err).Code, "code of: %v", err)
}

// upstream is a protocol.Upstream that notes what it is told.
type upstream struct {
	acks     chan int64
	fails    chan error
	mu       sync.Mutex
	progress []protocol.Leaf
}

func newUpstream() *upstream {
	return &upstream{acks: make(chan int64, 1000), fails: make(chan error, 1000)}
}

func (u *upstream) Window() int64       { return protocol.DefaultWindow }
func (u *upstream) Room() protocol.Room { return protocol.Room{} }

func (u *upstream) Ack(offset int64) { u.acks <- offset }

func (u *upstream) Fail(err error) { u.fails <- err }

func (u *upstream) Progress(leaves ...protocol.Leaf) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.progress = append(u.progress, leaves...)
}

// fakeStore is a Store of one file.
type fakeStore struct {
	file *fakeFile
	have sink.Have
	err  error // of Create
}

func (s *fakeStore) String() string { return "fake:" }

func (s *fakeStore) Create(ctx context.Context, _ sink.Request) (sink.File, sink.Have, error) {
	if s.err != nil {
		return nil, sink.Have{}, s.err
	}
	s.file.life = ctx
	return s.file, s.have, nil
}

// fakeFile is a File in memory that does as it is told.
type fakeFile struct {
	failAt     int           // offset at which Write fails; 0: never
	entered    chan struct{} // gets a value when a Write begins, unless nil
	gate       chan struct{} // each Write takes a value first, or ends with life; unless nil
	stageErr   error
	publishErr error
	unchanged  bool

	life      context.Context
	mu        sync.Mutex
	content   []byte
	staged    bool
	published int
	discarded int
}

var errBroken = errors.New("the disk is broken")

func (f *fakeFile) Write(p []byte) (int, error) {
	if f.entered != nil {
		f.entered <- struct{}{}
	}
	if f.gate != nil {
		select {
		case <-f.gate:
		case <-f.life.Done():
			return 0, context.Cause(f.life)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failAt > 0 && len(f.content)+len(p) > f.failAt {
		return 0, errBroken
	}
	f.content = append(f.content, p...)
	return len(p), nil
}

func (f *fakeFile) Stage(context.Context, protocol.Digest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.staged = true
	return f.stageErr
}

func (f *fakeFile) Publish(context.Context) (sink.Published, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.publishErr != nil {
		return sink.Published{}, f.publishErr
	}
	f.published++
	return sink.Published{Location: "fake:file", Unchanged: f.unchanged}, nil
}

func (f *fakeFile) Discard(bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.discarded++
}
