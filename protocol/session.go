// Sessions: one connection, Hello both ways, then smux. The only file that
// imports smux.

package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtaci/smux"
)

// Deadlines of a session.
const (
	// HelloTimeout bounds everything before a session is up.
	HelloTimeout = 10 * time.Second
	// WriteTimeout bounds one write: a peer that takes nothing for that long
	// while its window is open has its session closed.
	WriteTimeout = 30 * time.Second

	// smux finds a silent connection by itself: it checks that something came
	// every keepaliveTimeout, so a dead peer is found in at most twice that.
	keepaliveInterval = 5 * time.Second
	keepaliveTimeout  = 15 * time.Second
)

// Defaults and bounds of SessionConfig.
const (
	DefaultWindow     = 8 << 20
	DefaultMaxStreams = 128
)

// Stream is one smux stream, or in tests something like it. Close and
// CloseWrite never wait for the peer.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite ends this direction; the peer can still answer.
	CloseWrite() error
}

// Session is one connection after Hello, or on a client after its own half of
// it. It is safe for concurrent use.
type Session struct {
	mux  *smux.Session
	link *link
	conn net.Conn
	cfg  SessionConfig

	peer    Hello // what the peer said, once greeted is closed
	greeted chan struct{}
	client  Peer // who it is, on a server

	open   atomic.Int32
	accept chan *muxStream
	done   chan struct{}
	watch  sync.WaitGroup

	mu      sync.Mutex
	ending  bool // smux's session is to be closed soon
	closing bool
	closers sync.WaitGroup // of streams; they end with the session at the latest
}

// DialSession makes a session as the client on a fresh connection, which it
// owns from then on, also when it fails. It does not wait for the peer's Hello:
// when the peer refuses, the session ends, and its streams with the reason.
func DialSession(ctx context.Context, conn net.Conn, cfg SessionConfig) (*Session, error) {
	cfg = cfg.withDefaults()
	conn, err := cfg.secure(ctx, conn, true)
	if err != nil {
		return nil, err
	}
	if err := greet(ctx, conn, conn.SetWriteDeadline, func() error { return sayHello(conn, cfg) }); err != nil {
		return nil, err
	}
	s := newSession(conn, cfg, true)
	s.link.greet = func() error { return s.hear(conn) }
	s.start(smux.Client)
	return s, nil
}

// AcceptSession makes a session as the server on a fresh connection, which it
// owns from then on, also when it fails.
func AcceptSession(ctx context.Context, conn net.Conn, cfg SessionConfig) (*Session, error) {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, HelloTimeout) // TLS and all
	defer cancel()
	conn, err := cfg.secure(ctx, conn, false)
	if err != nil {
		return nil, err
	}
	s := newSession(conn, cfg, false)
	err = greet(ctx, conn, conn.SetDeadline, func() error {
		peer, err := hearHello(conn, false)
		if err != nil {
			return err
		}
		if s.client, err = cfg.admit(conn, peer); err != nil {
			refuse(conn, err)
			return err
		}
		peer.Token = ""
		s.peer = *peer
		close(s.greeted)
		return sayHello(conn, cfg)
	})
	if err != nil {
		return nil, err
	}
	s.start(smux.Server)
	return s, nil
}

func newSession(conn net.Conn, cfg SessionConfig, client bool) *Session {
	return &Session{
		conn: conn, cfg: cfg, link: newLink(conn, client, cfg.MaxStreams),
		accept: make(chan *muxStream, cfg.MaxStreams), greeted: make(chan struct{}), done: make(chan struct{}),
	}
}

// start starts smux, as its server or client.
func (s *Session) start(as func(io.ReadWriteCloser, *smux.Config) (*smux.Session, error)) {
	mux, err := as(s.link, &smux.Config{ // the sizes bound what smux buffers, which is nothing
		Version:           linkVersion,
		KeepAliveInterval: keepaliveInterval,
		KeepAliveTimeout:  keepaliveTimeout,
		MaxFrameSize:      linkPayload,
		MaxStreamBuffer:   linkPayload,
		MaxReceiveBuffer:  linkPayload,
	})
	if err != nil {
		panic("protocol: " + err.Error()) // it only looks at its configuration
	}
	s.mux = mux
	s.watch.Go(s.acceptLoop)
}

// acceptLoop also runs where no streams are expected: smux does not close a
// session whose connection broke, whoever accepts has to.
func (s *Session) acceptLoop() {
	defer close(s.done)
	for {
		st, err := s.mux.AcceptStream()
		if err != nil {
			s.endSoon()
			return
		}
		s.open.Add(1)
		ms := s.wrap(st)
		if int(s.open.Load()) > s.cfg.MaxStreams {
			_ = writeMessage(ms, &Reject{Code: CodeBusy, Text: fmt.Sprintf("more than %d streams on one session", s.cfg.MaxStreams)})
			ms.Close()
			continue
		}
		s.accept <- ms // has room for as many as may be open
	}
}

