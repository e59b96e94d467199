// The crash harness: real processes, killed -9 at random, again and again.

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/stretchr/testify/require"
)

var (
	crashKills = flag.Int("crash.kills", 20, "how many processes TestCrash kills")
	crashSeed  = flag.Uint64("crash.seed", 0, "seed of TestCrash; 0: a random one, which is printed")
)

const (
	crashReaders = 3
	crashWindow  = 1 << 20 // of the daemons: small, so that little is sent again
	crashRate    = 48 << 20
	crashWait    = time.Minute // for a push to end, kills included
)

// TestCrash pushes files through a broadcaster to three readers, kills one of
// the processes, or two at once, when a random part of a file has been taken,
// starts it again, and demands the exact bytes and a receipt from every reader.
func TestCrash(t *testing.T) {
	c := newCrash(t)
	for n := 1; c.total() < *crashKills; n++ {
		c.push(n)
	}
	t.Log(c.table())
	allowed := int64(c.total()) * (crashWindow + 1<<20 + 2*256<<10) // window, journal step, chunks cut in two
	require.LessOrEqual(t, c.again, allowed, "more was sent again than windows and journal steps hold")
	require.NotZero(t, c.resumed, "no receipt says that it resumed")
}

// crash is a system of processes and what happened to it.
type crash struct {
	*testing.T
	rng     *rand.Rand
	seed    uint64
	dir     string
	bin     string
	daemons map[string]*victim
	roles   []string
	sources []string
	host    string

	kills   map[string]int
	pushes  int
	resumed int
	bytes   int64 // of content
	again   int64 // sent more than once
	begun   time.Time
}

// victim is a daemon that is killed and started again on the same address.
type victim struct {
	args []string
	cmd  *exec.Cmd
}

func newCrash(t *testing.T) *crash {
	c := &crash{T: t, seed: *crashSeed, dir: crashDir(t), daemons: map[string]*victim{}, kills: map[string]int{}, begun: time.Now()}
	if c.seed == 0 {
		c.seed = rand.Uint64()
	}
	t.Logf("seed %d: repeat with -crash.seed=%d", c.seed, c.seed)
	c.rng = rand.New(rand.NewPCG(c.seed, 1))

	self, err := os.Executable()
	require.NoError(t, err)
	c.bin = filepath.Join(c.dir, "sbcast") // the name makes the test binary be sbcast
	require.NoError(t, os.Symlink(self, c.bin))
	for i := range 3 {
		content := make([]byte, 6<<20+c.rng.IntN(20<<20))
		for j := 0; j < len(content); j += 8 {
			copy(content[j:], fmt.Appendf(nil, "%08x", c.rng.Uint32()))
		}
		path := filepath.Join(c.dir, fmt.Sprintf("source-%d", i))
		require.NoError(t, os.WriteFile(path, content, 0o644))
		c.sources = append(c.sources, path)
	}

	broadcaster := []string{"broadcaster", "-q", "--listen", freeAddress(t), "--window", "1M"}
	for i := range crashReaders {
		name, addr := fmt.Sprintf("reader-%d", i+1), freeAddress(t)
		c.start(name, "reader", "-q", "--listen", addr, "--window", "1M", "--sink", "dir:"+filepath.Join(c.dir, name))
		broadcaster = append(broadcaster, "--reader", name+"="+addr)
	}
	c.host = broadcaster[3]
	c.start("broadcaster", broadcaster...)
	c.roles = []string{"client", "broadcaster", "reader-1", "reader-2", "reader-3"}
	t.Cleanup(func() {
		for _, v := range c.daemons {
			v.cmd.Process.Kill()
			v.cmd.Wait()
		}
	})
	return c
}

