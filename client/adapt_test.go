// Tests of the governor in fake time: a model of a push, in which nothing
// takes time but what it says.

package client

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sbcast/sbcast/protocol"
)

const (
	mb = 1e6
	gb = 1e9
)

// world is a sender and its link. Rates are bytes a second.
type world struct {
	link    func(at time.Duration) float64 // wire bytes
	ratio   func(offset int64) float64     // that LZ4 gets
	speed   float64                        // of one compressor
	raw     float64                        // of the sender without compressors
	delay   time.Duration                  // of an ack
	noise   float64                        // of the link: a part of the time at a tenth of its rate
	size    int64
	workers int

	turns []turn // what the governor did
}

type turn struct {
	at  time.Duration
	lz4 bool
}

type simAck struct {
	at  time.Duration
	end int64
}

// push returns how long a push takes.
func (w *world) push(mode protocol.Compression) time.Duration {
	const chunk, window = DefaultChunkSize, protocol.DefaultWindow
	epoch := time.Unix(1e9, 0)
	g := newGovernor(mode, w.workers)
	g.start(epoch, window, 0, w.size)
	rng := rand.New(rand.NewPCG(1, 2))
	var now, delivered time.Duration // of the sender; of the last byte
	var acks []simAck
	var acked int64
	w.turns = nil
	seconds := func(n, rate float64) time.Duration { return time.Duration(n / rate * 1e9) }
	for offset := int64(0); offset < w.size; {
		for g.probing(epoch.Add(now), acked) {
			now += probePoll
			for len(acks) > 0 && acks[0].at <= now {
				acked, acks = acks[0].end, acks[1:]
			}
		}
		ratio := w.ratio(offset)
		if g.due(epoch.Add(now)) {
			took := seconds(sampleBytes, w.speed)
			now += took
			g.sample(epoch.Add(now), sampleBytes, int(ratio*sampleBytes), took)
		}
		p := passed{content: chunk, wire: chunk}
		if lz4 := g.compress(); lz4 {
			p.wire = int64(ratio * chunk)
			p.busy = seconds(chunk, w.speed)
			if ratio > 0.95 { // given up
				p.wire, p.busy = chunk, seconds(chunk, 50*gb)
			}
			now += p.busy / time.Duration(w.workers)
		} else {
			now += seconds(chunk, w.raw)
		}
		if len(w.turns) == 0 || w.turns[len(w.turns)-1].lz4 != g.compress() {
			w.turns = append(w.turns, turn{now, g.compress()})
		}
		offset += chunk
		for offset-acked > window || len(acks) > 0 && acks[0].at <= now { // Send waits
			now, acked = max(now, acks[0].at), acks[0].end
			acks = acks[1:]
		}
		rate := w.link(max(now, delivered))
		if rng.Float64() < w.noise {
			rate /= 10
		}
		delivered = max(now, delivered) + seconds(float64(p.wire), rate)
		acks = append(acks, simAck{delivered + w.delay, offset})
		p.end, p.acked = offset, acked
		g.sent(epoch.Add(now), p)
	}
	return acks[len(acks)-1].at
}

func constant[T any](rate float64) func(T) float64 { return func(T) float64 { return rate } }

// after is one value before at, and another from then on.
func after[T ~int64](before float64, at T, then float64) func(T) float64 {
	return func(x T) float64 {
		if x < at {
			return before
		}
		return then
	}
}

// two cores, log lines
func modelled() *world {
	return &world{
		link: constant[time.Duration](gb), ratio: constant[int64](0.3),
		speed: 0.3 * gb, raw: 2 * gb, delay: time.Millisecond, size: 1 << 30, workers: 2,
	}
}

