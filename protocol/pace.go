// Pace: what a Sender tells of itself, to find out who holds a transfer up.

package protocol

import "time"

// Traffic counts content that passed. Wire is the same as frames: with their
// headers, and compressed where it was.
type Traffic struct {
	Content int64
	Wire    int64
}

// Add is the sum of both.
func (t Traffic) Add(o Traffic) Traffic { return Traffic{t.Content + o.Content, t.Wire + o.Wire} }

// Pace is how a Sender gets on.
type Pace struct {
	Traffic
	Spent  Spent
	Owed   int64         // content that was sent and not acknowledged
	Window int64         // most that this may be; 0 before Accept
	Round  time.Duration // shortest time from sending a chunk to its ack; 0: none came yet
}

// Pace says how the transfer gets on, on this hop. It may be called by any
// goroutine, also after Close.
func (s *Sender) Pace() Pace {
	p := Pace{Traffic: s.out.traffic(), Spent: s.clock.Spent()}
	s.mu.Lock()
	win := s.win
	s.mu.Unlock()
	if win != nil {
		p.Owed, p.Round, p.Window = win.owed(), win.round(), win.size
	}
	return p
}

// idle is what the transfer waits for when there is nothing to write.
//
// A receiver that is slow leaves the window full, and one that keeps up leaves
// it nearly empty, so the half is what tells them apart; once all content is
// sent, any that is not acknowledged is waited for.
func (s *Sender) idle() Stage {
	s.mu.Lock()
	win, phase, ended := s.win, s.phase, s.err != nil
	s.mu.Unlock()
	switch {
	case win == nil || ended:
		return StageNone
	case phase == StageContent && (s.out.isHeld() || win.owed() > win.size/2),
		phase == StageSync && win.owed() > 0:
		return StageCredit
	default:
		return phase
	}
}

// enter notes what the transfer waits for from now on, content apart.
func (s *Sender) enter(phase Stage) {
	s.mu.Lock()
	s.phase = phase
	s.mu.Unlock()
	s.clock.wait(s.idle())
}
