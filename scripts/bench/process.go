//go:build linux

// Starting, awaiting and stopping the processes of one run, and reading from
// /proc what they do.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	stopWait  = 10 * time.Second       // for a daemon that was told to stop
	pollEvery = 5 * time.Millisecond   // while processes start
	peakEvery = 100 * time.Millisecond // while they run
)

// process is a child of ours.
type process struct {
	role    string
	daemon  bool // ends when it is told to, not by itself
	cmd     *exec.Cmd
	stdout  output
	stderr  output
	stopped atomic.Bool  // it was told to
	peak    atomic.Int64 // of its resident memory, in bytes, as far as it was seen
	done    chan struct{}
}

// cast is the processes of one run. The first that fails ends them all, and
// why it did is the cause of ctx.
type cast struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	client  *process
	relay   *process
	readers []*process
	all     []*process
}

func newCast(ctx context.Context) *cast {
	c := &cast{}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// end kills what is left, and returns when it is gone.
func (c *cast) end() {
	c.cancel(nil)
	for _, p := range c.all {
		<-p.done
	}
}

// err is why the run has failed, if it has.
func (c *cast) err() error { return context.Cause(c.ctx) }

func (c *cast) start(role string, daemon bool, argv ...string) (*process, error) {
	return c.startFrom(nil, role, daemon, argv...)
}

// startFrom starts a process with stdin, or without any.
func (c *cast) startFrom(stdin *os.File, role string, daemon bool, argv ...string) (*process, error) {
	p := &process{role: role, daemon: daemon, cmd: exec.CommandContext(c.ctx, argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Env = environ()
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if stdin != nil {
		p.cmd.Stdin = stdin
	}
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	c.all = append(c.all, p)
	go func() {
		defer close(p.done)
		err := p.cmd.Wait()
		if p.stopped.Load() {
			return
		}
		if err == nil && daemon {
			err = errors.New("ended before it was told to")
		}
		if err != nil {
			c.cancel(fmt.Errorf("%s (%s): %w: %s", role, filepath.Base(argv[0]), err, p.stderr.tail()))
		}
	}()
	return p, nil
}

// environ is ours without what would change how sbcast works.
func environ() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "BROADCASTER_") && !strings.HasPrefix(v, "READER_") {
			env = append(env, v)
		}
	}
	return env
}

// wait waits for the end of processes that end by themselves.
func (c *cast) wait(ps ...*process) error {
	for _, p := range ps {
		select {
		case <-p.done:
		case <-c.ctx.Done():
		}
	}
	return c.err()
}

// stop tells the daemons to end, and waits until they have.
func (c *cast) stop() error {
	for _, p := range c.all {
		if p.daemon {
			p.stopped.Store(true)
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // one that has ended has said why
		}
	}
	late := time.After(stopWait)
	for _, p := range c.all {
		select {
		case <-p.done:
		case <-c.ctx.Done():
		case <-late:
			return fmt.Errorf("%s did not end in %v", p.role, stopWait)
		}
	}
	return c.err()
}

var listeningOn = regexp.MustCompile(`listening on ([^\s,]+)[,\s]`)

// address is where p says, on standard error, that it listens.
func (c *cast) address(p *process) (addr string, err error) {
	err = c.poll(p.role+" to say where it listens", func() (bool, error) {
		m := listeningOn.FindStringSubmatch(p.stderr.String())
		if m != nil {
			addr = m[1]
		}
		return m != nil, nil
	})
	return addr, err
}

// States of /proc/net/tcp.
const (
	tcpEstablished = "01"
	tcpListen      = "0A"
)

// awaitTCP waits until count sockets with the local port are in state. To
// connect would tell whether there is a listener too, but some programs take
// one connection only.
func (c *cast) awaitTCP(port int, state string, count int) error {
	return c.poll(fmt.Sprintf("port %d to be ready", port), func() (bool, error) {
		n := 0
		for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			b, err := os.ReadFile(name)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return false, err
			}
			n += countSockets(string(b), port, state)
		}
		return n >= count, nil
	})
}

func countSockets(table string, port int, state string) (n int) {
	local := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[1], local) && f[3] == state {
			n++
		}
	}
	return n
}

// startWait bounds the start of all that a run needs.
const startWait = 20 * time.Second

func (c *cast) poll(what string, ready func() (bool, error)) error {
	late := time.After(startWait)
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		select {
		case <-c.ctx.Done():
			return c.err()
		case <-late:
			return fmt.Errorf("waited %v for %s", startWait, what)
		case <-time.After(pollEvery):
		}
	}
}

// freePorts are n that nobody listens on. They are all taken at once, so that
// they differ.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// watchPeaks notes the peak memory of all processes now and then until stop is
// closed. What wait(2) says of a child's peak begins with the peak of its
// parent, which here is larger than some of the children.
func (c *cast) watchPeaks(stop <-chan struct{}) {
	for {
		c.notePeaks()
		select {
		case <-stop:
			return
		case <-time.After(peakEvery):
		}
	}
}

func (c *cast) notePeaks() {
	for _, p := range c.all {
		select {
		case <-p.done: // the number may be another's by now
		default:
			if n := vmHWM(p.cmd.Process.Pid); n > 0 {
				p.peak.Store(n)
			}
		}
	}
}

// vmHWM is the peak of a process's resident memory in bytes, or 0 where there
// is none to be read, because it has ended.
func vmHWM(pid int) int64 { return statusBytes(pid, "VmHWM") }

// vmRSS is the same now.
func vmRSS(pid int) int64 { return statusBytes(pid, "VmRSS") }

func statusBytes(pid int, name string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	return procField(string(b), name) << 10
}

// procField is the number of a line "NAME: NUMBER ..." or 0.
func procField(text, name string) int64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseInt(f[0], 10, 64)
				return n
			}
		}
	}
	return 0
}

// output is what a process has written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// tail is the end of it, on one line.
func (o *output) tail() string {
	s := strings.Join(strings.Fields(o.String()), " ")
	return s[max(0, len(s)-300):]
}

// settle waits until p has nothing to do.
func (c *cast) settle(p *process) error {
	before := p.cpuTime()
	next := time.Now().Add(settleFor)
	return c.poll(p.role+" to come to rest", func() (bool, error) {
		if time.Now().Before(next) {
			return false, nil
		}
		now := p.cpuTime()
		still := now-before < settleFor.Seconds()/20
		before, next = now, time.Now().Add(settleFor)
		return still, nil
	})
}

// settleFor is how long a process without work is watched to believe it.
const settleFor = 200 * time.Millisecond

// cpuTime is the CPU time that p has used so far, in seconds, from the clock
// that every process has: /proc counts in hundredths of a second.
func (p *process) cpuTime() float64 {
	const sched = 2
	var ts syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(^p.cmd.Process.Pid<<3|sched), uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		return 0
	}
	return float64(ts.Nano()) / 1e9
}
