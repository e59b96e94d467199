// Small files: they go with their offer.

package client

import (
	"context"

	"github.com/sbcast/sbcast/protocol"
)

// small is a file that is sent together with its offer. It is the receiver of
// its own feed, which reads it.
type small struct {
	chunk  *protocol.Chunk // nil when the file is empty
	finish *protocol.Finish
	err    error // it could not be read, and so was not sent
}

// early reads a file that is small enough to go with its offer. It is nil when
// the content is to wait for the answer: because it is large or of no known
// size, because the answer is all that is wanted, because the rate is limited,
// or because an attempt has failed and the readers may have what they need.
func (p *push) early(ctx context.Context) *small {
	size := p.offer.Size
	if size < 0 || size > protocol.MaxEarly || size > int64(p.feed.pace.least) || p.offer.Attempt > 1 || p.opts.DryRun || p.feed.limit != nil {
		return nil
	}
	s := &small{}
	room := &protocol.Accept{Window: protocol.DefaultWindow, MaxChunk: protocol.MaxEarly, CRC: true}
	if s.err = p.feed.send(ctx, s, room, func(int) {}); s.err == nil {
		s.finish = p.feed.finish()
	}
	return s
}

// offer makes the offer, with the content when it could be read.
func (s *small) offer(ctx context.Context, to *protocol.Sender, o *protocol.Offer) (*protocol.Accept, error) {
	c := s.chunk
	s.chunk = nil
	if s.err == nil {
		return to.OfferWhole(ctx, o, c, s.finish)
	}
	if c != nil {
		c.Release()
	}
	return to.Offer(ctx, o) // what readers have to say is told first
}

// Send implements receiver. The feed makes one chunk of what fits into one.
func (s *small) Send(_ context.Context, c *protocol.Chunk) error {
	s.chunk = c
	return nil
}

// Done implements receiver.
func (s *small) Done() <-chan struct{} { return nil }

// Err implements receiver.
func (s *small) Err() error { return nil }
