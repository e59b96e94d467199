package protocol

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAddress(t *testing.T) {
	tests := []struct{ in, want string }{
		{"host", "host:7000"},
		{"host:8000", "host:8000"},
		{"host:", "host:7000"},
		{"host.example.org", "host.example.org:7000"},
		{"127.0.0.1", "127.0.0.1:7000"},
		{"127.0.0.1:1", "127.0.0.1:1"},
		{":7001", "localhost:7001"},
		{":", "localhost:7000"},
		{"::1", "[::1]:7000"},
		{"[::1]", "[::1]:7000"},
		{"[::1]:8000", "[::1]:8000"},
		{"2001:db8::1", "[2001:db8::1]:7000"},
		{"::", "[::]:7000"},
		{"[fe80::1%eth0]:8000", "[fe80::1%eth0]:8000"},
		{"[fe80::1%eth0]", "[fe80::1%eth0]:7000"},
		{"fe80::1%eth0", "[fe80::1%eth0]:7000"},
		{"host:65535", "host:65535"},
		{"host:http", "host:http"},
	}
	for _, tt := range tests {
		got, err := Address(tt.in, "7000")
		assert.NoError(t, err, "%q", tt.in)
		assert.Equal(t, tt.want, got, "%q", tt.in)
	}
	for _, in := range []string{"", "host:0", "host:65536", "host:-1", "host:x y", "a:b:c", "http://host:7000", "http://host", "host:7000:7001", "[::1]:x:y"} {
		got, err := Address(in, "7000")
		assert.Error(t, err, "%q is taken for %q", in, got)
	}
	_, err := Address("host", "")
	assert.Error(t, err, "no port at all")
}

// listener accepts sessions and counts them.
type listener struct {
	net.Listener
	count    atomic.Int32
	sessions chan *Session
}

func listen(t *testing.T, cfg SessionConfig) *listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &listener{Listener: ln, sessions: make(chan *Session, 2*maxSessions)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			l.count.Add(1)
			wg.Go(func() {
				s, err := AcceptSession(t.Context(), conn, cfg)
				if err != nil { // the test has ended first: a client does not wait for it
					return
				}
				l.sessions <- s
				for err == nil {
					_, err = s.Accept()
				}
				s.Close()
			})
		}
	})
	t.Cleanup(func() { // after that of the dialer, which has ended the sessions
		ln.Close()
		wg.Wait()
	})
	return l
}

func newTestDialer(t *testing.T, l *listener) *Dialer {
	t.Helper()
	d := NewDialer(l.Addr().String(), SessionConfig{})
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDialerKeepsItsSession(t *testing.T) {
	l := listen(t, SessionConfig{})
	d := newTestDialer(t, l)
	assert.Zero(t, l.count.Load(), "NewDialer dials")
	assert.Equal(t, l.Addr().String(), d.Addr())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := d.Open(t.Context())
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.EqualValues(t, 1, l.count.Load(), "callers dial on their own")
}

func TestDialerDialsAgainWhenItsSessionDied(t *testing.T) {
	l := listen(t, SessionConfig{})
	d := newTestDialer(t, l)
	for range 3 {
		_, err := d.Open(t.Context())
		require.NoError(t, err)
		(<-l.sessions).conn.Close() // as when the daemon dies
		<-d.all()[0].Done()
	}
	stream, err := d.Open(t.Context())
	require.NoError(t, err)
	_, err = stream.Write([]byte("x"))
	assert.NoError(t, err)
	<-l.sessions
	assert.EqualValues(t, 4, l.count.Load())
}

// Half of what a session allows goes over the first one, then over a second:
// the peer counts a stream for a while after it was closed here.
func TestDialerMakesAnotherSessionWhenOneIsFull(t *testing.T) {
	l := listen(t, SessionConfig{MaxStreams: 4})
	d := newTestDialer(t, l)
	var streams []Stream
	for i := range 7 {
		stream, err := d.Open(t.Context())
		require.NoError(t, err)
		streams = append(streams, stream)
		require.Eventually(t, func() bool { return l.count.Load() == int32(i/2+1) }, 10*time.Second, time.Millisecond, "%d streams", i+1)
	}
	assert.Equal(t, 4, d.MaxStreams())

	first := d.all()[0]
	streams[0].Close()
	require.Eventually(t, first.hasRoom, 10*time.Second, time.Millisecond)
	for range 2 { // into the first session, then into the last
		_, err := d.Open(t.Context())
		require.NoError(t, err)
	}
	assert.Equal(t, 2, first.Streams())
	assert.EqualValues(t, 4, l.count.Load(), "room is left")
}

// A session that died is not counted, also when all of its streams are in use.
func TestDialerForgetsFullSessionsThatDied(t *testing.T) {
	l := listen(t, SessionConfig{MaxStreams: 2})
	d := newTestDialer(t, l)
	for range 3 {
		_, err := d.Open(t.Context())
		require.NoError(t, err)
	}
	all := d.all()
	for range all { // the peer's end of the first
		if s := <-l.sessions; s.RemoteAddr().String() == all[0].conn.LocalAddr().String() {
			s.conn.Close()
		}
	}
	<-all[0].Done()
	_, err := d.Open(t.Context())
	require.NoError(t, err)
	assert.NotSame(t, all[0], d.all()[0], "it is forgotten")
}

// When there may be no more sessions, those that there are get full.
func TestDialerIsBusyInTheEnd(t *testing.T) {
	l := listen(t, SessionConfig{MaxStreams: 2})
	d := newTestDialer(t, l)
	for range 2 * maxSessions {
		_, err := d.Open(t.Context())
		require.NoError(t, err)
	}
	_, err := d.Open(t.Context())
	assert.True(t, HasCode(err, CodeBusy), "%v", err)
	assert.EqualValues(t, maxSessions, l.count.Load())
	assert.Len(t, d.all(), maxSessions, "a full session is not a dead one")
}

func TestDialerSaysWhatAFailureMeans(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	ln.Close()
	_, err = NewDialer(addr, SessionConfig{}).Open(t.Context())
	assert.True(t, HasCode(err, CodeUnreachable), "%v", err)
	assert.Equal(t, "connection refused: is it running there?", err.Error())

	assert.Equal(t, `no such host "nowhere"`, dialError(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "x", Name: "nowhere"}}).Error())
}

