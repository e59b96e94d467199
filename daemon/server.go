// Package daemon is the server side of sbcast: a [Server] with a Sink behind it.
//
// What a daemon is depends on its sink alone. A reader's sink stores (package
// sink); a broadcaster's sink is a [Fanout], which passes every chunk on, as
// it is, to the daemons below it:
//
//	           Server                     Server
//	stream ->  Receiver -> Fanout         Receiver -> sink.Leaf -> a store
//	                         |- Sender -> stream ...
//	                         |- Sender -> stream ...
//
// Everything is owned: a Server waits for its sessions, a session for its
// streams, a Receiver and a Sender for their two goroutines each.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// Options say how a Server behaves. The zero value is good.
type Options struct {
	Agent      string        // software and version, told to peers
	About      string        // what the sink is, for Status: "dir:/srv/files"
	Window     int64         // most bytes a sender may have unacknowledged; 0: protocol.DefaultWindow
	Memory     int64         // most bytes of content that all transfers hold together; 0: no bound but the windows
	MaxStreams int           // streams for each session; 0: protocol.DefaultMaxStreams
	Log        *slog.Logger  // events; nil: none
	Idle       time.Duration // a session without a stream for so long is closed; 0: 5 minutes

	Identity *protocol.Identity // for TLS; nil: bare TCP
	Tokens   *protocol.Tokens   // clients without a certificate that may come; nil: none

	Rules          Rules // which files to take
	MaxConnections int   // clients connected at once; 0: DefaultMaxConnections
	MaxTransfers   int   // transfers under way at once; 0: DefaultMaxTransfers

	// OnTransfer is told how each transfer ended, from its goroutine.
	OnTransfer func(receipts []protocol.Receipt, err error)
}

// defaultIdle is when a session that nobody uses is closed.
const defaultIdle = 5 * time.Minute

// Server receives transfers and puts them into its sink.
type Server struct {
	sink   protocol.Sink
	opts   Options
	begun  time.Time
	budget *protocol.Budget // nil without opts.Memory
	rules  *ruled
	limits *limits
	stats  *serverStats

	refused refusals

	ctx    context.Context // ends when transfers must
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // sessions and their streams

	mu        sync.Mutex
	draining  bool
	listeners map[net.Listener]struct{}
	sessions  map[*protocol.Session]struct{}
	locals    map[protocol.Stream]struct{} // see Local
	running   map[string]*running          // by transfer id
	transfers sync.WaitGroup
}

