package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// fault is what a proxy does, once, to the bytes that pass.
type fault struct {
	up   bool  // towards the daemon
	at   int64 // byte, over all connections
	flip bool  // a bit of it; else the connection is cut before it
	bit  uint
}

func (f fault) String() string {
	what, way := "cut", "down"
	if f.flip {
		what = fmt.Sprintf("flip of bit %d", f.bit)
	}
	if f.up {
		way = "up"
	}
	return fmt.Sprintf("%s at byte %d %s", what, f.at, way)
}

// proxy passes connections on to a daemon, with one fault. A zero at is none.
type proxy struct {
	ln    net.Listener
	to    string
	fault fault
	tap   func(b []byte, up bool) // is shown what passes; may be nil
	work  sync.WaitGroup

	mu     sync.Mutex
	passed [2]int64 // bytes, down and up
	done   bool     // the fault has happened
	conns  map[net.Conn]bool
	closed bool
}

func newProxy(t *testing.T, to string, f fault) *proxy {
	p := &proxy{ln: listen(t), to: to, fault: f, conns: map[net.Conn]bool{}}
	p.work.Go(p.serve)
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

func (p *proxy) close() {
	p.ln.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
}

func (p *proxy) hit() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

func (p *proxy) serve() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		d, err := net.Dial("tcp", p.to)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		if p.closed {
			c.Close()
			d.Close()
		}
		p.conns[c], p.conns[d] = true, true
		p.mu.Unlock()
		p.work.Go(func() { p.pump(d, c, true) })
		p.work.Go(func() { p.pump(c, d, false) })
	}
}

func (p *proxy) pump(to, from net.Conn, up bool) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 32*kib)
	for {
		n, err := from.Read(b)
		n, cut := p.spoil(b[:n], up)
		if p.tap != nil {
			p.tap(b[:n], up)
		}
		if _, werr := to.Write(b[:n]); err != nil || werr != nil || cut {
			return
		}
	}
}

// spoil does the fault to b, when it is there, and says how much of b is to be
// passed on and whether that is all.
func (p *proxy) spoil(b []byte, up bool) (n int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	way := 0
	if up {
		way = 1
	}
	from := p.passed[way]
	p.passed[way] += int64(len(b))
	at := p.fault.at - from
	if p.done || p.fault.at == 0 || up != p.fault.up || at < 0 || at >= int64(len(b)) {
		return len(b), false
	}
	p.done = true
	if p.fault.flip {
		b[at] ^= 1 << p.fault.bit
		return len(b), false
	}
	return int(at), true
}

func listen(t *testing.T) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return ln
}

// serve runs a daemon until the returned function is called.
func serve(t *testing.T, s protocol.Sink, window int64) (addr string, stop func()) {
	ln := listen(t)
	server := daemon.NewServer(s, daemon.Options{Window: window})
	var work sync.WaitGroup
	work.Go(func() { server.Serve(ln) })
	return ln.Addr().String(), func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		server.Shutdown(now)
		work.Wait()
	}
}

// network is a broadcaster and two readers with directories, each behind a
// proxy of its own.
type network struct {
	proxies [3]*proxy // to the broadcaster, and to the readers
	dirs    [2]string
	stop    func()
}

func newNetwork(t *testing.T, dir string, window int64, stall time.Duration, hop int, f fault) *network {
	n := &network{}
	var stops []func()
	var hops []*daemon.Hop
	for i := range n.dirs {
		n.dirs[i] = filepath.Join(dir, fmt.Sprintf("r%d", i+1))
		store, err := sink.OpenDir(n.dirs[i], sink.DirOptions{})
		require.NoError(t, err)
		leaf := sink.NewLeaf(store)
		addr, stop := serve(t, leaf, window)
		stops = append(stops, stop, leaf.Close)
		n.proxies[i+1] = newProxy(t, addr, pick(hop == i+1, f))
		hops = append(hops, daemon.NewHop(fmt.Sprintf("r%d", i+1),
			protocol.NewDialer(n.proxies[i+1].addr(), protocol.SessionConfig{Window: window})))
	}
	fanout, err := daemon.NewFanout(hops, daemon.FanoutOptions{Stall: stall})
	require.NoError(t, err)
	addr, stop := serve(t, fanout, window)
	n.proxies[0] = newProxy(t, addr, pick(hop == 0, f))
	n.stop = func() {
		n.proxies[0].close()
		stop()
		fanout.Close()
		for _, s := range stops {
			s()
		}
		n.proxies[1].close()
		n.proxies[2].close()
	}
	return n
}

func pick(here bool, f fault) fault {
	if here {
		return f
	}
	return fault{}
}

// visible lists the files beneath dir, but for the sink's own.
func visible(t *testing.T, dir string) (names []string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != dir && strings.HasPrefix(d.Name(), ".sbcast"):
			if d.IsDir() {
				return fs.SkipDir
			}
		case !d.IsDir():
			rel, err := filepath.Rel(dir, path)
			names = append(names, rel)
			return err
		}
		return nil
	})
	require.NoError(t, err)
	return names
}

