// Local: streams to a Server from its own process, without a connection.

package daemon

import (
	"context"

	"github.com/sbcast/sbcast/protocol"
)

// Local returns an Opener of streams to s from within its process, for what
// lets others in by a protocol of its own. Such a stream is served as one of a
// session is. Name is what the log calls who is behind it.
func (s *Server) Local(name string) protocol.Opener { return local{s, name} }

type local struct {
	s    *Server
	name string
}

// Open implements protocol.Opener.
func (l local) Open(context.Context) (protocol.Stream, error) {
	s := l.s
	near, far := protocol.Pipe()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining { // under mu: Shutdown waits for work after it has set draining
		return nil, errShutdown
	}
	s.locals[far] = struct{}{}
	s.work.Go(func() {
		s.serveStream(far, l.name, protocol.Peer{Name: l.name, Scope: protocol.ScopePush}, s.opts.Log.With("peer", l.name))
		s.mu.Lock()
		delete(s.locals, far)
		s.mu.Unlock()
	})
	return near, nil
}

// Addr implements protocol.Opener.
func (l local) Addr() string { return l.name }

// Close implements protocol.Opener. Streams end by themselves, or with s.
func (local) Close() error { return nil }
