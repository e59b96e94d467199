package faults_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// told collects what a push says of itself.
type told struct {
	mu    sync.Mutex
	lines []string // "leaf: text" and notes, when they change
	at    []time.Duration
	last  map[string]string
}

func (l *told) hear(p client.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	say := func(who, text string) {
		if l.last[who] != text {
			l.last[who] = text
			l.lines, l.at = append(l.lines, who+": "+text), append(l.at, p.Elapsed)
		}
	}
	say("push", p.Note)
	for _, leaf := range p.Leaves {
		say(leaf.Name, string(leaf.State)+" "+leaf.Text)
	}
}

// when is when a line with all of parts in it was told first, or -1.
func (l *told) when(parts ...string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for i, line := range l.lines {
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue next
			}
		}
		return l.at[i]
	}
	return -1
}

// run is one push in fake time, and what came of it.
type run struct {
	*cluster
	told     told
	begun    time.Time
	receipts []client.Receipt
	err      error
	took     time.Duration
}

func newRun(t *testing.T, stores ...*store) *run {
	return &run{cluster: newCluster(t, mib, daemon.FanoutOptions{}, stores...), told: told{last: map[string]string{}}, begun: time.Now()}
}

func (r *run) push(t *testing.T, src client.Source, opts client.Options) {
	t.Helper()
	if opts.ChunkSize == 0 {
		opts.ChunkSize = 64 * kib
	}
	opts.OnProgress = r.told.hear
	ctx, cancel := context.WithTimeout(t.Context(), 72*time.Hour)
	defer cancel()
	r.receipts, r.err = r.cluster.push(ctx, src, opts)
	r.took = time.Since(r.begun)
	require.NoError(t, ctx.Err(), "the push does not end")
	t.Logf("%v: %v; receipts %+v", r.took, r.err, r.receipts)
	if t.Failed() {
		t.Log(strings.Join(r.told.lines, "\n"))
	}
}

// published is when reader i published content, since the push began.
func (r *run) published(t *testing.T, i int, content []byte) time.Duration {
	t.Helper()
	s := r.stores[i]
	got, ok := s.content("f")
	require.True(t, ok, "reader %d has not published", i+1)
	require.Equal(t, content, got, "reader %d", i+1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.Sub(r.begun)
}

func (r *run) absent(t *testing.T, readers ...int) {
	t.Helper()
	for _, i := range readers {
		_, ok := r.stores[i].content("f")
		assert.False(t, ok, "reader %d has published", i+1)
	}
}

func stuckAt(offset int64) *store {
	s := newStore(good)
	s.stuck = offset
	return s
}

func paced(perSecond int) *store {
	s := newStore(good)
	s.pace = perSecond
	return s
}

// TestStalled is a reader that accepts and then takes no more.
func TestStalled(t *testing.T) {
	content := random(2, 8*mib)
	for _, require := range []string{"any", "2"} {
		t.Run(require, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRun(t, newStore(good), stuckAt(5*mib/2), newStore(good))
				defer r.shut()
				r.push(t, memory{"f", content}, client.Options{Require: policy(t, require)})
				assert.Equal(t, 3, exitCode(r.err), "%v", r.err)
				for _, i := range []int{0, 2} {
					assert.LessOrEqual(t, r.published(t, i, content), daemon.DefaultLag+2*time.Second, "reader %d waits for the stalled one", i+1)
					assert.Equal(t, protocol.LeafPublished, r.receipts[i].Status)
				}
				r.absent(t, 1)
				assert.Equal(t, protocol.CodeStalled, r.receipts[1].Code, "%+v", r.receipts[1])
				assert.Equal(t, "stalled at 2.5 MiB, 30 s without progress", r.receipts[1].Text)
				assert.LessOrEqual(t, r.took, 2*time.Minute)
			})
		})
	}
	t.Run("all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRun(t, newStore(good), stuckAt(5*mib/2), newStore(good))
			defer r.shut()
			r.push(t, memory{"f", content}, client.Options{})
			assert.Equal(t, 1, exitCode(r.err))
			assert.ErrorContains(t, r.err, "stalled at 2.5 MiB, 30 s without progress")
			assert.ErrorContains(t, r.err, "r2: ", "which reader holds all up")
			r.absent(t, 0, 1, 2)
			assert.Equal(t, protocol.CodeStalled, r.receipts[1].Code, "%+v", r.receipts[1])
			assert.Equal(t, protocol.CodePolicy, r.receipts[0].Code, "%+v", r.receipts[0])
			assert.GreaterOrEqual(t, r.took, daemon.DefaultStall)
			assert.LessOrEqual(t, r.took, 2*client.DefaultTimeout)
			at := r.told.when("r2: ", "the others wait for it")
			assert.True(t, at >= 0 && at <= 3*time.Second, "told at %v who holds all up", at)
		})
	})
	t.Run("short timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRun(t, newStore(good), stuckAt(5*mib/2))
			defer r.shut()
			r.push(t, memory{"f", content}, client.Options{Timeout: 20 * time.Second})
			assert.Equal(t, 1, exitCode(r.err))
			assert.ErrorContains(t, r.err, "stalled at 2.5 MiB")
			assert.ErrorContains(t, r.err, "r2", "which reader holds all up")
			r.absent(t, 0, 1)
		})
	})
}

