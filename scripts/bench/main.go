//go:build linux

// Command bench measures sbcast against other ways to send one file to many
// readers, side by side on this machine: a bare loop over TCP, which is the
// limit for programs that touch the bytes once in user space, mbuffer, and
// piping-server.
//
// Every contender is a set of real processes (a client, a relay, N readers)
// that talk over loopback. Machines are noisy, so the contenders take turns:
// each round runs all of them, each time in another order, and what is
// reported of a ratio is the median of the ratios within each round. A run
// that fails, or in which a reader does not get every byte, fails the bench.
//
//	main.go          flags, rounds
//	contenders.go    who runs, and with which commands
//	bare.go          the processes of the bare loop
//	measure.go       one run: what is timed and counted
//	process.go       starting, awaiting and stopping processes
//	space.go         the source file, and how large it may be
//	stats.go         medians and ratios
//	scale.go         another bench: up to 1,000 readers
//	scale_pushes.go  and up to 1,000 pushes at once
//	load.go          what else the machine did
//	netns.go         a network with another congestion control
//	report.go        the tables, as text and Markdown
//	svg.go           the picture
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if hidden := hiddenCommand(os.Args); hidden != nil {
		if err := hidden(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench", os.Args[1]+":", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do, args := run, os.Args[1:]
	if len(args) > 0 && args[0] == scaleCommand {
		do, args = scale, args[1:]
	}
	switch err := do(ctx, args, os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	rounds    int
	size      int64
	readers   []int
	kinds     []kind
	only      []string // contenders; empty: all that there are
	dir       string   // where source and work files are
	timeout   time.Duration
	sbcast    string // path of the binary; empty: built
	compare   string // path of another one; empty: none
	pushFlags []string
	markdown  string
	svg       string
	keep      bool
	cc        string // congestion control; empty: the system's
}

func parseFlags(args []string, stderr io.Writer) (config, error) {
	c := config{readers: []int{1, 2, 4, 8}, kinds: []kind{discard, dir}, size: 1 << 30}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&c.rounds, "rounds", 5, "how often each contender runs")
	f.Func("size", "`SIZE` of the source file: 512M, 1G, ... (default 1G)", func(s string) (err error) {
		c.size, err = parseSize(s)
		return err
	})
	f.Func("readers", "numbers of readers, with commas (default 1,2,4,8)", func(s string) error {
		c.readers = nil
		for field := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(field)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is not a number of readers", field)
			}
			c.readers = append(c.readers, n)
		}
		return nil
	})
	f.Func("kinds", "what readers do, with commas: discard, dir (default both)", func(s string) error {
		c.kinds = nil
		for field := range strings.SplitSeq(s, ",") {
			if k := kind(field); k != discard && k != dir {
				return fmt.Errorf("%q is neither discard nor dir", field)
			}
			c.kinds = append(c.kinds, kind(field))
		}
		return nil
	})
	f.Func("only", "contenders, with commas: sbcast, sbcast-old, bare, mbuffer, piping-server (default all that are there)", func(s string) error {
		c.only = strings.Split(s, ",")
		return nil
	})
	f.StringVar(&c.dir, "dir", defaultDir(), "where source and work files are made; a tmpfs, so that no disk is measured")
	f.DurationVar(&c.timeout, "timeout", 5*time.Minute, "how long one run may take")
	f.StringVar(&c.sbcast, "sbcast", "", "`PATH` of the sbcast binary (default: built for this)")
	f.StringVar(&c.compare, "compare", "", "`PATH` of another sbcast binary, which runs too, as sbcast-old")
	f.Func("push-flags", "further `FLAGS` of sbcast push, with spaces", func(s string) error {
		c.pushFlags = strings.Fields(s)
		return nil
	})
	f.StringVar(&c.markdown, "markdown", "", "`FILE` to write the tables to, as Markdown")
	f.StringVar(&c.svg, "svg", "", "`FILE` to write the picture to")
	f.StringVar(&c.cc, "congestion", "", "congestion control of all contenders, for root: cubic, bbr, ... (default the system's)")
	f.BoolVar(&c.keep, "keep", false, "keep the source and work files")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case c.rounds < 1:
		return c, errors.New("-rounds: want at least 1")
	case c.svg != "" && len(c.only) > 0 && !slices.Contains(c.only, bareName):
		return c, errors.New("-svg shows ratios to the bare loop: -only has to name bare")
	}
	return c, nil
}

// hiddenCommand is what makes this program one of the processes that it starts;
// nil without.
func hiddenCommand(args []string) func([]string) error {
	if len(args) < 2 {
		return nil
	}
	return map[string]func([]string) error{bareCommand: bare, clientsCommand: clients}[args[1]]
}

// run is main without the exit.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	c, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	if done, err := useCongestion(ctx, c.cc, args); done || err != nil {
		return err
	}
	work, err := os.MkdirTemp(c.dir, "sbcast-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if c.keep {
			fmt.Fprintln(stderr, "bench: kept", work)
			return
		}
		err = errors.Join(err, os.RemoveAll(work))
	}()
	all, skipped, err := contenders(ctx, c, work)
	if err != nil {
		return err
	}
	for _, s := range skipped {
		fmt.Fprintln(stderr, "bench: SKIPPED", s)
	}
	sources, notes, err := makeSources(c, work)
	if err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(stderr, "bench:", note)
	}
	before := readCPUTimes()
	results, err := measureAll(ctx, c, all, sources, work, stderr)
	if err != nil {
		return err
	}
	rep := newReport(c, all, sources, results)
	rep.notes = append([]string{readCPUTimes().since(before)}, notes...)
	for _, s := range skipped {
		rep.notes = append(rep.notes, "Skipped "+s)
	}
	rep.command = commandLine(args)
	rep.text(stdout)
	if c.markdown != "" {
		if err := writeFile(c.markdown, rep.markdown); err != nil {
			return err
		}
	}
	if c.svg != "" {
		return writeFile(c.svg, rep.svg)
	}
	return nil
}

// measureAll runs all contenders in all rounds. In each round they run in
// another order, so that none is always the first or always behind the same.
func measureAll(ctx context.Context, c config, all []contender, sources map[kind]source, work string, stderr io.Writer) (results, error) {
	res := results{}
	for round := range c.rounds {
		for _, k := range c.kinds {
			for at, n := range c.readers {
				for i := range all {
					who := all[(i+round+at)%len(all)]
					j := job{source: sources[k], kind: k, readers: n, out: filepath.Join(work, "out")}
					s, err := measure(ctx, c.timeout, who, j)
					if err != nil {
						return nil, fmt.Errorf("%s, %s, %d readers, round %d: %w", who.name, k, n, round+1, err)
					}
					key := cell{k, n, who.name}
					res[key] = append(res[key], s)
					fmt.Fprintf(stderr, "round %d/%d  %-7s  %d readers  %-13s  %5.2f GB/s\n", round+1, c.rounds, k, n, who.name, s.rate(j.size))
				}
			}
		}
	}
	return res, nil
}

// commandLine is how this program was called. What `go run` calls has a name
// that nobody typed.
func commandLine(args []string) string {
	name := os.Args[0]
	if strings.Contains(name, "go-build") {
		name = "go run ./scripts/bench"
	}
	words := []string{name}
	for _, a := range args {
		if strings.ContainsAny(a, " \t'\"") {
			a = strconv.Quote(a)
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

func writeFile(path string, write func(io.Writer)) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	var b strings.Builder
	write(&b)
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
