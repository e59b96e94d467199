//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain makes the test binary one of the processes that it starts, as main
// does.
func TestMain(m *testing.M) {
	if hidden := hiddenCommand(os.Args); hidden != nil {
		if err := hidden(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestBench(t *testing.T) {
	work := t.TempDir()
	markdown, svg := filepath.Join(work, "docs", "bench.md"), filepath.Join(work, "bench.svg")
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), []string{
		"-size", "8M", "-rounds", "1", "-readers", "1,2", "-only", "sbcast,bare", "-dir", work, "-markdown", markdown, "-svg", svg,
	}, &stdout, &stderr)
	require.NoError(t, err, "%s", &stderr)

	left, err := filepath.Glob(filepath.Join(work, "sbcast-bench-*"))
	require.NoError(t, err)
	assert.Empty(t, left, "work files")

	want := [][]string{{"1", "bare"}, {"1", "sbcast"}, {"2", "bare"}, {"2", "sbcast"}}
	var rows [][]string
	for line := range strings.Lines(stdout.String()) {
		if f := strings.Fields(line); len(f) > 3 && (f[1] == "bare" || f[1] == "sbcast") {
			rows = append(rows, f[:2])
		}
	}
	assert.Equal(t, append(want, want...), rows, "two tables:\n%s", &stdout)

	md, err := os.ReadFile(markdown)
	require.NoError(t, err)
	for _, want := range []string{"\n## Readers that discard, 8 MiB\n", "\n## Readers that write a file", "| contender |", "| sbcast ", "-size 8M"} {
		assert.Contains(t, string(md), want)
	}

	picture, err := os.ReadFile(svg)
	require.NoError(t, err)
	bars := 0
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, "%s", picture)
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "title" {
			bars++
		}
	}
	assert.Equal(t, 4, bars, "sbcast, for two numbers of readers, twice")
}

func TestScale(t *testing.T) {
	work := t.TempDir()
	binary, markdown := filepath.Join(work, "sbcast"), filepath.Join(work, "scale.md")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/sbcast/sbcast").CombinedOutput()
	require.NoError(t, err, "%s", out)
	var stdout, stderr bytes.Buffer
	err = scale(t.Context(), []string{
		"-out", "16M", "-readers", "1,3", "-pushes", "1,3", "-sbcast", binary, "-dir", work, "-markdown", markdown,
	}, &stdout, &stderr)
	require.NoError(t, err, "%s", &stderr)
	left, err := filepath.Glob(filepath.Join(work, "sbcast-scale-*"))
	require.NoError(t, err)
	assert.Empty(t, left, "work files")
	md, err := os.ReadFile(markdown)
	require.NoError(t, err)
	assert.Equal(t, stdout.String(), string(md))
	for _, want := range []string{"\n| 3 | 16 MiB |", "\n## Pushes at once, each over a connection of its own, to 2 readers\n", "\n## Files of one push, to 2 readers\n", "\nPer extra reader: ", "\nPer extra push: ", "-pushes 1,3"} {
		assert.Contains(t, string(md), want)
	}
	assert.Equal(t, 2, strings.Count(string(md), "\n| 3 | 1 MiB |"), "pushes, and files")
}

func TestSlope(t *testing.T) {
	y := func(r scaled) float64 { return r.cpu }
	assert.InDelta(t, 3, slope([]scaled{{n: 1, cpu: 8}, {n: 10, cpu: 35}, {n: 100, cpu: 305}}, y), 1e-9)
	assert.Zero(t, slope([]scaled{{n: 1, cpu: 8}}, y), "of one point")
	_, err := parseScaleFlags([]string{"-readers", "1,x"}, io.Discard)
	assert.Error(t, err)
	c, err := parseScaleFlags([]string{"-readers", "0", "-pushes", "5"}, io.Discard)
	require.NoError(t, err)
	assert.Empty(t, c.readers)
	assert.Equal(t, []int{5}, c.pushes)
}

func TestFailedRunFailsTheBench(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "sbcast")
	require.NoError(t, os.WriteFile(bad, []byte("#!/bin/sh\necho no such flag >&2\nexit 64\n"), 0o755))
	err := run(t.Context(), []string{"-size", "64K", "-only", "sbcast", "-sbcast", bad, "-dir", t.TempDir()}, io.Discard, io.Discard)
	require.ErrorContains(t, err, "sbcast, discard, 1 readers, round 1: reader 1 (sbcast): exit status 64: no such flag")
}

func TestRunThatHangsIsEnded(t *testing.T) {
	hang := contender{
		stage: func(c *cast, _ job) ([]string, error) { return []string{"sleep", "1000"}, nil },
		check: func(*cast, job) error { return nil },
	}
	_, err := measure(t.Context(), 50*time.Millisecond, hang, job{out: filepath.Join(t.TempDir(), "out")})
	require.ErrorContains(t, err, "not done in 50ms")
}

