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
	"io"
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

// running is a transfer under way, so that a later attempt can replace it.
type running struct {
	peer     string // that it counts for
	receiver *protocol.Receiver
	cancel   context.CancelCauseFunc
	done     chan struct{}
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

	drained := make(chan struct{})
	go func() { s.transfers.Wait(); close(drained) }()
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		err = ctx.Err()
		cause := error(errShutdown)
		var e *protocol.Error
		if errors.As(context.Cause(ctx), &e) {
			cause = e
		}
		s.cancel(cause)
		<-drained
	}
	s.cancel(errShutdown)
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

// serveStream looks at the first frame of a stream, which says what it is for.
func (s *Server) serveStream(stream protocol.Stream, peer string, client protocol.Peer, log *slog.Logger) {
	defer stream.Close()
	frames := protocol.NewFrameReader(stream)
	frames.LimitChunks(0)
	hurry := time.AfterFunc(protocol.HelloTimeout, func() { stream.Close() })
	f, err := frames.Next()
	if !hurry.Stop() || errors.Is(err, io.EOF) {
		return
	}
	var m protocol.Message
	if err == nil {
		m, err = firstMessage(f)
	}
	switch m := m.(type) {
	case *protocol.Offer:
		if err = client.May(protocol.ScopePush); err == nil {
			s.receive(stream, frames, m, peer, log)
		}
	case *protocol.Query:
		if err = client.May(protocol.ScopeStatus); err == nil {
			err = s.answer(stream, m)
		}
	}
	if err != nil {
		s.refuse(log, "stream", err)
		protocol.WriteReject(stream, err)
	}
}

func firstMessage(f protocol.Frame) (protocol.Message, error) {
	if f.Kind == protocol.KindOffer || f.Kind == protocol.KindQuery {
		return protocol.ParseMessage(f.Kind, f.Payload)
	}
	if f.Chunk != nil {
		f.Chunk.Release()
	}
	return nil, protocol.Errorf(protocol.CodeProtocol, "a stream begins with an offer or a query, not with %s", f.Kind)
}

// receive runs a transfer, after an earlier attempt of the same has ended.
func (s *Server) receive(stream protocol.Stream, frames *protocol.FrameReader, offer *protocol.Offer, peer string, log *slog.Logger) {
	r := protocol.NewReceiver(stream, frames, offer, s.rules.of(peer, s.sink), s.opts.Window).Within(s.budget)
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	run := &running{peer: peer, receiver: r, cancel: cancel, done: make(chan struct{})}
	defer close(run.done)
	old, err := s.register(offer, run)
	if err != nil {
		s.refuse(log.With("transfer", offer.ID, "name", offer.Name), "transfer", err)
		protocol.WriteReject(stream, err)
		return
	}
	defer s.unregister(offer.ID, run)
	if old != nil {
		old.cancel(protocol.Errorf(protocol.CodeSuperseded, "attempt %d of the same transfer took over", offer.Attempt))
		<-old.done
	}

	log = log.With("transfer", offer.ID, "name", offer.Name)
	log.Info("transfer begins", "size", offer.Size, "policy", offer.Policy.String(), "attempt", offer.Attempt)
	begun := time.Now()
	end := s.stats.begin(r)
	receipts, err := r.Run(ctx)
	end()
	took := time.Since(begun)
	s.stats.outcome(receipts, err, took)
	logEnd(log, r.Status(), receipts, err, took)
	if s.opts.OnTransfer != nil {
		s.opts.OnTransfer(receipts, err)
	}
}

// register makes run the one transfer of its id. It returns the attempt that
// run replaces, if there is one.
func (s *Server) register(offer *protocol.Offer, run *running) (old *running, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, errShutdown
	}
	old = s.running[offer.ID]
	if old != nil {
		before := old.receiver.Offer()
		switch {
		case offer.Attempt == before.Attempt && offer.Hops < before.Hops:
			return nil, protocol.Errorf(protocol.CodeLoop, "this push is here already: do broadcasters feed each other?")
		case !offer.Supersedes(before):
			return nil, protocol.Errorf(protocol.CodeSuperseded, "attempt %d of the transfer (redials %d) came after attempt %d (redials %d)", offer.Attempt, offer.Redials, before.Attempt, before.Redials)
		}
	}
	if old != nil { // makes way
		s.limits.transfers.give(old.peer)
	}
	if err := s.limits.transfers.take(run.peer); err != nil {
		if old != nil {
			_ = s.limits.transfers.take(old.peer) // what it has just given
		}
		return nil, err
	}
	s.running[offer.ID] = run
	s.transfers.Add(1)
	return old, nil
}

func (s *Server) unregister(id string, run *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[id] == run {
		delete(s.running, id)
		s.limits.transfers.give(run.peer)
	}
	s.transfers.Done()
}
