// The pulse of a stream: whoever hears nothing asks, whoever gets no answer
// gives up.

package protocol

import (
	"sync"
	"time"
)

// PingAfter is how long a stream may be silent before its peer is asked, and
// DeadAfter how long until it is given up. An own ping is needed: smux's
// keepalive shows that the peer's kernel and smux live, not that anybody
// serves the stream, and a remote Close is invisible to a smux v2 writer.
const (
	PingAfter = 10 * time.Second
	DeadAfter = 30 * time.Second
)

var (
	pingFrame = AppendFrame(nil, KindPing, 0, nil)
	pongFrame = AppendFrame(nil, KindPong, 0, nil)
)

// pulse watches one stream.
type pulse struct {
	ping func()
	dead func(error)

	mu      sync.Mutex
	heard   time.Time
	timer   *time.Timer
	stopped bool
}

func newPulse(ping func(), dead func(error)) *pulse {
	p := &pulse{ping: ping, dead: dead, heard: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(PingAfter, p.check)
	return p
}

// beat notes that a frame came in.
func (p *pulse) beat() {
	p.mu.Lock()
	p.heard = time.Now()
	p.mu.Unlock()
}

func (p *pulse) check() {
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return
	}
	silent := time.Since(p.heard)
	alive := silent < DeadAfter
	if alive {
		p.timer.Reset(max(PingAfter-silent, PingAfter/2))
	}
	p.mu.Unlock()
	switch {
	case !alive:
		p.dead(Errorf(CodeDead, "no answer for %v", silent.Round(time.Second)))
	case silent >= PingAfter:
		p.ping()
	}
}

// stop ends the watch.
func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.timer.Stop()
}