// TestSlow is a reader that takes 1 MiB a second, among fast ones.
func TestSlow(t *testing.T) {
	content := random(3, 16*mib)
	for _, require := range []string{"any", "2"} {
		t.Run(require, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRun(t, newStore(good), newStore(good), paced(mib))
				defer r.shut()
				r.push(t, memory{"f", content}, client.Options{Require: policy(t, require)})
				assert.NoError(t, r.err)
				for _, i := range []int{0, 1} {
					assert.LessOrEqual(t, r.published(t, i, content), daemon.DefaultLag+2*time.Second)
				}
				slow := r.published(t, 2, content)
				assert.GreaterOrEqual(t, slow, 15*time.Second)
				assert.LessOrEqual(t, slow, 25*time.Second)
				for _, rc := range r.receipts {
					assert.Equal(t, protocol.LeafPublished, rc.Status, "%+v", rc)
				}
				assert.GreaterOrEqual(t, r.told.when("r3: ", "parked at"), time.Duration(0), "parking is told")
			})
		})
	}
	t.Run("all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRun(t, newStore(good), newStore(good), paced(mib))
			defer r.shut()
			r.push(t, memory{"f", content}, client.Options{})
			assert.NoError(t, r.err)
			for i := range r.stores {
				at := r.published(t, i, content)
				assert.True(t, at >= 15*time.Second && at <= 18*time.Second, "reader %d at %v", i+1, at)
			}
			at := r.told.when("r3: ", "the others wait for it")
			assert.True(t, at > 0 && at <= 4*time.Second, "told at %v who paces all", at)
			assert.EqualValues(t, -1, r.told.when("r1: ", "the others wait for it"))
		})
	})
	t.Run("everybody", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRun(t, paced(mib), paced(mib), paced(mib))
			defer r.shut()
			r.push(t, memory{"f", content}, client.Options{Require: policy(t, "any")})
			assert.NoError(t, r.err)
			assert.EqualValues(t, -1, r.told.when("parked"), "nobody is slower than the others")
		})
	})
}

// link is a way to a node that can turn half-open: nothing goes through any
// more, and neither end is told.
type link struct{ dead atomic.Bool }

// over returns a stream that leads over the link to s.
func (l *link) over(s protocol.Stream, work *sync.WaitGroup) protocol.Stream {
	near, far := protocol.Pipe()
	pump := func(to, from protocol.Stream) {
		b := make([]byte, 64*kib)
		for {
			n, err := from.Read(b)
			switch {
			case l.dead.Load() && err == nil:
			case l.dead.Load():
				return
			case err != nil:
				to.CloseWrite()
				return
			default:
				to.Write(b[:n])
			}
		}
	}
	work.Go(func() { pump(s, far) })
	work.Go(func() { pump(far, s) })
	return near
}

// halfOpen makes the first stream to n lead over a link.
func halfOpen(n *node) *link {
	l := &link{}
	var once sync.Once
	n.wrap = func(s protocol.Stream) protocol.Stream {
		once.Do(func() { s = l.over(s, &n.work) })
		return s
	}
	return l
}

// TestHalfOpen is a connection that swallows both ways, on either hop: both
// ends notice by their pings, and the push goes on over another.
func TestHalfOpen(t *testing.T) {
	content := random(4, 8*mib)
	for _, hop := range []string{"client to broadcaster", "broadcaster to reader"} {
		for _, require := range []string{"all", "any"} {
			t.Run(hop+", "+require, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRun(t, paced(mib), paced(mib))
					defer r.shut()
					victim := r.broadcaster
					if hop != "client to broadcaster" {
						victim = r.readers[1]
					}
					way := halfOpen(victim)
					var far time.Duration // when the far end noticed
					go func() {
						time.Sleep(4 * time.Second)
						way.dead.Store(true)
						synctest.Wait()
						victim.mu.Lock()
						a := victim.running
						var done chan struct{}
						for _, x := range a {
							done = x.done
						}
						victim.mu.Unlock()
						begun := time.Now()
						<-done
						far = time.Since(begun)
					}()
					// Longer than the client's own watch over acks, so that
					// pings are what finds it.
					r.push(t, memory{"f", content}, client.Options{Require: policy(t, require), Timeout: 3 * time.Minute})
					assert.NoError(t, r.err)
					for i := range r.stores {
						r.published(t, i, content)
					}
					assert.LessOrEqual(t, r.took, 4*time.Second+40*time.Second+8*time.Second)
					synctest.Wait()
					assert.True(t, far > 0 && far <= 40*time.Second, "the far end noticed after %v", far)
					if require == "any" && victim != r.broadcaster {
						assert.LessOrEqual(t, r.published(t, 0, content), 4*time.Second+daemon.DefaultLag+6*time.Second)
					}
				})
			})
		}
	}
}

