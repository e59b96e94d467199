//go:build linux

// Scale: what one more reader, and one more push at the same time, cost the
// broadcaster.

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// scaleCommand is the subcommand that measures sbcast alone, against itself.
const scaleCommand = "scale"

const (
	// scaleLeast is the smallest content for many readers, two windows of it,
	// and scaleMost the largest.
	scaleLeast = 16 << 20
	scaleMost  = 1 << 30
	// scaleSmall is the content of the pushes that show what a reader costs
	// before any content does.
	scaleSmall = 4 << 10
	// scalePush is the content of each of many pushes at once.
	scalePush = 1 << 20
	// scaleFed is how many readers those pushes go to.
	scaleFed = 2
)

type scaleConfig struct {
	readers  []int
	pushes   []int
	out      int64 // bytes that the broadcaster sends in a run with readers, about
	dir      string
	timeout  time.Duration
	sbcast   string
	markdown string
}

func parseScaleFlags(args []string, stderr io.Writer) (scaleConfig, error) {
	c := scaleConfig{readers: []int{1, 10, 100, 1000}, pushes: []int{1, 10, 100, 1000}, out: 4 << 30}
	f := flag.NewFlagSet("bench "+scaleCommand, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Func("readers", "numbers of readers, with commas, 0 for none (default 1,10,100,1000)", numbers(&c.readers))
	f.Func("pushes", "numbers of pushes at once, with commas, 0 for none (default 1,10,100,1000)", numbers(&c.pushes))
	f.Func("out", "`SIZE` of what the broadcaster sends to all readers together, about, so that each run lasts (default 4G)", func(s string) (err error) {
		c.out, err = parseSize(s)
		return err
	})
	f.StringVar(&c.dir, "dir", defaultDir(), "where source files are made; a tmpfs, so that no disk is measured")
	f.DurationVar(&c.timeout, "timeout", 5*time.Minute, "how long one run may take")
	f.StringVar(&c.sbcast, "sbcast", "bin/sbcast", "`PATH` of the sbcast binary")
	f.StringVar(&c.markdown, "markdown", "", "`FILE` to write the tables to, as Markdown")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return c, nil
}

func numbers(list *[]int) func(string) error {
	return func(s string) error {
		*list = nil
		for field := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(field)
			if err != nil || n < 0 {
				return fmt.Errorf("%q is not a number", field)
			}
			if n > 0 {
				*list = append(*list, n)
			}
		}
		return nil
	}
}

// scaled is one run, as seen at the broadcaster.
type scaled struct {
	n       int
	size    int64   // content of each push
	out     float64 // bytes that the broadcaster sent, content only
	seconds float64
	cpu     float64 // seconds
	peak    float64 // bytes
	open    float64 // pushes: resident bytes when all were accepted and had no content; 0: not known

	dial, small float64 // readers: CPU seconds of the first small push, which dials them, and of the next
}