func TestShortContentFailsTheRun(t *testing.T) {
	j := job{source: source{size: 100}, kind: discard, readers: 1}
	require.NoError(t, checkReceipts(`{"type":"start"}`+"\n"+`{"type":"result","status":"published","readers":[{"status":"published","bytes":100}]}`+"\n", j))
	for _, out := range []string{
		``,
		`{"type":"progress"}`,
		`{"type":"result","status":"published","readers":[]}`,
		`{"type":"result","status":"unchanged","readers":[{"status":"unchanged","bytes":100}]}`,
		`{"type":"result","status":"published","readers":[{"status":"published","bytes":99}]}`,
	} {
		assert.Error(t, checkReceipts(out, j), out)
	}
	c := newCast(context.Background())
	c.readers = []*process{{role: "reader 1"}}
	count := func(n int64) func(*process) (int64, error) {
		return func(*process) (int64, error) { return n, nil }
	}
	assert.NoError(t, checkCounts(c, j, count(100), 0))
	assert.Error(t, checkCounts(c, j, count(99), 0))
	j.kind, j.out = dir, t.TempDir()
	require.NoError(t, os.WriteFile(j.file(0), make([]byte, 99), 0o644))
	assert.ErrorContains(t, checkCounts(c, j, count(100), 0), "reader 1 wrote 99 bytes of 100")
}

func TestMedian(t *testing.T) {
	assert.Zero(t, median(nil))
	assert.InDelta(t, 3, median([]float64{3}), 0)
	assert.InDelta(t, 2, median([]float64{9, 1, 2}), 0)
	assert.InDelta(t, 2.5, median([]float64{9, 1, 2, 3}), 0)
}

func TestRatioIsTakenWithinARound(t *testing.T) {
	slow, base := cell{discard, 1, "slow"}, cell{discard, 1, "base"}
	r := results{ // the second round had the machine to share
		base: {{seconds: 1}, {seconds: 10}, {seconds: 1}},
		slow: {{seconds: 2}, {seconds: 20}, {seconds: 4}},
	}
	s, ok := r.ratio(slow, base)
	require.True(t, ok)
	assert.Equal(t, spread{median: 0.5, least: 0.25, most: 0.5}, s)
	assert.Equal(t, "0.50 (0.25-0.50)", s.String())
	_, ok = r.ratio(slow, cell{discard, 2, "base"})
	assert.False(t, ok)
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		size, space  int64
		copies       int
		plain, filed int64
	}{
		{100 * mib, 1000 * mib, 8, 100 * mib, 100 * mib},
		{100 * mib, 900 * mib, 8, 100 * mib, 100 * mib},
		{100 * mib, 550 * mib, 8, 100 * mib, 50 * mib},
		{100 * mib, 100 * mib, 1, 50 * mib, 25 * mib},
		{100 * mib, 60 * mib, 0, 60 * mib, 0},
	} {
		plain, filed := fit(c.size, c.space, c.copies)
		assert.Equal(t, [2]int64{c.plain, c.filed}, [2]int64{plain, filed}, "%+v", c)
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]int64{"7": 7, "64K": 64 << 10, "512M": 512 << 20, "1GiB": 1 << 30} {
		n, err := parseSize(s)
		require.NoError(t, err, s)
		assert.Equal(t, want, n, s)
	}
	for _, s := range []string{"", "M", "0", "-1M", "1T", "1MB", "99999999999G"} {
		_, err := parseSize(s)
		assert.Error(t, err, s)
	}
	for s, want := range map[string]int64{
		"\rin @ 1 MiB/s\nsummary:  256 MiByte in  0.3sec - average of  750 MiB/s": 256 << 20,
		"summary: 1.5 GiByte in 1.0sec":                                           3 << 29,
		"summary: 12 Byte":                                                        12,
	} {
		n, err := mbufferSummary(s)
		require.NoError(t, err, s)
		assert.Equal(t, want, n, s)
	}
	table := "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 0\n   1: 0100007F:1F90 0100007F:8000 01 0\n   2: 0100007F:8000 0100007F:1F90 01 0\n"
	assert.Equal(t, 1, countSockets(table, 8080, tcpListen))
	assert.Equal(t, 1, countSockets(table, 8080, tcpEstablished))
	assert.Equal(t, cpuTimes{busy: 6, steal: 8, all: 36}, parseCPUTimes("cpu  100 200 300 400 500 600 700 800 0 0\ncpu0 1 2\n"))
	assert.Equal(t, int64(42), procField("Name:\tx\nVmHWM:\t  42 kB\n", "VmHWM"))
}