// TestFarEndAlone is a daemon whose sender is gone without a word, and does
// not come back.
func TestFarEndAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(good)
		n := newNode("r1", mib, s.on)
		defer n.shut()
		way := halfOpen(n)
		begun := time.Now()
		go func() {
			time.Sleep(time.Second)
			way.dead.Store(true)
		}()
		near, err := n.Open(t.Context())
		require.NoError(t, err)
		sender := protocol.NewSender(near, protocol.SenderConfig{})
		defer sender.Wait()
		defer sender.Close()
		_, err = sender.Offer(t.Context(), &protocol.Offer{Name: "f", Size: -1})
		require.NoError(t, err)
		for {
			time.Sleep(time.Second)
			n.mu.Lock()
			ended := n.ended
			n.mu.Unlock()
			if len(ended) > 0 {
				assert.True(t, protocol.HasCode(ended[0], protocol.CodeDead), "%v", ended[0])
				break
			}
		}
		assert.LessOrEqual(t, time.Since(begun), 41*time.Second)
	})
}

// TestAway is a broadcaster that goes away in the middle of a push.
func TestAway(t *testing.T) {
	content := random(5, 8*mib)
	for _, c := range []struct {
		name       string
		from, till time.Duration // 0: for ever
		timeout    time.Duration
		fails      bool
	}{
		{"20 s", 3 * time.Second, 23 * time.Second, 0, false},
		{"50 s", 3 * time.Second, 53 * time.Second, 0, false},
		{"as long as is waited, nearly", 3 * time.Second, 62 * time.Second, 0, false},
		{"for ever", 3 * time.Second, 0, 0, true},
		{"from the start, 20 s", 0, 20 * time.Second, 0, false},
		{"from the start, as long as is waited, nearly", 0, 59 * time.Second, 0, false},
		{"from the start, for ever", 0, 0, 0, true},
		{"from the start, for ever, short timeout", 0, 0, 5 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRun(t, paced(mib), paced(mib))
				defer r.shut()
				if c.from == 0 {
					r.broadcaster.stop()
				}
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					time.Sleep(c.from)
					r.broadcaster.stop()
					if c.till > 0 {
						time.Sleep(c.till - c.from)
						r.broadcaster.start()
					}
				}()
				r.push(t, memory{"f", content}, client.Options{Timeout: c.timeout})
				<-gone
				timeout := c.timeout
				if timeout == 0 {
					timeout = client.DefaultTimeout
				}
				if !c.fails {
					require.NoError(t, r.err, "it was back before the timeout of %v was over", timeout)
					for i := range r.stores {
						r.published(t, i, content)
					}
					assert.LessOrEqual(t, r.took, c.till+8*time.Second+8*time.Second)
					return
				}
				assert.True(t, protocol.HasCode(r.err, protocol.CodeUnreachable), "%v", r.err)
				r.absent(t, 0, 1)
				assert.GreaterOrEqual(t, r.took, c.from+timeout-time.Second, "given up before the timeout was over")
				assert.LessOrEqual(t, r.took, c.from+timeout+10*time.Second)
			})
		})
	}
}

// TestNeverThere is a reader that cannot be reached and that is needed: the
// push is tried for its timeout, and the attempts themselves are no progress.
func TestNeverThere(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			r := newRun(t, newStore(noDial), newStore(good))
			defer r.shut()
			r.push(t, memory{"f", random(5, kib)}, client.Options{})
			assert.Equal(t, 1, exitCode(r.err), "%v", r.err)
			assert.ErrorContains(t, r.err, "r1: connection refused")
			assert.LessOrEqual(t, r.took, client.DefaultTimeout+daemon.DefaultStall+10*time.Second)
			r.absent(t, 0, 1)
		})
	}
}

