// Adaptive compression: which of raw and LZ4 gets the content out faster.

package client

import (
	"slices"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

const (
	worth    = 0.9 // compressed to more than this, content is not worth the work
	better   = 1.1 // LZ4 must beat raw by this: figures of equal rates differ by as much
	hopeful  = 2.0 // the compressors' speed over the rate of raw that makes LZ4 worth a trial
	hopeless = 0.4 // of the other mode's rate: a slice of a trial that does less ends early
	busy     = 0.8 // the compressors, for this part of the time: they may hold the push up

	probeShare = 256                    // of what is to be sent: on a slow link it costs one percent
	probeFast  = 256 << 20              // bytes a second: as fast as one good compressor
	probeWait  = 10 * time.Millisecond  // for its acks: on loopback they take 1 to 5
	probePoll  = 100 * time.Microsecond // between looks for them

	sampleBytes = 64 << 10               // as far as LZ4 looks back: 0.2 ms of compressing
	sampleEvery = 100 * time.Millisecond // at most, and
	sampleShare = 200                    // times as long as a sample takes

	sliceLeast = 20 * time.Millisecond // to measure a rate that is far from the other, or the only one
	sliceTime  = 50 * time.Millisecond // to measure one that is near
	sliceMost  = time.Second           // then a little content is enough

	pauseRaw   = 2 * time.Second // until LZ4 is tried again; doubled while that changes nothing
	pauseLZ4   = time.Second / 2 // until raw is, which costs less where it is tried
	pauseMost  = time.Minute
	pauseShare = 30 // a pause is at least so many times as long as the trial before it
)

// governor decides for each chunk whether to compress it. In auto it goes by
// what it measures, in slices of time:
//
//	rate    content bytes a second that are acknowledged, in each of the modes
//	ratio   compressed to content bytes, from samples or from what was sent
//	speed   content bytes a second that one compressor does
//	held    the link, or a reader, holds the push up: half a window is sent and
//	        not acknowledged, or what is grows by a fifth of what is sent
//
// The rates decide. The rest says whether finding out is worth it:
//
//	start      a few chunks go raw, as a probe. If that is not fast, LZ4, where
//	           a sample shrinks: a slow link would pay for every raw byte in
//	           the window
//	LZ4->raw   at once when content does not shrink any more; as a trial when
//	           nothing but the compressors may hold the push up
//	raw->LZ4   as a trial, when the push is held, content shrinks, and the
//	           compressors together are twice as fast as raw
//	trial      what is in flight passes, then the best of three slices wins,
//	           raw if in doubt. The next trial comes later and later
//
// It has no clock of its own and is not safe for concurrent use.
type governor struct {
	auto    bool
	workers float64

	mode    mode
	window  int64
	opening bool  // the first window of an attempt: nothing is decided yet
	probe   int64 // offset up to which chunks go raw first; 0: that is over, or not worth it
	probed  slice // of it: when and where it began
	begun   int64 // offset where it began
	end     int64 // offset of what was sent
	settle  int64 // offset to be acknowledged before the mode can be measured
	slice   slice

	rates   [2]rates
	ratio   float64
	speed   float64
	sampled time.Time // after which to sample again

	trial  bool
	wins   [2]int    // slices of the trial
	tried  time.Time // when it began
	next   time.Time // trial, at the earliest
	pause  time.Duration
	failed float64 // rate of raw when LZ4 was tried last and was no better
}

type mode int

const (
	modeRaw mode = 0
	modeLZ4 mode = 1
)

// passed is a chunk that Send has taken, and what happened since the one before.
type passed struct {
	content, wire int64
	end, acked    int64         // offsets
	busy          time.Duration // a worker, with it
	idle          time.Duration // waiting for the source or for leave to send
}

// slice adds up what passed in a stretch of time.
type slice struct {
	begun                 time.Time
	acked                 int64 // offset, when it began
	chunks                int64
	content, wire, flight int64
	busy, idle            time.Duration
}

func newGovernor(c protocol.Compression, workers int) *governor {
	g := &governor{auto: c == protocol.CompressAuto, workers: float64(workers), ratio: 1}
	if c == protocol.CompressLZ4 {
		g.mode = modeLZ4
	}
	return g
}

// start begins an attempt, with content from offset on: rest bytes, negative
// when that is not known.
func (g *governor) start(now time.Time, window, offset, rest int64) {
	g.window, g.begun, g.end, g.settle = window, offset, offset, offset
	g.opening, g.trial = true, false
	g.probe = 0
	if first := min(rest/probeShare, window/2); g.mode == modeRaw && first >= DefaultChunkSize {
		g.probe = offset + first
	}
	g.slice = slice{begun: now, acked: offset}
}

// compress reports whether to compress the next chunk.
func (g *governor) compress() bool { return g.mode == modeLZ4 }

// due reports whether to sample the next chunk, if it would go raw: every one
// of the opening after the probe, then ten a second at most.
func (g *governor) due(now time.Time) bool {
	switch {
	case !g.auto || g.mode == modeLZ4:
		return false
	case g.opening:
		return g.end >= g.probe
	}
	return now.After(g.sampled)
}

// sample notes that n bytes of content were compressed to size.
func (g *governor) sample(now time.Time, n, size int, took time.Duration) {
	g.sampled = now.Add(max(sampleEvery, sampleShare*took))
	g.ratio, g.speed = float64(size)/float64(n), perSecond(int64(n), took)
	if g.opening && g.ratio <= worth {
		g.turn(modeLZ4)
	}
}

// sent notes a chunk that was sent.
func (g *governor) sent(now time.Time, p passed) {
	if !g.auto {
		return
	}
	g.end = p.end
	if g.opening {
		g.open(now, p)
		return
	}
	if p.acked < g.settle {
		g.slice = slice{begun: now, acked: p.acked}
		return
	}
	s := &g.slice
	s.chunks++
	s.content += p.content
	s.wire += p.wire
	s.flight += p.end - p.acked
	s.busy += p.busy
	s.idle += p.idle
	took, acked := now.Sub(s.begun), p.acked-s.acked
	rate, other := perSecond(acked, took-s.idle), g.rates[1-g.mode].median()
	switch {
	case g.trial && took >= sliceLeast && rate < hopeless*other:
	case took >= sliceLeast && acked >= g.window/4 && other == 0:
	case took >= sliceTime && acked >= g.window/4:
	case took >= sliceMost && acked >= g.window/16:
	default:
		return
	}
	held := s.flight/s.chunks >= g.window/2 || s.content-acked >= s.content/5
	g.rates[g.mode].add(rate)
	if g.mode == modeLZ4 {
		g.ratio = float64(s.wire) / float64(s.content)
	}
	use := s.busy.Seconds() / (took.Seconds() * g.workers)
	g.decide(now, rate, held, use)
	g.slice = slice{begun: now, acked: p.acked}
}

// probing looks for the acks of the probe. When the link was fast, it goes on to
// half a window, for a link may let a little pass faster than the rest, and then
// ends the opening. It reports whether to look again in a moment, before anything
// is compressed: a link that is not fast has enough to do with the probe.
func (g *governor) probing(now time.Time, acked int64) bool {
	if !g.auto || g.probe == 0 || g.end < g.probe {
		return false
	}
	took := now.Sub(g.probed.begun)
	if acked < g.probe {
		return g.opening && took < probeWait
	}
	rate := perSecond(acked-g.probed.acked, took)
	g.probed = slice{begun: now, acked: acked}
	switch half := g.begun + g.window/2; {
	case rate < probeFast: // that was a trial of raw
		g.probe = 0
		g.rates[modeRaw].add(rate)
		g.pause, g.next = pauseLZ4, now.Add(pauseLZ4)
	case g.probe < half:
		g.probe = half
	default:
		g.probe, g.opening = 0, false
		g.slice = g.probed
		g.turn(modeRaw)
	}
	return false
}

// open ends the opening: as soon as acks show that the link keeps up with the
// compressors, or at the end of the window.
func (g *governor) open(now time.Time, p passed) {
	content, acked := p.end-g.begun, p.acked-g.begun
	if content <= p.content {
		g.slice.begun = now // the source may have taken its time
		g.probed = g.slice
	}
	keepsUp := content >= g.window/4 && acked >= content/4*3
	if !keepsUp && content < g.window {
		return
	}
	rate := perSecond(acked, now.Sub(g.slice.begun))
	g.opening = false
	g.slice = slice{begun: now, acked: p.acked}
	if g.mode == modeLZ4 && keepsUp && g.probe == 0 && !now.Before(g.next) {
		g.rates[modeLZ4].add(rate)
		g.try(now)
	}
}

// decide goes by a slice that has ended.
func (g *governor) decide(now time.Time, rate float64, held bool, use float64) {
	shrinks := g.ratio <= worth
	raw := g.rates[modeRaw].median()
	switch {
	case g.mode == modeLZ4 && !shrinks:
		g.trial = false
		g.turn(modeRaw)
	case g.trial:
		g.judge(now, rate)
	case g.mode == modeLZ4 && (!held || use > busy) && !now.Before(g.next):
		g.try(now)
	case g.mode == modeRaw && held && shrinks && g.speed*g.workers >= hopeful*raw &&
		(!now.Before(g.next) || raw < g.failed/2):
		g.try(now)
	}
}

// try begins a trial of the other mode.
func (g *governor) try(now time.Time) {
	g.trial, g.tried, g.wins, g.probe = true, now, [2]int{}, 0
	g.turn(1 - g.mode)
	g.rates[g.mode] = rates{}
}

// judge counts a slice of a trial. The second that a mode wins decides.
func (g *governor) judge(now time.Time, rate float64) {
	other := g.rates[1-g.mode].median()
	winner := modeRaw
	if g.mode == modeLZ4 && rate > better*other || g.mode == modeRaw && other > better*rate {
		winner = modeLZ4
	}
	if g.wins[winner]++; g.wins[winner] < 2 {
		return
	}
	least := pauseRaw
	g.failed = g.rates[modeRaw].median()
	if winner == modeLZ4 {
		least, g.failed = pauseLZ4, 0
	}
	if winner == g.mode { // a change
		g.pause = least
	} else {
		g.pause = min(max(2*g.pause, least), pauseMost)
	}
	g.next = now.Add(max(g.pause, pauseShare*now.Sub(g.tried)))
	g.trial = false
	g.turn(winner)
}

// turn changes the mode. What is in flight then is still of the other.
func (g *governor) turn(m mode) {
	if g.mode != m {
		g.mode, g.settle = m, g.end
	}
}

// rates are the last few rates of a mode, 0 for none.
type rates [5]float64

func (r *rates) add(rate float64) {
	copy(r[1:], r[:])
	r[0] = rate
}

// median is what noise, which is rare and large, does not move.
func (r *rates) median() float64 {
	all := *r
	slices.Sort(all[:])
	known := all[:]
	for len(known) > 0 && known[0] == 0 {
		known = known[1:]
	}
	if len(known) == 0 {
		return 0
	}
	return known[len(known)/2]
}

func perSecond(n int64, d time.Duration) float64 {
	return float64(n) / max(d.Seconds(), 1e-9)
}
