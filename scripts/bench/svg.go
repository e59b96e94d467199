//go:build linux

// The picture: throughput relative to the bare loop, a panel for each kind, a
// group of bars for each number of readers. It has its own background, so that
// it can be read on any page, and a dark dress for those who prefer one.

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// Sizes in pixels.
const (
	svgWidth    = 800
	svgLeft     = 64  // of the plots
	svgRight    = 20  // beside them
	svgHead     = 84  // title and legend
	svgPanel    = 290 // of which
	svgAbove    = 46  // over a plot is its title
	svgBelow    = 50  // and under it the names of the groups
	svgBarMost  = 34
	svgBarSpace = 5
	svgFoot     = 30
)

// colours are light, dark.
var colours = map[string][2]string{
	sbcastName:  {"#2563eb", "#4c8dff"},
	oldName:     {"#93b4f5", "#2f4f8f"},
	mbufferName: {"#d9822b", "#e3994f"},
	pipingName:  {"#8a94a3", "#7d8896"},
}

const svgStyle = `
text { font: 12px -apple-system, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; fill: #1f2328 }
.page { fill: #ffffff; stroke: #d1d9e0 } .title { font-size: 17px; font-weight: 600 } .panel { font-size: 14px; font-weight: 600 }
.soft { fill: #59636e } .value { font-size: 11px; stroke: #ffffff; stroke-width: 3px; paint-order: stroke } .grid { stroke: #e6eaef } .axis { stroke: #818b98 }
.limit { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 6 4 } .range { stroke: #1f2328; stroke-opacity: .55 }
`

// prefersDark is CSS, which is not spelt as we do.
const prefersDark = "@media (prefers-color-scheme: dark)" //nolint:misspell // CSS

const svgDark = `
text { fill: #e6edf3 } .page { fill: #0d1117; stroke: #30363d } .soft { fill: #9198a1 } .grid { stroke: #21262d } .axis { stroke: #6e7681 }
.limit { stroke: #ff7b72 } .value { stroke: #0d1117 } .range { stroke: #e6edf3 }
`