// TestReaderAway is a reader that goes away and comes back.
func TestReaderAway(t *testing.T) {
	content := random(6, 8*mib)
	for _, require := range []string{"all", "any"} {
		t.Run(require, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRun(t, paced(mib), paced(mib))
				defer r.shut()
				var away sync.WaitGroup
				defer away.Wait()
				away.Go(func() {
					time.Sleep(3 * time.Second)
					r.readers[1].stop()
					time.Sleep(20 * time.Second)
					r.readers[1].start()
				})
				r.push(t, memory{"f", content}, client.Options{Require: policy(t, require)})
				assert.NoError(t, r.err)
				for i := range r.stores {
					r.published(t, i, content)
				}
				if require == "any" {
					assert.LessOrEqual(t, r.published(t, 0, content), 9*time.Second)
				}
			})
		})
	}
}

// TestIdleSource is a pipe that says nothing for a day: nobody minds.
func TestIdleSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := random(7, 2*mib)
		r := newRun(t, newStore(good), newStore(good))
		defer r.shut()
		pr, pw := io.Pipe()
		go func() {
			pw.Write(content[:mib+1])
			time.Sleep(24 * time.Hour)
			pw.Write(content[mib+1:])
			pw.Close()
		}()
		r.push(t, client.Stream(pr, "f"), client.Options{})
		assert.NoError(t, r.err)
		assert.GreaterOrEqual(t, r.took, 24*time.Hour)
		for i := range r.stores {
			r.published(t, i, content)
		}
		for i, n := range append(r.readers, r.broadcaster) {
			assert.Equal(t, 1, n.dials, "node %d: the connection was cut off", i)
		}
	})
}

// TestIdleSourceIsLeft is the same pipe when the push cannot go on, or is not
// wanted any more: that is not kept back until the pipe says something.
func TestIdleSourceIsLeft(t *testing.T) {
	for _, why := range []string{"lost", "cancelled"} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRun(t, newStore(good))
				defer r.shut()
				pr, pw := io.Pipe()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					pw.Write(random(7, kib))
					time.Sleep(3 * time.Second)
					if why == "lost" {
						r.broadcaster.stop()
					} else {
						cancel()
					}
					time.Sleep(time.Hour)
					pw.Close()
				}()
				begun := time.Now()
				_, err := r.cluster.push(ctx, client.Stream(pr, "f"), client.Options{})
				took := time.Since(begun)
				assert.Error(t, err)
				assert.LessOrEqual(t, took, 3*time.Second+client.DefaultTimeout+10*time.Second)
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

// TestMute is a reader that answers pings and nothing else.
func TestMute(t *testing.T) {
	content := random(8, mib)
	mute := func() *store {
		s := newStore(good)
		s.mute = true
		return s
	}
	t.Run("all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRun(t, newStore(good), mute())
			defer r.shut()
			r.push(t, memory{"f", content}, client.Options{})
			assert.True(t, protocol.HasCode(r.err, protocol.CodeStalled), "%v", r.err)
			assert.ErrorContains(t, r.err, "r2")
			assert.NotContains(t, r.err.Error(), "r1", "it has accepted")
			assert.Equal(t, "r1", r.receipts[0].Leaf, "the order is that of the tree")
			assert.True(t, r.took >= client.DefaultTimeout && r.took <= client.DefaultTimeout+10*time.Second, "after %v", r.took)
			r.absent(t, 0, 1)
		})
	})
	t.Run("any", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRun(t, newStore(good), mute(), newStore(good))
			defer r.shut()
			r.push(t, memory{"f", content}, client.Options{Require: policy(t, "any")})
			assert.Equal(t, 3, exitCode(r.err), "%v", r.err)
			for _, i := range []int{0, 2} {
				assert.LessOrEqual(t, r.published(t, i, content), 2*time.Second)
			}
			assert.LessOrEqual(t, r.took, 2*client.DefaultTimeout)
		})
	})
}

// TestSilent is a reader behind a connection that was half-open from the
// start: it is found by the ping, and needs no answer to the offer for that.
func TestSilent(t *testing.T) {
	content := random(9, mib)
	for _, require := range []string{"all", "any"} {
		t.Run(require, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRun(t, newStore(good), newStore(good))
				r.readers[1].wrap = func(s protocol.Stream) protocol.Stream {
					l := &link{}
					l.dead.Store(true)
					return l.over(s, &r.readers[1].work)
				}
				defer r.shut()
				r.push(t, memory{"f", content}, client.Options{Require: policy(t, require)})
				if require == "any" {
					assert.Equal(t, 3, exitCode(r.err), "%v", r.err)
					assert.LessOrEqual(t, r.published(t, 0, content), 2*time.Second)
					return
				}
				assert.Equal(t, 1, exitCode(r.err), "%v", r.err)
				assert.ErrorContains(t, r.err, "r2")
				assert.LessOrEqual(t, r.took, 2*client.DefaultTimeout)
				r.absent(t, 0, 1)
			})
		})
	}
}