func TestDialerEndsWithItsContext(t *testing.T) {
	d := NewDialer("127.0.0.1:1", SessionConfig{})
	d.dialling = &dialling{begun: time.Now(), done: make(chan struct{})} // another caller is dialling
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errLost)
	_, err := d.Open(ctx)
	assert.Equal(t, errLost, err)
}

func TestClosedDialerOpensNothing(t *testing.T) {
	l := listen(t, SessionConfig{})
	d := newTestDialer(t, l)
	_, err := d.Open(t.Context())
	require.NoError(t, err)
	s := d.all()[0]
	require.NoError(t, d.Close())
	require.NoError(t, d.Close())
	<-s.Done()
	_, err = d.Open(t.Context())
	assert.ErrorIs(t, err, net.ErrClosed)

	_, err = NewDialer("127.0.0.1:1", SessionConfig{}).Open(t.Context())
	assert.NotErrorIs(t, err, net.ErrClosed)
}

func TestConnectHasASessionReady(t *testing.T) {
	l := listen(t, SessionConfig{Agent: "server"})
	d := newTestDialer(t, l)
	s, err := d.Connect(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "server", peerOf(t, s).Agent)
	again, err := d.Connect(t.Context())
	require.NoError(t, err)
	assert.Same(t, s, again)
	_, err = d.Open(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 1, l.count.Load())

	(<-l.sessions).conn.Close()
	<-s.Done()
	s, err = d.Connect(t.Context())
	require.NoError(t, err)
	assert.Same(t, s, d.live())
	assert.EqualValues(t, 2, l.count.Load())
}

// Whoever has a transfer to offer does not wait for what was only to be ready.
func TestConnectMakesWay(t *testing.T) {
	l := listen(t, SessionConfig{})
	d := newTestDialer(t, l)
	conn, err := d.connect(t.Context())
	require.NoError(t, err)
	_, err = d.Open(t.Context())
	require.NoError(t, err)
	s, err := d.install(conn)
	require.NoError(t, err)
	assert.NotSame(t, conn, s)
	<-conn.Done()

	d.Close()
	_, err = d.Connect(t.Context())
	assert.ErrorIs(t, err, net.ErrClosed)
}

// Who comes while a dial takes long does not wait for it, nor do they all dial
// one after the other: a black hole costs each of them one timeout.
func TestDialsOfABlackHoleAreShared(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word
	require.NoError(t, err)
	defer ln.Close()
	d := NewDialer(ln.Addr().String(), SessionConfig{})
	defer d.Close()
	first, err := d.Open(t.Context())
	require.NoError(t, err, "the first stream does not wait for the peer's Hello")
	defer first.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	var waiting sync.WaitGroup
	for range 50 {
		waiting.Go(func() {
			_, err := d.Open(ctx)
			assert.Equal(t, errLost, err)
		})
	}
	require.Eventually(t, func() bool { return d.mu.TryLock() }, 10*time.Second, time.Millisecond, "who waits holds nobody up")
	d.mu.Unlock()
	cancel(errLost)
	waiting.Wait()
	assert.Len(t, d.all(), 1)

	d.drop(d.all()[0])
	d.mu.Lock()
	one := d.dialLocked()
	assert.Same(t, one, d.dialLocked(), "a fresh dial is joined")
	one.begun = time.Now().Add(-joinable)
	other := d.dialLocked()
	d.mu.Unlock()
	assert.NotSame(t, one, other, "one that takes long is not")
}