// scale is the subcommand.
func scale(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	c, err := parseScaleFlags(args, stderr)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(c.dir, "sbcast-scale-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	before := readCPUTimes()
	s := &scaler{scaleConfig: c, work: work}
	var readers, clients, files []scaled
	for _, n := range c.readers {
		if readers, err = s.run(ctx, stderr, "readers", readers, n, s.manyReaders); err != nil {
			return err
		}
	}
	for _, n := range c.pushes {
		if clients, err = s.run(ctx, stderr, "pushes by as many clients", clients, n, s.manyClients); err != nil {
			return err
		}
		if files, err = s.run(ctx, stderr, "files by one client", files, n, s.manyFiles); err != nil {
			return err
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Memory and scale\n\nMade by `%s` on %s.\n\n", commandLine(append([]string{scaleCommand}, args...)), machine())
	fmt.Fprintf(&b, "* GB/s out: 10^9 bytes of content a second that the broadcaster sent, to all readers together; CPU s/GiB out: its CPU seconds for a GiB of that; peak MiB: of its resident memory. One run each.\n")
	fmt.Fprintf(&b, "* %s\n", readCPUTimes().since(before))
	readersTable(&b, readers)
	pushesTable(&b, fmt.Sprintf("Pushes at once, each by a client of its own, to %d readers", scaleFed), clients)
	pushesTable(&b, fmt.Sprintf("Files of one push, to %d readers", scaleFed), files)
	if _, err := io.WriteString(stdout, b.String()); err != nil {
		return err
	}
	if c.markdown == "" {
		return nil
	}
	return writeFile(c.markdown, func(w io.Writer) { _, _ = io.WriteString(w, b.String()) })
}

// scaler runs sbcast with more and more to do.
type scaler struct {
	scaleConfig
	work string
}

func (s *scaler) run(ctx context.Context, stderr io.Writer, what string, all []scaled, n int, do func(c *cast, n int) (scaled, error)) ([]scaled, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("not done in %v", s.timeout))
	defer cancel()
	c := newCast(ctx)
	defer c.end()
	row, err := do(c, n)
	if err == nil {
		row.n = n
		row.peak = float64(vmHWM(c.relay.cmd.Process.Pid))
		err = c.stop()
	}
	if err != nil {
		return nil, fmt.Errorf("%d %s: %w", n, what, err)
	}
	fmt.Fprintf(stderr, "%d %s: %.2f s, %.2f GB/s out, %.2f CPU s, peak %.0f MiB\n", n, what, row.seconds, row.out/row.seconds/1e9, row.cpu, row.peak/mib)
	return append(all, row), nil
}

// stage starts n readers that discard, and a broadcaster to them.
func (s *scaler) stage(c *cast, n int) (host string, err error) {
	argv := []string{s.sbcast, "broadcaster", "-q", "--listen", "127.0.0.1:0"}
	for range n {
		if _, err := c.addReader(true, s.sbcast, "reader", "-q", "--listen", "127.0.0.1:0", "--sink", "discard:"); err != nil {
			return "", err
		}
	}
	for _, r := range c.readers {
		addr, err := c.address(r)
		if err != nil {
			return "", err
		}
		argv = append(argv, "--reader", addr)
	}
	if c.relay, err = c.start("broadcaster", true, argv...); err != nil {
		return "", err
	}
	return c.address(c.relay)
}

// source makes a file once for each size.
func (s *scaler) source(size int64) (source, error) {
	src := source{filepath.Join(s.work, fmt.Sprintf("source-%d", size)), size}
	if _, err := os.Stat(src.path); err == nil {
		return src, nil
	}
	return src, makeRandom(src)
}

// manyReaders pushes a small file twice and then a large one to n readers.
func (s *scaler) manyReaders(c *cast, n int) (row scaled, err error) {
	host, err := s.stage(c, n)
	if err != nil {
		return row, err
	}
	row.size = roundDown(min(max(s.out/int64(n), scaleLeast), scaleMost))
	row.out = float64(row.size) * float64(n)
	if row.dial, _, err = s.pushOnce(c, host, n, scaleSmall); err != nil {
		return row, err
	}
	if row.small, _, err = s.pushOnce(c, host, n, scaleSmall); err != nil {
		return row, err
	}
	row.cpu, row.seconds, err = s.pushOnce(c, host, n, row.size)
	return row, err
}

// pushOnce pushes a file of size and returns what that cost the broadcaster.
func (s *scaler) pushOnce(c *cast, host string, n int, size int64) (cpu, seconds float64, err error) {
	src, err := s.source(size)
	if err != nil {
		return 0, 0, err
	}
	before := c.relay.cpuTime()
	begun := time.Now()
	client, err := c.start("client", false, s.sbcast, "push", "--json", src.path, host)
	if err != nil {
		return 0, 0, err
	}
	if err := c.wait(client); err != nil {
		return 0, 0, err
	}
	seconds = time.Since(begun).Seconds()
	return c.relay.cpuTime() - before, seconds, checkReceipts(client.stdout.String(), job{source: src, readers: n})
}

// manyClients lets n clients push from their standard input. They get content
// when all of them are connected, so that n pushes are under way at once.
func (s *scaler) manyClients(c *cast, n int) (row scaled, err error) {
	host, err := s.stage(c, scaleFed)
	if err != nil {
		return row, err
	}
	_, port, _ := strings.Cut(host, ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		return row, err
	}
	src, err := s.source(scalePush)
	if err != nil {
		return row, err
	}
	content, err := os.ReadFile(src.path)
	if err != nil {
		return row, err
	}
	var clients []*process
	var inputs []*os.File
	defer func() {
		for _, in := range inputs {
			in.Close()
		}
	}()
	before := c.relay.cpuTime()
	for i := range n {
		r, w, err := os.Pipe()
		if err != nil {
			return row, err
		}
		inputs = append(inputs, w)
		p, err := c.startFrom(r, fmt.Sprintf("client %d", i+1), false, s.sbcast, "push", "--json", "--name", fmt.Sprintf("f%d", i), "-", host)
		r.Close()
		if err != nil {
			return row, err
		}
		clients = append(clients, p)
	}
	if err := c.awaitTCP(number, tcpEstablished, n); err != nil {
		return row, err
	}
	if err := c.settle(c.relay); err != nil {
		return row, err
	}
	open := vmRSS(c.relay.cmd.Process.Pid)
	begun := time.Now()
	for _, in := range inputs {
		go func() {
			_, _ = in.Write(content) // a client that has gone has said why
			in.Close()
		}()
	}
	if err := c.wait(clients...); err != nil {
		return row, err
	}
	row = scaled{size: scalePush, out: scaleFed * float64(n) * scalePush, seconds: time.Since(begun).Seconds(), cpu: c.relay.cpuTime() - before, open: float64(open)}
	for _, p := range clients {
		if err := checkReceipts(p.stdout.String(), job{source: src, readers: scaleFed}); err != nil {
			return row, err
		}
	}
	return row, nil
}

// manyFiles lets one client push n files.
func (s *scaler) manyFiles(c *cast, n int) (row scaled, err error) {
	host, err := s.stage(c, scaleFed)
	if err != nil {
		return row, err
	}
	src, err := s.source(scalePush)
	if err != nil {
		return row, err
	}
	var list strings.Builder
	for i := range n {
		path := filepath.Join(s.work, fmt.Sprintf("f%d", i))
		if err := os.Link(src.path, path); err != nil && !errors.Is(err, os.ErrExist) {
			return row, err
		}
		fmt.Fprintln(&list, path)
	}
	from := filepath.Join(s.work, "list")
	if err := os.WriteFile(from, []byte(list.String()), 0o600); err != nil {
		return row, err
	}
	before := c.relay.cpuTime()
	begun := time.Now()
	client, err := c.start("client", false, s.sbcast, "push", "--json", "--parallel", strconv.Itoa(min(n, 1000)), "--files-from", from, host)
	if err != nil {
		return row, err
	}
	if err := c.wait(client); err != nil {
		return row, err
	}
	row = scaled{size: scalePush, out: scaleFed * float64(n) * scalePush, seconds: time.Since(begun).Seconds(), cpu: c.relay.cpuTime() - before}
	if got := strings.Count(client.stdout.String(), `"status":"published"`); got < n {
		return row, fmt.Errorf("%d results of %d: %s", got, n, client.stdout.tail())
	}
	return row, nil
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

// vmRSS is a process's resident memory now, in bytes.
func vmRSS(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	return procField(string(b), "VmRSS") << 10
}

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

// slope is how much y grows for each x more, by least squares.
func slope(rows []scaled, y func(scaled) float64) float64 {
	var n, sx, sy, sxx, sxy float64
	for _, r := range rows {
		x, v := float64(r.n), y(r)
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+v, sxx+x*x, sxy+x*v
	}
	if d := n*sxx - sx*sx; d != 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}

func readersTable(w io.Writer, rows []scaled) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprint(w, "\n## Readers that discard\n\n")
	fmt.Fprint(w, "| readers | content | seconds | GB/s out | CPU s/GiB out | first push of 4 KiB, CPU ms a reader | next one | peak MiB |\n")
	fmt.Fprint(w, "|--------:|--------:|--------:|---------:|--------------:|----:|----:|---------:|\n")
	for _, r := range rows {
		fmt.Fprintf(w, "| %d | %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.0f |\n", r.n, formatSize(r.size), r.seconds, r.out/r.seconds/1e9,
			r.cpu/r.out*(1<<30), 1e3*r.dial/float64(r.n), 1e3*r.small/float64(r.n), r.peak/mib)
	}
	fmt.Fprintf(w, "\nPer extra reader: %.0f KiB resident, %.2f ms CPU to connect and push 4 KiB, %.2f ms for each push after it.\n",
		slope(rows, func(r scaled) float64 { return r.peak })/1024,
		1e3*slope(rows, func(r scaled) float64 { return r.dial }),
		1e3*slope(rows, func(r scaled) float64 { return r.small }))
}

func pushesTable(w io.Writer, title string, rows []scaled) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## %s\n\n", title)
	fmt.Fprint(w, "| pushes | content | seconds | GB/s out | CPU s/GiB out | CPU ms a push | MiB before content | peak MiB |\n")
	fmt.Fprint(w, "|-------:|--------:|--------:|---------:|--------------:|--------------:|-------------------:|---------:|\n")
	for _, r := range rows {
		open := "-"
		if r.open > 0 {
			open = fmt.Sprintf("%.0f", r.open/mib)
		}
		fmt.Fprintf(w, "| %d | %s | %.2f | %.2f | %.2f | %.2f | %s | %.0f |\n", r.n, formatSize(r.size), r.seconds, r.out/r.seconds/1e9,
			r.cpu/r.out*(1<<30), 1e3*r.cpu/float64(r.n), open, r.peak/mib)
	}
	idle := ""
	if rows[0].open > 0 {
		idle = fmt.Sprintf("%.0f KiB resident before it has content, ", slope(rows, func(r scaled) float64 { return r.open })/1024)
	}
	fmt.Fprintf(w, "\nPer extra push: %s%.0f KiB at most, %.2f ms CPU.\n", idle,
		slope(rows, func(r scaled) float64 { return r.peak })/1024,
		1e3*slope(rows, func(r scaled) float64 { return r.cpu }))
}
