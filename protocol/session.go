// Sessions: one connection, Hello both ways, then smux. The only file that
// imports smux.

package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
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

	smuxFrame   = 65535
	smuxBaseWin = 256 << 10 // what a smux v2 writer may send before the first window update
)

// SessionConfig says how this end of a session behaves. The zero value is good.
type SessionConfig struct {
	Agent      string // software and version, told to the peer
	Window     int64  // largest window granted on a stream, bytes; 0 is DefaultWindow
	MaxStreams int    // streams the peer may have open at once; 0 is DefaultMaxStreams
}

// StreamBuffer is what one stream may hold unread in smux: a window of content
// with the overhead of its smallest chunks, and room for control frames. It is
// above every window granted, so that smux never blocks an honest writer.
func (c SessionConfig) streamBuffer() int64 { return c.Window + c.Window/64 + smuxBaseWin }

func (c SessionConfig) withDefaults() SessionConfig {
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = DefaultMaxStreams
	}
	// smux counts in int32 and deadlocks healthy peers when all streams
	// together may hold more than the session may.
	c.MaxStreams = int(min(int64(c.MaxStreams), (math.MaxInt32-64<<10)/c.streamBuffer()))
	return c
}

// CheckWindow refuses windows that a session cannot grant.
func CheckWindow(n int64) error {
	if n < minWindow || n > maxWindowLen {
		return fmt.Errorf("%d bytes, want %d to %d", n, minWindow, maxWindowLen)
	}
	return nil
}

// Stream is one smux stream, or in tests something like it. Close and
// CloseWrite never wait for the peer.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite ends this direction; the peer can still answer.
	CloseWrite() error
}

// Session is one connection after Hello. It is safe for concurrent use.
type Session struct {
	Peer Hello // what the peer said

	mux  *smux.Session
	conn net.Conn
	cfg  SessionConfig

	open   atomic.Int32
	accept chan *muxStream
	done   chan struct{}
	watch  sync.WaitGroup

	mu      sync.Mutex
	closing bool
	closers sync.WaitGroup // of streams; they end with the session at the latest
}

// DialSession makes a session as the client on a fresh connection, which it
// owns from then on, also when it fails.
func DialSession(ctx context.Context, conn net.Conn, cfg SessionConfig) (*Session, error) {
	return newSession(ctx, conn, cfg, true)
}

// AcceptSession makes a session as the server on a fresh connection, which it
// owns from then on, also when it fails.
func AcceptSession(ctx context.Context, conn net.Conn, cfg SessionConfig) (*Session, error) {
	return newSession(ctx, conn, cfg, false)
}

func newSession(ctx context.Context, conn net.Conn, cfg SessionConfig, client bool) (*Session, error) {
	cfg = cfg.withDefaults()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	peer, err := hello(conn, cfg, client)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, Errorf(CodeDead, "no hello from %s in %v: is it an sbcast daemon?", conn.RemoteAddr(), HelloTimeout)
		}
		return nil, Errorf(AsError(err).Code, "hello with %s: %w", conn.RemoteAddr(), err)
	}
	conn.SetDeadline(time.Time{})

	s := &Session{
		Peer: *peer, conn: conn, cfg: cfg,
		accept: make(chan *muxStream), done: make(chan struct{}),
	}
	start := smux.Server
	if client {
		start = smux.Client
	}
	s.mux, err = start(smuxConn(conn), &smux.Config{
		Version:           2,
		KeepAliveInterval: keepaliveInterval,
		KeepAliveTimeout:  keepaliveTimeout,
		MaxFrameSize:      smuxFrame,
		MaxStreamBuffer:   int(cfg.streamBuffer()),
		MaxReceiveBuffer:  int(int64(cfg.MaxStreams)*cfg.streamBuffer() + 64<<10),
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	s.watch.Go(s.acceptLoop)
	return s, nil
}

// hello exchanges Hello on the bare connection: the client speaks first.
func hello(conn net.Conn, cfg SessionConfig, client bool) (*Hello, error) {
	conn.SetDeadline(time.Now().Add(HelloTimeout))
	own := &Hello{Versions: []int{Version}, Agent: cfg.Agent, MaxStreams: cfg.MaxStreams}
	if client {
		if err := writeMessage(conn, own); err != nil {
			return nil, err
		}
	}
	peer, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(peer.Versions, Version) {
		err := Errorf(CodeVersion, "the peer (%s) speaks versions %v of the protocol, this end %d: upgrade one of them", peer.Agent, peer.Versions, Version)
		if !client {
			_ = writeMessage(conn, &Reject{Code: err.Code, Text: err.Text})
		}
		return nil, err
	}
	if !client {
		if err := writeMessage(conn, own); err != nil {
			return nil, err
		}
	}
	return peer, nil
}

func writeMessage(w io.Writer, m Message) error {
	frame, err := AppendMessage(nil, m)
	if err != nil {
		return err
	}
	_, err = w.Write(frame)
	return err
}

// readHello reads the first frame of a connection, from a peer that may be
// anybody: it takes nothing but a short Hello or Reject.
func readHello(conn net.Conn) (*Hello, error) {
	fr := NewFrameReader(conn)
	fr.greeting = true
	f, err := fr.Next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, Errorf(CodeUnreachable, "the peer closed the connection")
		}
		return nil, err
	}
	m, err := ParseMessage(f.Kind, f.Payload)
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *Hello:
		return m, nil
	case *Reject:
		return nil, m.asError()
	default:
		return nil, Errorf(CodeProtocol, "%s where a hello was expected", f.Kind)
	}
}