// freeAddress is an address that a daemon can have again after it was killed.
func freeAddress(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

func (c *crash) start(name string, args ...string) {
	log, err := os.OpenFile(filepath.Join(c.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(c, err)
	defer log.Close()
	cmd := exec.Command(c.bin, args...)
	cmd.Stderr = log
	require.NoError(c, cmd.Start())
	c.daemons[name] = &victim{args, cmd}
}

// kill kills a daemon and starts it again, at once or a little later.
func (c *crash) kill(name string) {
	v := c.daemons[name]
	v.cmd.Process.Kill()
	v.cmd.Wait()
	time.Sleep(time.Duration(c.rng.IntN(100)) * time.Millisecond)
	c.start(name, v.args...)
}

// strike is a plan to kill roles when so many bytes have been taken.
type strike struct {
	at    int64
	roles []string
}

func (c *crash) plan(size int64) []strike {
	var all []strike
	for range 1 + c.rng.IntN(3) {
		s := strike{at: c.rng.Int64N(size), roles: []string{c.roles[c.rng.IntN(len(c.roles))]}}
		if second := c.roles[c.rng.IntN(len(c.roles))]; c.rng.IntN(5) == 0 && second != s.roles[0] {
			s.roles = append(s.roles, second)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b strike) int { return int(a.at - b.at) })
	return all
}

// push pushes one file, with everything that is planned to happen to it.
func (c *crash) push(n int) {
	source := c.sources[c.rng.IntN(len(c.sources))]
	content, err := os.ReadFile(source)
	require.NoError(c, err)
	name := fmt.Sprintf("file-%d", n)
	strikes := c.plan(int64(len(content)))
	var sent int64
	deadline := time.Now().Add(crashWait)
	for {
		require.True(c, time.Now().Before(deadline), "push %d of seed %d takes too long", n, c.seed)
		result, ran, rest := c.run(source, name, strikes)
		strikes = rest
		sent += ran
		if result == nil {
			continue // the client was killed: the user runs the same command again
		}
		require.Zero(c, result.Exit, "push %d of seed %d: %s", n, c.seed, result.Error)
		require.Len(c, result.Readers, crashReaders)
		for _, r := range result.Readers {
			require.Contains(c, []string{"published", "unchanged"}, r.Status, "push %d of seed %d, %s: %s", n, c.seed, r.Reader, r.Error)
			if r.ResumedFrom > 0 {
				c.resumed++
			}
		}
		break
	}
	for i := range crashReaders {
		dir := filepath.Join(c.dir, fmt.Sprintf("reader-%d", i+1))
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(c, err)
		require.True(c, bytes.Equal(content, got), "push %d of seed %d: wrong bytes at reader %d", n, c.seed, i+1)
		parts, err := filepath.Glob(filepath.Join(dir, "*.part"))
		require.NoError(c, err)
		require.Empty(c, parts, "push %d of seed %d left a part", n, c.seed)
		require.NoError(c, os.Remove(filepath.Join(dir, name)))
	}
	c.pushes++
	c.bytes += int64(len(content))
	c.again += max(0, sent-int64(len(content)))
}

// run runs the client once, strikes when it is time, and returns its result,
// or nil when it was killed; how much it sent; and the strikes that are left.
func (c *crash) run(source, name string, strikes []strike) (*jsonResult, int64, []strike) {
	cmd := exec.Command(c.bin, "push", source, c.host, "--name", name, "--json", "--timeout", "30", "-C", "none", "--bwlimit", fmt.Sprint(crashRate))
	stdout, err := cmd.StdoutPipe()
	require.NoError(c, err)
	cmd.Stderr = os.Stderr
	require.NoError(c, cmd.Start())
	defer cmd.Wait()
	var sent int64
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			return nil, sent, strikes
		}
		require.NoError(c, err)
		var event jsonProgress
		require.NoError(c, json.Unmarshal(line, &event))
		switch event.Type {
		case "result":
			var r jsonResult
			require.NoError(c, json.Unmarshal(line, &r))
			return &r, sent, strikes
		case "progress":
			sent = event.Sent
			if len(strikes) == 0 || event.Bytes < strikes[0].at {
				continue
			}
			time.Sleep(time.Duration(c.rng.IntN(60)) * time.Millisecond) // between two reports
			for _, role := range strikes[0].roles {
				c.kills[strings.TrimRight(role, "-0123456789")]++
				if role == "client" {
					cmd.Process.Kill()
				} else {
					c.kill(role)
				}
			}
			strikes = strikes[1:]
		}
	}
}

func (c *crash) total() int {
	n := 0
	for _, k := range c.kills {
		n += k
	}
	return n
}

// table is what happened, as Markdown.
func (c *crash) table() string {
	var b strings.Builder
	row := func(what string, value any) { fmt.Fprintf(&b, "| %s | %v |\n", what, value) }
	fmt.Fprintf(&b, "\n| | |\n|---|---|\n")
	row("seed", c.seed)
	for _, role := range []string{"client", "broadcaster", "reader"} {
		row("kill -9 of the "+role, c.kills[role])
	}
	row("pushes, each to 3 readers", c.pushes)
	row("content pushed", humanize.IBytes(uint64(c.bytes)))
	row("receipts that resumed", c.resumed)
	row("content sent again", fmt.Sprintf("%s, %s for each kill", humanize.IBytes(uint64(c.again)), humanize.IBytes(uint64(c.again)/uint64(c.total()))))
	row("wrong bytes", 0) // the first one ends the run
	row("took", time.Since(c.begun).Round(time.Second))
	return b.String()
}

// crashDir is kept when the test fails: the parts, the journals and the logs
// say what happened.
func crashDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "sbcast-crash-") //nolint:usetesting // it outlives a test that fails
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("what was left is in", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}