// lastWords is how long what came before an end may still be read: the peer's
// Reject may have come before its connection broke.
const lastWords = time.Second

// endSoon closes smux's session when all streams are closed, or after
// lastWords: closing it drops what has come and was not read.
func (s *Session) endSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return
	}
	s.ending = true
	if s.open.Load() == 0 {
		s.closeMux()
		return
	}
	time.AfterFunc(lastWords, s.closeMux)
}

// streamClosed counts a stream out, and with the last one an ending session.
func (s *Session) streamClosed() {
	s.mu.Lock()
	last := s.open.Add(-1) == 0 && s.ending
	s.mu.Unlock()
	if last {
		s.closeMux()
	}
}

// closeMux ends smux's session, which closes the link.
func (s *Session) closeMux() {
	s.link.asked.Store(true)
	s.mux.Close()
}

func (s *Session) wrap(st *smux.Stream) *muxStream {
	return &muxStream{mux: st, sess: s, in: s.link.add(st.ID())}
}

// Open opens a stream. It waits for the socket to take a few bytes, which a
// peer that reads nothing can hold up, but no longer than ctx. A second stream
// waits for the peer's Hello, which says how many may be open.
func (s *Session) Open(ctx context.Context) (Stream, error) {
	if s.unheard() {
		if _, err := s.Peer(ctx); err != nil {
			return nil, err
		}
	}
	if !s.reserve((*Session).hasAny) {
		return nil, Errorf(CodeBusy, "all %d streams that %s allows are in use", s.maxStreams(), s.conn.RemoteAddr())
	}
	return s.openReserved(ctx)
}

func (s *Session) openReserved(ctx context.Context) (stream Stream, err error) {
	defer func() {
		if err != nil {
			s.streamClosed()
		}
	}()
	type opened struct {
		st  *smux.Stream
		err error
	}
	done := make(chan opened, 1)
	s.background(func() {
		st, err := s.mux.OpenStream()
		done <- opened{st, err}
	})
	select {
	case o := <-done:
		if o.err != nil {
			return nil, s.refused()
		}
		return s.wrap(o.st), nil
	case <-ctx.Done():
		s.background(func() {
			if o := <-done; o.err == nil {
				o.st.Close()
				s.link.remove(o.st.ID())
			}
		})
		return nil, context.Cause(ctx)
	}
}

// Accept waits for the peer to open a stream. It returns io.EOF when the
// session has ended.
func (s *Session) Accept() (Stream, error) {
	select {
	case ms := <-s.accept:
		return ms, nil
	case <-s.done:
		return nil, io.EOF
	}
}

// Streams is how many streams are open.
func (s *Session) Streams() int { return int(s.open.Load()) }

// RemoteAddr is the peer's address.
func (s *Session) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// Done is closed when the session has ended, for whatever reason.
func (s *Session) Done() <-chan struct{} { return s.done }

// ended reports whether the session has ended.
func (s *Session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Close ends the session and all its streams. It is idempotent and waits for
// the session's own goroutines, never for the peer.
func (s *Session) Close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.closeMux()
	s.watch.Wait()
	s.closers.Wait()
	return nil
}

// background runs f, which writes to the peer, without waiting for it.
func (s *Session) background(f func()) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		f() // fails at once
		return
	}
	s.closers.Go(f)
	s.mu.Unlock()
}

// muxStream is a Stream that ends its session rather than leave it blocked.
type muxStream struct {
	mux    *smux.Stream
	sess   *Session
	in     *inbound
	closed atomic.Bool
}

// Write writes all of p, or closes the session when the peer takes nothing for
// WriteTimeout.
func (m *muxStream) Write(p []byte) (int, error) { return m.write(p, false) }

// write is Write. Lasting is as in link.send.
func (m *muxStream) write(p []byte, lasting bool) (int, error) {
	err := m.sess.link.send(m.mux.ID(), p, lasting, &m.closed)
	if err == nil {
		return len(p), nil
	}
	if m.closed.Load() {
		return 0, err
	}
	m.sess.endSoon()
	if dead := m.sess.link.gaveUp(); dead != nil {
		return 0, dead
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, Errorf(CodeDead, "%s took nothing for %v", m.sess.conn.RemoteAddr(), WriteTimeout)
	}
	return 0, Errorf(CodeUnreachable, "connection to %s lost: %w", m.sess.conn.RemoteAddr(), err)
}

// Read reads what has come, before anybody asks for each frame.
func (m *muxStream) Read(p []byte) (int, error) { return m.in.read(p) }

func (m *muxStream) each(largest *atomic.Int64, f func(Frame) error) error {
	return m.in.each(largest, f)
}

func (m *muxStream) CloseWrite() error {
	m.sess.background(func() { m.mux.CloseWrite() }) // waits until the FIN is on its way
	return nil
}

func (m *muxStream) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.in.end(io.ErrClosedPipe)
	m.sess.background(func() {
		m.mux.Close() // waits until the FIN is on its way
		m.sess.link.remove(m.mux.ID())
		m.sess.streamClosed()
	})
	return nil
}
