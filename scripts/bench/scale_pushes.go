//go:build linux

// Scale: many pushes at once, each over a connection of its own, or by one
// client.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

// clientsCommand is the hidden command that makes this program many clients. A
// thousand processes would take two cores from the broadcaster, and then take
// it for dead.
const clientsCommand = "clients"

// clients pushes FILE N times at once to HOST: clients N HOST FILE. Each push has
// a connection of its own, and gets content when the standard input ends.
func clients(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: bench clients N HOST FILE")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	content, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	gate := make(chan struct{})
	go func() {
		defer close(gate)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	ends := make(chan error, n)
	for i := range n {
		go func() { ends <- pushAfter(gate, args[1], content, i) }()
	}
	for range n {
		if err := <-ends; err != nil {
			return err // which ends the process
		}
	}
	return nil
}

// pushAfter pushes content when gate is closed.
func pushAfter(gate <-chan struct{}, host string, content []byte, i int) error {
	c, err := client.New(host, protocol.SessionConfig{Agent: "bench"})
	if err != nil {
		return err
	}
	defer c.Close()
	src := client.Stream(gated{gate, bytes.NewReader(content)}, fmt.Sprintf("f%d", i))
	receipts, err := c.Push(context.Background(), src, client.Options{Host: host})
	if err != nil {
		return fmt.Errorf("push %d: %w", i, err)
	}
	for _, r := range receipts {
		if r.Status != protocol.LeafPublished || r.Bytes != int64(len(content)) {
			return fmt.Errorf("push %d: want %d bytes published, have %+v", i, len(content), r)
		}
	}
	if len(receipts) != scaleFed {
		return fmt.Errorf("push %d: %d receipts of %d", i, len(receipts), scaleFed)
	}
	return nil
}

// gated is content that waits for a gate.
type gated struct {
	gate <-chan struct{}
	io.Reader
}

func (g gated) Read(p []byte) (int, error) {
	<-g.gate
	return g.Reader.Read(p)
}

// manyClients lets n clients push. They get content when all of them are
// connected, so that n pushes are under way at once.
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
	self, err := os.Executable()
	if err != nil {
		return row, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return row, err
	}
	defer w.Close()
	before := c.relay.cpuTime()
	p, err := c.startFrom(r, "clients", false, self, clientsCommand, strconv.Itoa(n), host, src.path)
	r.Close()
	if err != nil {
		return row, err
	}
	if err := c.awaitTCP(number, tcpEstablished, n); err != nil {
		return row, err
	}
	if err := c.settle(c.relay); err != nil {
		return row, err
	}
	open := vmRSS(c.relay.cmd.Process.Pid)
	begun := time.Now()
	w.Close()
	err = c.wait(p)
	return scaled{size: scalePush, out: scaleFed * float64(n) * scalePush, seconds: time.Since(begun).Seconds(), cpu: c.relay.cpuTime() - before, open: float64(open)}, err
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
	p, err := c.start("client", false, s.sbcast, "push", "--json", "--parallel", strconv.Itoa(min(n, 1000)), "--files-from", from, host)
	if err != nil {
		return row, err
	}
	if err := c.wait(p); err != nil {
		return row, err
	}
	row = scaled{size: scalePush, out: scaleFed * float64(n) * scalePush, seconds: time.Since(begun).Seconds(), cpu: c.relay.cpuTime() - before}
	if got := strings.Count(p.stdout.String(), `"status":"published"`); got < n {
		return row, fmt.Errorf("%d results of %d: %s", got, n, p.stdout.tail())
	}
	return row, nil
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
