//go:build linux

// The tables, as text and as Markdown.

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// report is what the bench has found.
type report struct {
	rounds     int
	readers    []int
	kinds      []kind
	contenders []contender
	sources    map[kind]source
	tmpfs      bool
	results    results
	notes      []string // what else the machine did, what was skipped or made smaller
	command    string
}

func newReport(c config, all []contender, sources map[kind]source, res results) *report {
	return &report{
		rounds: c.rounds, readers: c.readers, kinds: c.kinds, contenders: all,
		sources: sources, tmpfs: isTmpfs(c.dir), results: res,
	}
}

// title is what readers do in runs of k.
func (r *report) title(k kind) string {
	switch {
	case k == discard:
		return "readers that discard"
	case r.tmpfs:
		return "readers that write a file, on a tmpfs"
	default:
		return "readers that write a file"
	}
}

func (r *report) has(name string) bool {
	return slices.ContainsFunc(r.contenders, func(c contender) bool { return c.name == name })
}

// baselines are those to compare with, as far as they ran.
func (r *report) baselines() (names []string) {
	for _, name := range []string{bareName, mbufferName} {
		if r.has(name) {
			names = append(names, name)
		}
	}
	return names
}

// table has a header and a row for each number of readers and contender.
func (r *report) table(k kind) [][]string {
	head := []string{"readers", "contender", "GB/s"}
	for _, base := range r.baselines() {
		head = append(head, "of "+base)
	}
	rows := [][]string{append(head, "client s/GiB", "relay s/GiB", "reader s/GiB", "relay MiB", "relay csw/GiB", "reader csw/GiB")}
	gib := float64(r.sources[k].size) / (1 << 30)
	for _, n := range r.readers {
		for _, c := range r.contenders {
			rows = append(rows, r.row(cell{k, n, c.name}, gib))
		}
	}
	return rows
}

func (r *report) row(at cell, gib float64) []string {
	samples := r.results[at]
	number := func(format string, what func(sample) float64) string {
		return fmt.Sprintf(format, medianOf(samples, what))
	}
	row := []string{
		strconv.Itoa(at.readers), at.name,
		number("%.2f", func(s sample) float64 { return s.rate(r.sources[at.kind].size) }),
	}
	for _, base := range r.baselines() {
		ratio, ok := r.results.ratio(at, cell{at.kind, at.readers, base})
		switch {
		case base == at.name:
			row = append(row, "1")
		case !ok:
			row = append(row, "-")
		default:
			row = append(row, ratio.String())
		}
	}
	return append(row,
		number("%.2f", func(s sample) float64 { return s.client.cpu / gib }),
		number("%.2f", func(s sample) float64 { return s.relay.cpu / gib }),
		number("%.2f", func(s sample) float64 { return s.reader.cpu / gib }),
		number("%.0f", func(s sample) float64 { return s.relay.peak / mib }),
		number("%.0f", func(s sample) float64 { return s.relay.switches / gib }),
		number("%.0f", func(s sample) float64 { return s.reader.switches / gib }),
	)
}

// legend says what the columns are.
func (r *report) legend() []string {
	return []string{
		fmt.Sprintf("Medians of %d rounds, in each of which all contenders ran, in turns. Ratios are of the throughput, taken within a round: median (least-most).", r.rounds),
		"GB/s: 10^9 bytes of content a second, which every reader gets, from the start of the client until it has ended and all readers have everything.",
		"s/GiB: CPU seconds, user and system, for a GiB of content, over the whole life of the process; csw/GiB: its context switches. reader: the mean of the readers.",
		"relay MiB: its peak resident memory.",
	}
}

func (r *report) text(w io.Writer) {
	for _, k := range r.kinds {
		fmt.Fprintf(w, "%s, %s:\n\n", r.title(k), formatSize(r.sources[k].size))
		rows := r.table(k)
		width := widths(rows)
		for i, row := range rows {
			if i > 1 && row[0] != rows[i-1][0] {
				fmt.Fprintln(w)
			}
			var line strings.Builder
			for col, s := range row {
				line.WriteString(pad(s, width[col], col == 1) + "  ")
			}
			fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
		}
		fmt.Fprintln(w)
	}
	for _, line := range append(r.legend(), r.notes...) {
		fmt.Fprintln(w, line)
	}
}

func widths(rows [][]string) []int {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for col, s := range row {
			width[col] = max(width[col], utf8.RuneCountInString(s))
		}
	}
	return width
}

func pad(s string, width int, left bool) string {
	space := strings.Repeat(" ", width-utf8.RuneCountInString(s))
	if left {
		return s + space
	}
	return space + s
}

func (r *report) markdown(w io.Writer) {
	fmt.Fprint(w, "# Performance figures\n\n")
	fmt.Fprintf(w, "Made by `%s` on %s.\n\n", r.command, machine())
	for _, line := range append(r.legend(), r.notes...) {
		fmt.Fprintf(w, "* %s\n", line)
	}
	for _, k := range r.kinds {
		title := r.title(k)
		fmt.Fprintf(w, "\n## %s%s, %s\n\n", strings.ToUpper(title[:1]), title[1:], formatSize(r.sources[k].size))
		rows := r.table(k)
		width := widths(rows)
		for i, row := range rows {
			for col, s := range row {
				fmt.Fprintf(w, "| %s ", pad(s, width[col], col == 1))
			}
			fmt.Fprintln(w, "|")
			if i == 0 {
				for col, n := range width {
					if col == 1 {
						fmt.Fprint(w, "|"+strings.Repeat("-", n+2))
					} else {
						fmt.Fprint(w, "|"+strings.Repeat("-", n+1)+":")
					}
				}
				fmt.Fprintln(w, "|")
			}
		}
	}
	fmt.Fprint(w, "\n## Contenders\n\nReader, relay and client, each a process of its own:\n\n")
	for _, c := range r.contenders {
		version := ""
		if c.version != "" && c.version != c.name {
			version = " (" + c.version + ")"
		}
		fmt.Fprintf(w, "* **%s**%s: %s\n", c.name, version, c.about)
	}
}

// machine is what the figures depend on most.
func machine() string {
	parts := []string{}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				parts = append(parts, strings.TrimSpace(value))
				break
			}
		}
	}
	parts = append(parts, fmt.Sprintf("%d cores", runtime.NumCPU()))
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		parts = append(parts, "Linux "+strings.TrimSpace(string(b)))
	}
	return strings.Join(append(parts, runtime.Version()+" "+runtime.GOARCH, "TCP with "+congestion()), ", ")
}