// NewServer returns a Server for sink.
func NewServer(sink protocol.Sink, opts Options) *Server {
	if opts.Window == 0 {
		opts.Window = protocol.DefaultWindow
	}
	if opts.Idle == 0 {
		opts.Idle = defaultIdle
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		sink: sink, opts: opts, begun: time.Now(), rules: newRuled(opts.Rules), stats: newServerStats(sink),
		limits:    newLimits(opts.MaxConnections, opts.MaxTransfers),
		listeners: map[net.Listener]struct{}{},
		sessions:  map[*protocol.Session]struct{}{},
		locals:    map[protocol.Stream]struct{}{},
		running:   map[string]*running{},
	}
	if opts.Memory > 0 {
		s.budget = protocol.NewBudget(opts.Memory)
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// errShutdown is why transfers end when a Server is shut down.
var errShutdown = &protocol.Error{Code: protocol.CodeShutdown, Text: "the daemon is stopping"}

// Serve accepts connections until the Server is shut down, then returns nil.
// It owns ln.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return nil
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	var pause time.Duration
	for {
		conn, err := ln.Accept()
		if err == nil {
			pause = 0
		}
		s.mu.Lock()
		draining := s.draining
		if err == nil && !draining { // under mu: Shutdown waits for work after it has set draining
			s.work.Go(func() { s.serveConn(conn) })
		}
		s.mu.Unlock()
		switch {
		case err == nil && draining:
			conn.Close()
			return nil
		case err == nil:
			continue
		case draining:
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// Out of file descriptors, most likely: go on when some are free.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.opts.Log.Error("cannot accept connections", "error", err, "again_in", pause)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// Shutdown stops accepting, lets the transfers under way end until ctx does,
// then ends them, with ctx's cause where that is a *protocol.Error, and waits
// for everything. It returns ctx's error when transfers had to be ended.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	for ln := range s.listeners {
		ln.Close()
	}
	s.mu.Unlock()

	err := Drain(ctx, &s.transfers, s.cancel, errShutdown)
	s.mu.Lock()
	for sess := range s.sessions {
		go sess.Close() // serveConn waits for it
	}
	for stream := range s.locals {
		stream.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
	return err
}

// Drain waits for work until ctx ends, then cancels it and waits on: with ctx's
// cause where that is a *protocol.Error, else with otherwise. It cancels what is
// left in any case, and returns ctx's error when work had to be ended.
func Drain(ctx context.Context, work *sync.WaitGroup, cancel context.CancelCauseFunc, otherwise *protocol.Error) (err error) {
	defer cancel(otherwise)
	drained := make(chan struct{})
	go func() { work.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-ctx.Done():
		err = ctx.Err()
		cause := otherwise
		_ = errors.As(context.Cause(ctx), &cause)
		cancel(cause)
		<-drained
	}
	return err
}

// accept makes a session of conn and counts it, until leave is called.
func (s *Server) accept(conn net.Conn) (sess *protocol.Session, peer string, leave func(), err error) {
	cfg := protocol.SessionConfig{
		Agent: s.opts.Agent, Window: s.opts.Window, MaxStreams: s.opts.MaxStreams,
		Identity: s.opts.Identity, Tokens: s.opts.Tokens,
	}
	leave = func() {}
	cfg.Admit = func(client protocol.Peer) error {
		name := nameOf(conn, client)
		if err := s.limits.sessions.take(name); err != nil {
			return err
		}
		peer, leave = name, func() { s.limits.sessions.give(name) }
		return nil
	}
	begun, dropped := s.limits.handshakes.begin(conn)
	if dropped != nil {
		cfg.Refuse(dropped.conn, errCrowded)
	}
	sess, err = protocol.AcceptSession(s.ctx, conn, cfg)
	if !s.limits.handshakes.end(begun) && err != nil {
		err = errCrowded
	}
	if err != nil {
		leave()
	}
	return sess, peer, leave, err
}

// errCrowded is why a connection whose client had not said who it is was closed.
var errCrowded = protocol.Errorf(protocol.CodeBusy, "%d connections have not said hello, and this was the oldest", mostHandshakes)

func (s *Server) serveConn(conn net.Conn) {
	log := s.opts.Log.With("peer", conn.RemoteAddr().String())
	sess, peer, leave, err := s.accept(conn)
	if err != nil {
		s.refuse(log, "connection", err)
		return
	}
	defer leave()
	defer sess.Close()
	s.mu.Lock()
	s.sessions[sess] = struct{}{}
	late := s.draining
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sessions, sess)
		s.mu.Unlock()
	}()
	if late {
		return
	}
	if name := sess.Client().Name; name != "" {
		log = log.With("client", name)
	}
	if hello, err := sess.Peer(s.ctx); err == nil {
		begun := time.Now()
		log.Debug("session opened", "agent", hello.Agent)
		defer func() { log.Debug("session closed", "took", time.Since(begun).Round(time.Millisecond)) }()
	}

	idle := s.closeIdle(sess)
	defer idle()
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		stream, err := sess.Accept()
		if err != nil {
			return
		}
		if err := s.limits.streams.take(peer); err != nil {
			s.refuse(log, "stream", err)
			streams.Go(func() { defer stream.Close(); protocol.WriteReject(stream, err) })
			continue
		}
		streams.Go(func() {
			defer s.limits.streams.give(peer)
			s.serveStream(stream, peer, sess.Client(), log)
		})
	}
}

// closeIdle closes sess once it has had no stream for opts.Idle.
func (s *Server) closeIdle(sess *protocol.Session) (stop func()) {
	quiet := false
	t := time.NewTicker(s.opts.Idle / 2)
	done := make(chan struct{})
	s.work.Go(func() {
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-done:
				return
			}
			if busy := sess.Streams() > 0; busy || !quiet {
				quiet = !busy
				continue
			}
			sess.Close()
			return
		}
	})
	return func() { close(done) }
}
