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
	"time"
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
		if clients, err = s.run(ctx, stderr, "pushes over as many connections", clients, n, s.manyClients); err != nil {
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
	pushesTable(&b, fmt.Sprintf("Pushes at once, each over a connection of its own, to %d readers", scaleFed), clients)
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
