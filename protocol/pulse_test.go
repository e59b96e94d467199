package protocol

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pulseLog notes when what happens, since the pulse began.
type pulseLog struct {
	begun time.Time

	mu    sync.Mutex
	pings []time.Duration
	died  []time.Duration
	err   error
}

func (l *pulseLog) ping() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pings = append(l.pings, time.Since(l.begun))
}

func (l *pulseLog) dead(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.died, l.err = append(l.died, time.Since(l.begun)), err
}

// sofar waits for what is under way and returns the pings and the deaths.
func (l *pulseLog) sofar() (pings, died []time.Duration) {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.pings), slices.Clone(l.died)
}

func startPulse(t *testing.T) (*pulse, *pulseLog) {
	t.Helper()
	l := &pulseLog{begun: time.Now()}
	p := newPulse(l.ping, l.dead)
	t.Cleanup(p.stop)
	return p, l
}

func TestSilentPeerIsAskedAndGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l := startPulse(t)
		time.Sleep(PingAfter - 1)
		pings, _ := l.sofar()
		require.Empty(t, pings)
		time.Sleep(time.Nanosecond)
		pings, _ = l.sofar()
		require.Equal(t, []time.Duration{PingAfter}, pings)

		time.Sleep(DeadAfter - PingAfter - 1)
		pings, died := l.sofar()
		require.GreaterOrEqual(t, len(pings), 2, "one lost ping must not be the end")
		require.Empty(t, died)
		time.Sleep(time.Nanosecond)
		_, died = l.sofar()
		require.Equal(t, []time.Duration{DeadAfter}, died)
		assert.True(t, HasCode(l.err, CodeDead), "%v", l.err)
		assert.ErrorContains(t, l.err, "30s")

		time.Sleep(time.Hour)
		_, died = l.sofar()
		assert.Len(t, died, 1, "given up twice")
	})
}

func TestBeatStartsTheSilenceAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := startPulse(t)
		time.Sleep(9 * time.Second)
		p.beat()
		time.Sleep(9 * time.Second)
		pings, _ := l.sofar()
		assert.Empty(t, pings, "asked a peer that was heard 9 s ago")
		time.Sleep(time.Second)
		pings, _ = l.sofar()
		assert.Len(t, pings, 1)
		time.Sleep(19 * time.Second)
		_, died := l.sofar()
		assert.Empty(t, died, "given up after 29 s of silence")
		time.Sleep(6 * time.Second)
		_, died = l.sofar()
		assert.Len(t, died, 1, "not given up after 35 s of silence")
	})
}

func TestAnsweringPeerLivesForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		ready := make(chan struct{})
		var p *pulse
		p = newPulse(func() { <-ready; asked.Add(1); p.beat() }, func(err error) { t.Errorf("given up: %v", err) })
		close(ready)
		time.Sleep(24 * time.Hour)
		p.stop()
		assert.InDelta(t, 24*60*60/10, asked.Load(), 2, "an idle stream costs one ping every 10 s")
	})
}

func TestStopEndsThePulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := startPulse(t)
		p.stop()
		p.stop()
		time.Sleep(time.Hour)
		p.check() // was already on its way when the stream ended
		pings, died := l.sofar()
		assert.Empty(t, pings)
		assert.Empty(t, died)
	})
}