// tally counts how the pushes of one kind ended.
type tally struct {
	pushes, hit, untroubled, healed, failed, late int
	errors                                        map[string]int
}

// TestProxy is a fault on one of the hops, at a random byte: the push heals, or
// ends with an error that says so; what is published has the right bytes.
//
// A bit flipped in smux's own headers can leave a session that looks alive and
// carries nothing: that is found by pings, after half a minute. The short run
// does not wait for it, the long one (-faults.runs=200) does.
func TestProxy(t *testing.T) {
	perHop, timeout, parallel := 20, 4*time.Second, 12
	if thinned > 1 {
		perHop = 10
	}
	if *runs > 0 {
		perHop, timeout, parallel = *runs, time.Minute, 48
	}
	rng := rand.New(rand.NewPCG(*seed, 23))
	type job struct {
		row  string
		hop  int
		size int
		f    fault
	}
	hops := []string{"client to broadcaster", "broadcaster to reader 1", "broadcaster to reader 2"}
	var jobs []job
	for _, flip := range []bool{false, true} {
		for hop, name := range hops {
			row := "cut, " + name
			if flip {
				row = "flip, " + name
			}
			for range perHop {
				j := job{row, hop, mib + rng.IntN(mib), fault{up: rng.IntN(2) == 0, flip: flip, bit: uint(rng.IntN(8))}}
				if j.f.at = 1 + rng.Int64N(int64(j.size)); !j.f.up {
					j.f.at = 1 + rng.Int64N(2*kib) // about what comes back
				}
				jobs = append(jobs, j)
			}
		}
	}

	var mu sync.Mutex
	rows := map[string]*tally{}
	slots := make(chan struct{}, parallel)
	var work sync.WaitGroup
	base := t.TempDir()
	begun := time.Now()
	for i, j := range jobs {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			content := random(*seed+uint64(i), j.size)
			dir := filepath.Join(base, fmt.Sprint(i))
			n := newNetwork(t, dir, 512*kib, timeout/2, j.hop, j.f)
			defer os.RemoveAll(dir)
			defer n.stop()
			push := func() (time.Duration, error) {
				src := memory{"f", content}
				begun := time.Now()
				_, err := client.Push(t.Context(), src, client.Options{Host: n.proxies[0].addr(), ChunkSize: 32 * kib, Timeout: timeout})
				return time.Since(begun), err
			}
			took, err := push()
			good := 0
			for _, d := range n.dirs {
				for _, name := range visible(t, d) {
					b, rerr := os.ReadFile(filepath.Join(d, name))
					if name != "f" || rerr != nil || !bytes.Equal(b, content) {
						t.Errorf("%s, %v: %d wrong bytes published as %q (%v)", j.row, j.f, len(b), name, rerr)
						continue
					}
					good++
				}
			}
			if err == nil && good != 2 {
				t.Errorf("%s, %v: success with %d of 2 files", j.row, j.f, good)
			}
			var partial *client.PartialError
			if errors.As(err, &partial) {
				t.Errorf("%s, %v: %v under all", j.row, j.f, err)
			}
			if took > 4*timeout+10*time.Second {
				t.Errorf("%s, %v: ended after %v", j.row, j.f, took)
			}
			hit := n.proxies[j.hop].hit()

			mu.Lock()
			defer mu.Unlock()
			r := rows[j.row]
			if r == nil {
				r = &tally{errors: map[string]int{}}
				rows[j.row] = r
			}
			r.pushes++
			switch {
			case err != nil:
				r.failed++
				r.errors[fmt.Sprintf("%s: %s", protocol.AsError(err).Code, err)]++
			case hit:
				r.healed++
			default:
				r.untroubled++
			}
			if hit {
				r.hit++
			}
			if took > 2*time.Second {
				r.late++
			}
			if err != nil && !hit {
				t.Errorf("%s: %v without a fault", j.row, err)
			}
		})
	}
	work.Wait()
	var table strings.Builder
	fmt.Fprintf(&table, "seed %d, %d pushes of 1 to 2 MiB in %v, timeout %v\n", *seed, len(jobs), time.Since(begun).Round(time.Second), timeout)
	fmt.Fprintf(&table, "%-30s %6s %9s %10s %6s %6s %8s\n", "fault", "pushes", "happened", "no trouble", "healed", "failed", "over 2 s")
	for _, what := range []string{"cut, ", "flip, "} {
		for _, name := range hops {
			r := rows[what+name]
			fmt.Fprintf(&table, "%-30s %6d %9d %10d %6d %6d %8d\n", what+name, r.pushes, r.hit, r.untroubled, r.healed, r.failed, r.late)
			for text, n := range r.errors {
				fmt.Fprintf(&table, "    %d x %s\n", n, text)
			}
		}
	}
	t.Log(table.String())
}
