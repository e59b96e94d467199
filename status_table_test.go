package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sbcast/sbcast/protocol"
)

// What peers are called does nothing to the terminal, and from the second
// round on the rate is that since the first.
func TestStatusTable(t *testing.T) {
	table := newTable("host:7000")
	now := time.Now()
	round := func(offset int64) string {
		now = now.Add(2 * time.Second)
		return table.render([]*protocol.Status{{
			Agent: "x\x1b[2J", Sink: "fanout", Running: 3, Transfers: []protocol.TransferStatus{{
				ID: "1", Name: "a\nb", Size: -1, Offset: offset, Phase: "receiving", Rate: 5 << 20, Bottleneck: "sink of r1", Held: 3.21,
				Readers: []protocol.HopStatus{{Reader: "r1", State: "receiving", Offset: offset, Lag: 1 << 20, Spent: protocol.Spent{Credit: 2}, Busy: 1.5, Bottleneck: "sink"}},
			}},
		}, {Node: "r1", Error: "gone\x07"}}, now)
	}
	first := round(0)
	assert.NotContains(t, first, "\x1b")
	assert.NotContains(t, first, "\x07")
	assert.Regexp(t, `(?m)^  a b +receiving +0 B of \? +5.0 MiB/s .*held up by sink of r1, 3.2s$`, first)
	assert.Regexp(t, `(?m)^    r1 +receiving +0 B +0 B/s +1.0 MiB behind +sink: credit 2.0s \(storing 1.5s\)$`, first)
	assert.Regexp(t, `(?m)^  and 2 more$`, first)
	assert.Regexp(t, `(?m)^r1 +unreachable +gone\?$`, first)
	assert.Regexp(t, `(?m)^  a b .* 1.0 MiB/s `, round(2<<20))
}

func TestFitScreen(t *testing.T) {
	lines := fitScreen("one\n"+strings.Repeat("x", 100)+"\nthree\nfour\n", 10, 3)
	assert.Equal(t, []string{"one", "xxxxxxxxx", "... and 2"}, lines)
	assert.Equal(t, []string{"a", "b"}, fitScreen("a\nb\n", 80, 24))
}