// acceptLoop also runs where no streams are expected: smux does not close a
// session whose connection broke, whoever accepts has to.
func (s *Session) acceptLoop() {
	defer close(s.done)
	for {
		st, err := s.mux.AcceptStream()
		if err != nil {
			s.mux.Close()
			return
		}
		ms := s.wrap(st)
		if int(s.open.Load()) > s.cfg.MaxStreams {
			_ = writeMessage(ms, &Reject{Code: CodeBusy, Text: fmt.Sprintf("more than %d streams on one session", s.cfg.MaxStreams)})
			ms.Close()
			continue
		}
		select {
		case s.accept <- ms:
		case <-s.mux.CloseChan():
			ms.Close()
		}
	}
}

func (s *Session) wrap(st *smux.Stream) *muxStream {
	s.open.Add(1)
	return &muxStream{Stream: st, sess: s}
}

// Open opens a stream. It waits for the socket to take a few bytes, which a
// peer that reads nothing can hold up, but no longer than ctx.
func (s *Session) Open(ctx context.Context) (Stream, error) {
	if limit := s.Peer.MaxStreams; limit > 0 && int(s.open.Load()) >= limit {
		return nil, Errorf(CodeBusy, "all %d streams that %s allows are in use", limit, s.conn.RemoteAddr())
	}
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
			return nil, Errorf(CodeUnreachable, "open a stream to %s: %w", s.conn.RemoteAddr(), o.err)
		}
		return s.wrap(o.st), nil
	case <-ctx.Done():
		s.background(func() {
			if o := <-done; o.err == nil {
				o.st.Close()
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

// Close ends the session and all its streams. It is idempotent and waits for
// the session's own goroutines, never for the peer.
func (s *Session) Close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.mux.Close()
	s.watch.Wait()
	s.closers.Wait()
	return nil
}

// background runs f, which writes to the peer, without waiting for it.
func (s *Session) background(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		f() // fails at once
		return
	}
	s.closers.Go(f)
}

// muxStream is a Stream that ends its session rather than leave it blocked.
type muxStream struct {
	*smux.Stream
	sess   *Session
	closed atomic.Bool
}

// Write writes all of p within WriteTimeout or closes the session: smux may
// read p even after a write that failed, so nothing may follow it.
func (m *muxStream) Write(p []byte) (int, error) {
	m.SetWriteDeadline(time.Now().Add(WriteTimeout))
	n, err := m.Stream.Write(p)
	if err == nil || m.closed.Load() {
		return n, err
	}
	m.sess.mux.Close()
	if errors.Is(err, smux.ErrTimeout) {
		return n, Errorf(CodeDead, "%s took nothing for %v", m.sess.conn.RemoteAddr(), WriteTimeout)
	}
	return n, Errorf(CodeUnreachable, "connection to %s lost: %w", m.sess.conn.RemoteAddr(), err)
}

func (m *muxStream) CloseWrite() error {
	m.sess.background(func() { m.Stream.CloseWrite() }) // waits until the FIN is written
	return nil
}

func (m *muxStream) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.sess.background(func() {
		m.Stream.Close() // waits until the FIN is written
		m.sess.open.Add(-1)
	})
	return nil
}

// timedConn gives every write a deadline. smux writes from one goroutine.
type timedConn struct {
	net.Conn
	until time.Time
}

func (c *timedConn) extend() {
	if now := time.Now(); c.until.Sub(now) < WriteTimeout-time.Second {
		c.until = now.Add(WriteTimeout)
		c.SetWriteDeadline(c.until)
	}
}

func (c *timedConn) Write(p []byte) (int, error) {
	c.extend()
	return c.Conn.Write(p)
}

// vectorConn is a timedConn whose writev smux can use, which saves it a copy
// of every frame. A tls.Conn would send a record for each part: not for those.
type vectorConn struct{ timedConn }

func (c *vectorConn) WriteBuffers(v [][]byte) (int, error) {
	c.extend()
	b := net.Buffers(v)
	n, err := b.WriteTo(c.Conn)
	return int(n), err
}

func smuxConn(conn net.Conn) io.ReadWriteCloser {
	if _, ok := conn.(*net.TCPConn); ok {
		return &vectorConn{timedConn{Conn: conn}}
	}
	return &timedConn{Conn: conn}
}
