// What a session knows of its peer: its Hello, who it is, how many streams it
// allows.

package protocol

import (
	"context"
	"net"
)

// hear hears the peer's Hello, before anything else is read.
func (s *Session) hear(conn net.Conn) error {
	return greet(context.Background(), conn, conn.SetReadDeadline, func() error {
		peer, err := hearHello(conn, true)
		if err == nil {
			s.peer = *peer
			close(s.greeted)
		}
		return tlsError(err, true) // a server looks at a client's certificate when the handshake is over
	})
}

// Peer waits for what the peer says in its Hello.
func (s *Session) Peer(ctx context.Context) (*Hello, error) {
	select {
	case <-s.greeted:
	case <-s.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case <-s.greeted:
		return &s.peer, nil
	default:
		return nil, s.link.fail(net.ErrClosed) // what came first
	}
}

// maxStreams is how many streams the peer allows, 0 while that is not known.
func (s *Session) maxStreams() int {
	select {
	case <-s.greeted:
		return s.peer.MaxStreams
	default:
		return 0
	}
}

// hasRoom reports whether a further stream is welcome here for sure. The peer
// counts a stream until it has seen its end, so where there is a choice half of
// what it allows is enough.
func (s *Session) hasRoom() bool {
	limit := s.maxStreams()
	return limit <= 0 || s.Streams() < max(1, limit/2)
}

// hasAny reports whether the peer allows a further stream.
func (s *Session) hasAny() bool {
	limit := s.maxStreams()
	return limit <= 0 || s.Streams() < limit
}

// reserve claims a place for a stream, to be opened with openReserved, where
// there is room for one.
func (s *Session) reserve(room func(*Session) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !room(s) {
		return false
	}
	s.open.Add(1)
	return true
}

// unheard reports whether the session has a stream, and for a second one has to
// wait for the peer's Hello.
func (s *Session) unheard() bool {
	select {
	case <-s.greeted:
		return false
	default:
		return s.Streams() > 0
	}
}

// refused is why no stream can be opened on a session that has ended. When the
// peer does not want it, what it said may have come before it hung up.
func (s *Session) refused() error {
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	if _, err := s.Peer(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return Errorf(CodeUnreachable, "open a stream to %s: the connection was lost", s.conn.RemoteAddr())
}

// Client is who the client of a session is, on its server.
func (s *Session) Client() Peer { return s.client }
