//go:build linux

// One run of one contender: what is timed and what is counted.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// kind is what readers do with the content.
type kind string

const (
	discard kind = "discard"
	dir     kind = "dir" // write it to a file
)

// job is what a contender has to do.
type job struct {
	source
	kind    kind
	readers int
	out     string // an empty directory for the readers' files
}

// file is where reader i writes to.
func (j job) file(i int) string { return filepath.Join(j.out, fmt.Sprintf("r%d", i+1)) }

// usage is what a process has cost over its whole life.
type usage struct {
	cpu      float64 // seconds, user and system
	peak     float64 // bytes of resident memory
	switches float64 // of context, voluntary or not
}

// sample is one run. A reader's usage is the mean over all of them, and the
// largest peak.
type sample struct {
	seconds               float64
	client, relay, reader usage
}

// rate is in GB/s (10^9 bytes) of content, which each of the readers gets.
func (s sample) rate(size int64) float64 { return float64(size) / s.seconds / 1e9 }

// measure runs who once. The clock runs from the start of the client until it
// has ended and every reader has everything: readers that end by themselves
// have ended by then, too; sbcast's client ends when it has all receipts.
func measure(ctx context.Context, timeout time.Duration, who contender, j job) (s sample, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done in %v", timeout))
	defer cancel()
	if err := os.Mkdir(j.out, 0o755); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(j.out)) }()
	c := newCast(ctx)
	defer c.end()

	argv, err := who.stage(c, j)
	if err != nil {
		return s, err
	}
	begun := time.Now()
	if c.client, err = c.start("client", false, argv...); err != nil {
		return s, err
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { defer close(stopped); c.watchPeaks(stop) }()
	finish := append([]*process{c.client}, oneShots(c.readers)...)
	err = c.wait(finish...)
	s.seconds = time.Since(begun).Seconds()
	close(stop)
	<-stopped
	if err != nil {
		return s, err
	}

	c.notePeaks()
	if err := c.wait(oneShots([]*process{c.relay})...); err != nil {
		return s, err
	}
	if err := c.stop(); err != nil {
		return s, err
	}
	if err := who.check(c, j); err != nil {
		return s, err
	}
	s.client, s.relay = c.client.usage(), c.relay.usage()
	for _, r := range c.readers {
		u := r.usage()
		s.reader.cpu += u.cpu / float64(len(c.readers))
		s.reader.switches += u.switches / float64(len(c.readers))
		s.reader.peak = max(s.reader.peak, u.peak)
	}
	return s, nil
}

func oneShots(ps []*process) (some []*process) {
	for _, p := range ps {
		if !p.daemon {
			some = append(some, p)
		}
	}
	return some
}

// usage is that of a process that has ended.
func (p *process) usage() usage {
	ru := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	u := usage{
		cpu:      (p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Seconds(),
		peak:     float64(p.peak.Load()),
		switches: float64(ru.Nvcsw + ru.Nivcsw),
	}
	if u.peak == 0 {
		u.peak = float64(ru.Maxrss) * 1024
	}
	return u
}

// checkFiles demands that each reader has written a file of the right size.
func checkFiles(j job, path func(i int) string) error {
	if j.kind != dir {
		return nil
	}
	for i := range j.readers {
		st, err := os.Stat(path(i))
		if err != nil {
			return err
		}
		if st.Size() != j.size {
			return fmt.Errorf("reader %d wrote %d bytes of %d", i+1, st.Size(), j.size)
		}
	}
	return nil
}
