package faults_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// tapeName is what the recorded file is called; each replay puts its own
// number there.
const tapeName = "tape-000000"

// host is a daemon that is replayed to: a reader, or a broadcaster and two.
type host struct {
	addr   string
	dirs   []string
	leaves []*sink.Leaf
	stop   func()
}

func newReaderHost(t *testing.T) *host {
	h := &host{dirs: []string{t.TempDir()}}
	store, err := sink.OpenDir(h.dirs[0], sink.DirOptions{Fsync: sink.FsyncNever})
	require.NoError(t, err)
	h.leaves = []*sink.Leaf{sink.NewLeaf(store)}
	h.addr, h.stop = serve(t, h.leaves[0], 512*kib)
	return h
}

// newBroadcasterHost has a hop to each of others too.
func newBroadcasterHost(t *testing.T, readers int, others ...string) *host {
	h := &host{}
	var stops []func()
	var hops []*daemon.Hop
	for range readers {
		r := newReaderHost(t)
		h.dirs, h.leaves, stops = append(h.dirs, r.dirs...), append(h.leaves, r.leaves...), append(stops, r.stop)
		others = append(others, r.addr)
	}
	for i, addr := range others {
		hops = append(hops, daemon.NewHop(fmt.Sprintf("r%d", i+1), protocol.NewDialer(addr, protocol.SessionConfig{Window: 512 * kib})))
	}
	fanout, err := daemon.NewFanout(hops, daemon.FanoutOptions{Stall: 2 * time.Second, Lag: 500 * time.Millisecond})
	require.NoError(t, err)
	var stop func()
	h.addr, stop = serve(t, fanout, 512*kib)
	h.stop = func() {
		stop()
		fanout.Close()
		for _, s := range stops {
			s()
		}
	}
	return h
}

// calm gives up what was cut off, so that what is left open is what leaks.
func (h *host) calm() {
	for _, l := range h.leaves {
		l.Close()
	}
}

// honest pushes a file of its own, which has to arrive.
func (h *host) honest(t *testing.T, name string, opts client.Options) {
	t.Helper()
	content := random(*seed, 100*kib)
	opts.Host, opts.Timeout = h.addr, 20*time.Second
	_, err := client.Push(t.Context(), memory{name, content}, opts)
	require.NoError(t, err, "an honest push")
	for _, d := range h.dirs {
		got, err := os.ReadFile(filepath.Join(d, name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), "an honest push is exact")
	}
}

// exact checks that nothing is published that nobody has sent whole.
func (h *host) exact(t *testing.T, contents ...[]byte) (files int) {
	t.Helper()
	for _, d := range h.dirs {
		for _, name := range visible(t, d) {
			got, err := os.ReadFile(filepath.Join(d, name))
			require.NoError(t, err)
			good := false
			for _, c := range contents {
				good = good || bytes.Equal(c, got)
			}
			assert.True(t, good, "%q was published with %d bytes that nobody has sent so", name, len(got))
			files++
		}
	}
	return files
}

// usage is what a leak shows in.
type usage struct{ goroutines, files int }

func used() usage {
	fds, _ := os.ReadDir("/proc/self/fd") // none elsewhere
	return usage{runtime.NumGoroutine(), len(fds)}
}

// slack is what is opened and ended by others meanwhile: a hop's session.
const slack = 12

func requireBack(t *testing.T, base usage) {
	t.Helper()
	back := func() bool {
		now := used()
		return now.goroutines <= base.goroutines+slack && now.files <= base.files+slack
	}
	if !assert.Eventually(t, back, 40*time.Second, 20*time.Millisecond, "goroutines and files go back to %+v", base) {
		b := make([]byte, 1<<20)
		t.Logf("they are %+v\n%s", used(), b[:runtime.Stack(b, true)])
		t.FailNow()
	}
}

// eachSpoilt spoils n tapes, each in one to three ways, and plays several at once.
func eachSpoilt(n int, fresh func(i int) tape, others tape, play func(i int, spoilt tape, how string)) {
	slots := make(chan struct{}, 8)
	var work sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			rng := rand.New(rand.NewPCG(*seed, uint64(i)))
			spoilt, how := fresh(i), ""
			for range 1 + rng.IntN(3) {
				var what string
				spoilt, what = spoilt.spoil(rng, others)
				how += what + "; "
			}
			play(i, spoilt, how)
		})
	}
	work.Wait()
}

var uuid = regexp.MustCompile(`"id":"([0-9a-f-]{36})"`)

// numbered is a copy of a client's tape under another name and id.
func (t tape) numbered(tb testing.TB, n int) tape {
	var id []byte
	for _, l := range t {
		if m := uuid.FindSubmatch(l.raw); m != nil {
			id = m[1]
		}
	}
	require.NotEmpty(tb, id)
	return t.clone([]byte(tapeName), fmt.Appendf(nil, "tape-%06d", n)).clone(id, fmt.Appendf(nil, "%036d", n))
}

