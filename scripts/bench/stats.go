//go:build linux

// Medians and ratios.

package main

import (
	"fmt"
	"slices"
)

// cell is where the samples of all rounds belong.
type cell struct {
	kind    kind
	readers int
	name    string
}

// results has a sample for each round, in order.
type results map[cell][]sample

// median is the middle of the values, or the mean of the two middle ones.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	if n == 0 {
		return 0
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}

// medianOf is the median of something of the samples.
func medianOf(samples []sample, what func(sample) float64) float64 {
	var v []float64
	for _, s := range samples {
		v = append(v, what(s))
	}
	return median(v)
}

// spread is a median and the extremes around it.
type spread struct{ median, least, most float64 }

func (s spread) String() string {
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.median, s.least, s.most)
}

// ratio compares the throughput of who with that of base, round by round: what
// slows both down in a round does not show. ok is false where one of them did
// not run.
func (r results) ratio(who, base cell) (s spread, ok bool) {
	a, b := r[who], r[base]
	if len(a) == 0 || len(a) != len(b) {
		return spread{}, false
	}
	var ratios []float64
	for i := range a {
		ratios = append(ratios, b[i].seconds/a[i].seconds)
	}
	return spread{median(ratios), slices.Min(ratios), slices.Max(ratios)}, true
}
