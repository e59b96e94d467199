// Hops: the way from a broadcaster to one daemon below it.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// Hop is one daemon below a broadcaster, with the session that is kept to it.
type Hop struct {
	name    string // first part of the names of the leaves behind it
	dialer  protocol.Opener
	cleanup sync.WaitGroup // of senders that were closed, and of keep
	stats   hopStats
	life    context.Context
	end     context.CancelFunc
}

// connector is an Opener that can have a session ready.
type connector interface {
	Connect(ctx context.Context) (*protocol.Session, error)
}

// ParseHop reads HOST:PORT or NAME=HOST:PORT. Without a port it is port.
func ParseHop(s, port string) (name, addr string, err error) {
	name, addr, named := strings.Cut(s, "=")
	if !named {
		addr = name
	}
	if addr, err = protocol.Address(addr, port); err != nil {
		return "", "", err
	}
	if !named {
		name = addr
	}
	if name == "" || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("reader %q: its name must not be empty or have a slash", s)
	}
	return name, addr, nil
}

// NewHop returns a Hop to the daemon that dialer opens streams to. Its leaves
// are called name or name/…. The Hop owns dialer.
func NewHop(name string, dialer protocol.Opener) *Hop {
	h := &Hop{name: name, dialer: dialer}
	h.life, h.end = context.WithCancel(context.Background())
	return h
}

// connect begins to keep a session, where the dialer can.
func (h *Hop) connect() {
	if c, ok := h.dialer.(connector); ok {
		h.cleanup.Go(func() { h.keep(c) })
	}
}

// keep keeps a session until the hop is closed, so that a push does not pay the
// two round trips of a new one: a session that has ended, as those do that a
// daemon has not seen a stream on for long, is replaced. One that cannot be
// had is tried for again and again, and nobody is told: a push will say it.
func (h *Hop) keep(c connector) {
	pause := newRedialPause()
	for {
		if s, err := c.Connect(h.life); err == nil {
			pause.Reset()
			h.stats.count(func(st *hopStats) { st.up = true })
			select {
			case <-s.Done():
			case <-h.life.Done():
			}
			h.stats.count(func(st *hopStats) { st.up = false })
		}
		select {
		case <-time.After(pause.NextBackOff()):
		case <-h.life.Done():
			return
		}
	}
}

// Close ends the session and waits for what was running on it.
func (h *Hop) Close() {
	h.end()
	h.dialer.Close()
	h.cleanup.Wait()
}

// retire closes a sender and lets its goroutines end in their own time.
func (h *Hop) retire(s *protocol.Sender) {
	s.Close()
	h.cleanup.Go(func() {
		s.Wait()
		h.stats.end(s)
	})
}

// leafName is the name here of a leaf that the daemon below calls name.
func (h *Hop) leafName(name string) string {
	if name == "" {
		return h.name
	}
	return h.name + "/" + name
}

// leaves returns them under their names here.
func (h *Hop) leaves(below []protocol.Leaf) []protocol.Leaf {
	here := make([]protocol.Leaf, len(below))
	for i, l := range below {
		l.Name = h.leafName(l.Name)
		here[i] = l
	}
	return here
}

// status asks the daemon below, and through it those below that one.
func (h *Hop) status(ctx context.Context, hops int) []*protocol.Status {
	all, err := h.query(ctx, hops)
	for _, st := range all {
		st.Node = h.leafName(st.Node)
	}
	if err != nil {
		all = append(all, &protocol.Status{Node: h.name, Error: err.Error()})
	}
	return all
}

func (h *Hop) query(ctx context.Context, hops int) ([]*protocol.Status, error) {
	stream, err := h.dialer.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	return protocol.AskStatus(ctx, stream, hops)
}

// failure is err as it is to be told of this hop: leaves below that are named
// in it get their names here.
func (h *Hop) failure(err error) *protocol.Error {
	e := *protocol.AsError(err)
	e.Leaf = h.leafName(e.Leaf)
	e.Leaves = h.leaves(e.Leaves)
	if errors.Is(err, io.EOF) {
		e.Text = "the connection was lost"
	}
	return &e
}