func (r *report) svg(w io.Writer) {
	height := svgHead + svgPanel*len(r.kinds) + svgFoot
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="throughput relative to a bare TCP loop">`+"\n",
		svgWidth, height, svgWidth, height)
	var light, dark strings.Builder
	for _, name := range order {
		if c, ok := colours[name]; ok {
			fmt.Fprintf(&light, ".%s { fill: %s } ", name, c[0])
			fmt.Fprintf(&dark, ".%s { fill: %s } ", name, c[1])
		}
	}
	fmt.Fprintf(w, "<style>%s%s\n%s {%s%s\n}\n</style>\n", svgStyle, light.String(), prefersDark, svgDark, dark.String())
	fmt.Fprintf(w, `<rect class="page" x="0.5" y="0.5" width="%d" height="%d" rx="6"/>`+"\n", svgWidth-1, height-1)
	svgText(w, 24, 32, "title", "start", "Throughput of each reader, relative to a bare TCP loop")
	r.svgLegend(w)
	for i, k := range r.kinds {
		r.svgPanel(w, k, svgHead+svgPanel*i)
	}
	svgText(w, 24, height-14, "soft", "start", fmt.Sprintf("Medians of %d rounds; thin lines: least to most. %s.", r.rounds, machine()))
	fmt.Fprintln(w, "</svg>")
}

func (r *report) svgLegend(w io.Writer) {
	x := 24
	for _, name := range r.bars() {
		fmt.Fprintf(w, `<rect class="%s" x="%d" y="50" width="12" height="12" rx="2"/>`+"\n", name, x)
		svgText(w, x+18, 60, "", "start", name)
		x += 18 + 7*len(name) + 20
	}
	fmt.Fprintf(w, `<line class="limit" x1="%d" y1="56" x2="%d" y2="56"/>`+"\n", x, x+24)
	svgText(w, x+30, 60, "", "start", "bare loop: reads and writes, nothing else")
}

// bars are all contenders but the one that they are compared with.
func (r *report) bars() (names []string) {
	for _, c := range r.contenders {
		if c.name != bareName {
			names = append(names, c.name)
		}
	}
	return names
}

// svgPanel draws one kind, from top down.
func (r *report) svgPanel(w io.Writer, k kind, top int) {
	svgText(w, 24, top+22, "panel", "start", strings.ToUpper(r.title(k)[:1])+r.title(k)[1:]+", "+formatSize(r.sources[k].size))
	most := r.svgMost(k)
	y0, y1 := float64(top+svgPanel-svgBelow), float64(top+svgAbove)
	y := func(v float64) float64 { return y0 - v/most*(y0-y1) }
	for v := 0.0; v <= most; v += 0.25 {
		class := "grid"
		if v == 0 {
			class = "axis"
		}
		fmt.Fprintf(w, `<line class="%s" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`+"\n", class, svgLeft, y(v), svgWidth-svgRight, y(v))
		svgText(w, svgLeft-8, int(y(v))+4, "soft", "end", fmt.Sprintf("%.2f", v))
	}
	group := float64(svgWidth-svgLeft-svgRight) / float64(len(r.readers))
	names := r.bars()
	bar := min(svgBarMost, (group-30)/float64(max(1, len(names)))-svgBarSpace)
	var values strings.Builder // over everything else
	for g, n := range r.readers {
		mid := svgLeft + group*(float64(g)+0.5)
		x := mid - (bar+svgBarSpace)*float64(len(names))/2 + svgBarSpace/2
		for _, name := range names {
			s, _ := r.results.ratio(cell{k, n, name}, cell{k, n, bareName})
			fmt.Fprintf(w, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2"><title>%s, %d readers: %s</title></rect>`+"\n",
				name, x, y(s.median), bar, y0-y(s.median), name, n, s)
			if r.rounds > 1 {
				fmt.Fprintf(w, `<line class="range" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", x+bar/2, y(s.least), x+bar/2, y(s.most))
			}
			svgText(&values, int(x+bar/2), int(y(max(s.median, s.most)))-5, "value", "middle", fmt.Sprintf("%.2f", s.median))
			x += bar + svgBarSpace
		}
		label := fmt.Sprintf("%d readers", n)
		if n == 1 {
			label = "1 reader"
		}
		rate := medianOf(r.results[cell{k, n, bareName}], func(s sample) float64 { return s.rate(r.sources[k].size) })
		svgText(w, int(mid), int(y0)+18, "", "middle", label)
		svgText(w, int(mid), int(y0)+34, "soft", "middle", fmt.Sprintf("bare loop %.2f GB/s", rate))
	}
	fmt.Fprintf(w, `<line class="limit" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`+"\n", svgLeft, y(1), svgWidth-svgRight, y(1))
	_, _ = io.WriteString(w, values.String())
}

// svgMost is the end of the axis: the bare loop, or what exceeds it.
func (r *report) svgMost(k kind) float64 {
	most := 1.0
	for _, n := range r.readers {
		for _, name := range r.bars() {
			s, _ := r.results.ratio(cell{k, n, name}, cell{k, n, bareName})
			most = max(most, s.most)
		}
	}
	return math.Ceil(most*4) / 4
}

func svgText(w io.Writer, x, y int, class, anchor, text string) {
	fmt.Fprintf(w, `<text x="%d" y="%d"`, x, y)
	if class != "" {
		fmt.Fprintf(w, ` class="%s"`, class)
	}
	if anchor != "start" {
		fmt.Fprintf(w, ` text-anchor="%s"`, anchor)
	}
	fmt.Fprint(w, ">")
	_ = xml.EscapeText(w, []byte(text))
	fmt.Fprintln(w, "</text>")
}