// TestHostileClients replays spoilt sessions of a client to daemons: each ends in
// an error or in exact bytes, and the daemon is as it was.
func TestHostileClients(t *testing.T) {
	content, other := random(*seed, 40*kib), random(*seed+1, 12*kib)
	for name, start := range map[string]func() *host{
		"reader":      func() *host { return newReaderHost(t) },
		"broadcaster": func() *host { return newBroadcasterHost(t, 2) },
	} {
		t.Run(name, func(t *testing.T) {
			h := start()
			defer h.stop()
			record := func(name string, content []byte) tape {
				up, _ := recording(t, h.addr, func(addr string) {
					_, err := client.Push(t.Context(), memory{name, content}, client.Options{Host: addr, ChunkSize: 8 * kib, Compress: protocol.CompressNone})
					require.NoError(t, err)
				})
				return up
			}
			up, small := record(tapeName, content), record("small", other)
			replay := func(tp tape) {
				conn, err := net.Dial("tcp", h.addr)
				require.NoError(t, err)
				tp.play(conn, false)
			}
			replay(up.numbered(t, 999_999))
			require.FileExists(t, filepath.Join(h.dirs[0], "tape-999999"), "a tape that is not spoilt is a push")
			h.honest(t, "before", client.Options{})
			base := used()

			n := *hostile * 3 / 8
			eachSpoilt(n, func(i int) tape { return up.numbered(t, i) }, small, func(_ int, spoilt tape, _ string) { replay(spoilt) })
			h.calm()
			h.honest(t, "after", client.Options{})
			requireBack(t, base)
			files := h.exact(t, content, other, random(*seed, 100*kib))
			t.Logf("%d spoilt sessions, %d files at %d readers, all whole", n, files, len(h.dirs))
		})
	}
}

// actor is a daemon that plays a tape to the first who connects, and has
// nothing to say to others.
type actor struct {
	net.Listener
	work sync.WaitGroup
}

func newActor(t *testing.T, part tape) *actor {
	a := &actor{Listener: listen(t)}
	a.work.Go(func() {
		for first := true; ; first = false {
			conn, err := a.Accept()
			switch {
			case err != nil:
				return
			case first:
				a.work.Go(func() { part.play(conn, true) })
			default:
				conn.Close()
			}
		}
	})
	return a
}

func (a *actor) close() {
	a.Listener.Close()
	a.work.Wait()
}

// TestHostileReaders replays spoilt sessions of a reader, to a client and to a
// broadcaster: a push ends, at the latest when its time is up, and the readers beside
// the hostile one have the file whole.
func TestHostileReaders(t *testing.T) {
	content, other := random(*seed, 40*kib), random(*seed+1, 12*kib)
	options := client.Options{ChunkSize: 8 * kib, Compress: protocol.CompressNone, Timeout: time.Second}
	record := func(through bool, name string, content []byte) (down tape) {
		h := newReaderHost(t)
		defer h.stop()
		_, down = recording(t, h.addr, func(addr string) {
			to := addr
			if through {
				b := newBroadcasterHost(t, 0, addr)
				defer b.stop()
				to = b.addr
			}
			opts := options
			opts.Host = to
			_, err := client.Push(t.Context(), memory{name, content}, opts)
			require.NoError(t, err)
		})
		return down
	}
	for _, c := range []struct {
		name    string
		through bool
		push    func(actor string, opts client.Options) error
	}{
		{"client", false, func(actor string, opts client.Options) error {
			opts.Host = actor
			_, err := client.Push(t.Context(), memory{tapeName, content}, opts)
			return err
		}},
		{"broadcaster", true, func(actor string, opts client.Options) error {
			r := newReaderHost(t)
			defer r.stop()
			b := newBroadcasterHost(t, 0, r.addr, actor)
			defer b.stop()
			defer r.calm()
			opts.Host, opts.Require, opts.Timeout = b.addr, policy(t, "any"), 10*time.Second
			_, err := client.Push(t.Context(), memory{tapeName, content}, opts)
			assert.Equal(t, 1, r.exact(t, content), "the other reader has it (%v)", err)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			down, small := record(c.through, tapeName, content), record(c.through, "small", other)
			play := func(part tape) error {
				a := newActor(t, part)
				defer a.close()
				return c.push(a.Addr().String(), options)
			}
			require.NoError(t, play(down), "a tape that is not spoilt is a reader")
			base := used()
			n := *hostile / 8
			var mu sync.Mutex
			failed := 0
			eachSpoilt(n, func(int) tape { return down.clone(nil, nil) }, small, func(i int, spoilt tape, how string) {
				begun := time.Now()
				err := play(spoilt)
				took := time.Since(begun)
				mu.Lock()
				defer mu.Unlock()
				assert.Less(t, took, 40*time.Second, "%d: %s", i, how)
				if err != nil {
					failed++
				}
				if t.Failed() {
					t.Logf("%d: %s: %v after %v", i, how, err, took)
				}
			})
			requireBack(t, base)
			t.Logf("%d spoilt readers, %d pushes failed", n, failed)
		})
	}
}