// Auto takes hardly longer than the better one of none and lz4 that does not know beforehand.
func TestAutoIsAsFastAsTheBetterMode(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world)
		most   float64 // times what the better mode takes
		lz4    bool    // which is that
	}{
		"loopback, text":                 {func(*world) {}, 1.01, false},
		"loopback, a quarter of a GiB":   {func(w *world) { w.size = 256 << 20 }, 1.02, false},
		"loopback, noise":                {func(w *world) { w.ratio = constant[int64](1) }, 1.01, false},
		"loopback, hardly compressible":  {func(w *world) { w.ratio = constant[int64](0.92) }, 1.05, false},
		"loopback, zeros":                {func(w *world) { w.ratio, w.speed = constant[int64](0.01), 4*gb }, 1.35, true}, // of 0.13 s
		"loopback, much noise in time":   {func(w *world) { w.noise = 0.05 }, 1.05, false},
		"10 MB/s, text":                  {func(w *world) { w.link = constant[time.Duration](10 * mb) }, 1.01, true},
		"10 MB/s, noise":                 {func(w *world) { w.link, w.ratio = constant[time.Duration](10*mb), constant[int64](1) }, 1.01, false},
		"10 MB/s, much noise in time":    {func(w *world) { w.link, w.noise = constant[time.Duration](10*mb), 0.05 }, 1.01, true},
		"1 MB/s, text":                   {func(w *world) { w.link, w.size = constant[time.Duration](mb), 64<<20 }, 1.01, true},
		"10 MB/s, a small file":          {func(w *world) { w.link, w.size = constant[time.Duration](10*mb), 4<<20 }, 1.01, true},
		"10 MB/s, far away":              {func(w *world) { w.link, w.delay = constant[time.Duration](10*mb), 200*time.Millisecond }, 1.01, true},
		"50 MB/s after a burst":          {func(w *world) { w.link, w.size = after(gb, 3*time.Millisecond, 50*mb), 100<<20 }, 1.1, true},
		"1 Gbit/s":                       {func(w *world) { w.link = constant[time.Duration](117 * mb) }, 1.1, true},
		"10 Gbit/s":                      {func(w *world) { w.link = constant[time.Duration](1170 * mb) }, 1.05, false},
		"10 Gbit/s, 16 cores":            {func(w *world) { w.link, w.workers, w.size = constant[time.Duration](1170*mb), 16, 8<<30 }, 1.1, true},
		"no faster than the compressors": {func(w *world) { w.link = constant[time.Duration](600 * mb) }, 1.1, true},
		"a slow source":                  {func(w *world) { w.raw, w.speed = 50*mb, 25*mb }, 1.01, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := modelled()
			c.change(w)
			none, lz4 := w.push(protocol.CompressNone), w.push(protocol.CompressLZ4)
			auto := w.push(protocol.CompressAuto)
			t.Logf("none %v, lz4 %v, auto %v, %d turns", none, lz4, auto, len(w.turns))
			assert.LessOrEqual(t, auto.Seconds(), c.most*min(none, lz4).Seconds(), "turns: %v", w.turns)
			if c.lz4 {
				assert.Less(t, lz4, none)
			}
		})
	}
}

// finds returns when auto came to the mode that it ended in.
func (w *world) finds(t *testing.T, lz4 bool) time.Duration {
	t.Helper()
	w.push(protocol.CompressAuto)
	last := w.turns[len(w.turns)-1]
	assert.Equal(t, lz4, last.lz4, "turns: %v", w.turns)
	return last.at
}

func TestAutoFollowsTheLink(t *testing.T) {
	w := modelled()
	w.link, w.size = after(gb, 2*time.Second, 10*mb), 3<<30
	assert.Less(t, w.finds(t, true), 6*time.Second, "the link became slow after 2 s")

	w = modelled()
	w.link, w.size = after(10*mb, 10*time.Second, gb), 4<<30
	assert.Less(t, w.finds(t, false), 11*time.Second, "the link became fast after 10 s")
}

func TestAutoFollowsTheContent(t *testing.T) {
	w := modelled()
	w.link, w.size = constant[time.Duration](50*mb), 512<<20
	w.ratio = after(1, int64(100<<20), 0.3)
	assert.Less(t, w.finds(t, true), 3500*time.Millisecond, "text came after 2.1 s")

	w.ratio = after(0.3, int64(256<<20), 1)
	assert.Less(t, w.finds(t, false), 2500*time.Millisecond, "noise came after 1.6 s")
}

// A trial costs time: those that change nothing become rare.
func TestAutoIsStable(t *testing.T) {
	for name, rate := range map[string]float64{"slow": 10 * mb, "medium": 200 * mb, "as fast as the compressors": 600 * mb, "fast": gb} {
		w := modelled()
		w.link, w.noise = constant[time.Duration](rate), 0.02
		w.size = int64(60 * rate) // a minute and more
		w.push(protocol.CompressAuto)
		assert.LessOrEqual(t, len(w.turns), 16, "%s: %v", name, w.turns)
	}
}

// The two fixed modes do not measure, and do not change.
func TestFixedModesStay(t *testing.T) {
	for mode, lz4 := range map[protocol.Compression]bool{protocol.CompressNone: false, protocol.CompressLZ4: true} {
		w := modelled()
		w.ratio = after(0.3, int64(256<<20), 1)
		w.push(mode)
		assert.Len(t, w.turns, 1)
		assert.Equal(t, lz4, w.turns[0].lz4)
	}
}

func TestMedianOfRates(t *testing.T) {
	var r rates
	assert.Zero(t, r.median())
	for _, c := range []struct{ add, want float64 }{{5, 5}, {1, 5}, {2, 2}, {9, 5}, {9, 5}, {9, 9}, {1, 9}, {1, 9}, {1, 1}} {
		r.add(c.add)
		assert.Equal(t, c.want, r.median(), "after %v", c.add)
	}
}
