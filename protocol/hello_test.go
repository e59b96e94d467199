package protocol

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// These tests end before smux starts, which must not be in a synctest bubble.

// ends are both ways to make a session.
var ends = map[string]func(context.Context, net.Conn, SessionConfig) (*Session, error){
	"dial":   dialWithoutSmux,
	"accept": AcceptSession,
}

// dialWithoutSmux does what DialSession does, and what its session does before
// smux gets to read anything.
func dialWithoutSmux(ctx context.Context, conn net.Conn, cfg SessionConfig) (*Session, error) {
	if err := greet(ctx, conn, conn.SetWriteDeadline, func() error { return sayHello(conn, cfg) }); err != nil {
		return nil, err
	}
	s := newSession(conn, cfg, true)
	return nil, s.hear(conn)
}

// oneEnd is one end of a session in the making, with the test as its peer.
type oneEnd struct {
	client bool
	peer   net.Conn
	start  func(context.Context) error // must fail
}

func forBothEnds(t *testing.T, f func(t *testing.T, e oneEnd)) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, peer := net.Pipe()
				defer peer.Close()
				f(t, oneEnd{client: name == "dial", peer: peer, start: func(ctx context.Context) error {
					s, err := end(ctx, conn, SessionConfig{})
					assert.Nil(t, s)
					_, again := conn.Write([]byte("x"))
					assert.Equal(t, io.ErrClosedPipe, again, "the connection was left open")
					return err
				}})
			})
		})
	}
}

func TestSilentPeerIsGivenUp(t *testing.T) {
	forBothEnds(t, func(t *testing.T, e oneEnd) {
		begun := time.Now()
		err := e.start(t.Context())
		assert.True(t, HasCode(err, CodeDead), "%v", err)
		assert.ErrorContains(t, err, "no hello")
		assert.Equal(t, HelloTimeout, time.Since(begun))
	})
}

func TestHelloEndsWithItsContext(t *testing.T) {
	forBothEnds(t, func(t *testing.T, e oneEnd) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLost)
		defer cancel()
		begun := time.Now()
		err := e.start(ctx)
		assert.Equal(t, time.Second, time.Since(begun))
		assert.ErrorIs(t, err, errLost, "the error does not say why it ended")
	})
}

// cancellingConn has its context cancelled when the deadline of Hello is set.
type cancellingConn struct {
	net.Conn
	cancel context.CancelFunc
}

func (c cancellingConn) SetDeadline(t time.Time) error {
	c.cancelAt(t)
	return c.Conn.SetDeadline(t)
}

func (c cancellingConn) SetWriteDeadline(t time.Time) error {
	c.cancelAt(t)
	return c.Conn.SetWriteDeadline(t)
}

func (c cancellingConn) cancelAt(t time.Time) {
	if t.After(time.Now()) {
		c.cancel()
		synctest.Wait() // whatever waits for the context has run
	}
}

func TestContextThatEndsAsHelloBeginsIsNotMissed(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, peer := net.Pipe()
				defer peer.Close()
				ctx, cancel := context.WithCancel(t.Context())
				begun := time.Now()
				_, err := end(ctx, cancellingConn{conn, cancel}, SessionConfig{})
				require.Error(t, err)
				assert.Zero(t, time.Since(begun), "the deadline of Hello replaced that of the context")
			})
		})
	}
}

func TestPeerThatHangsUpBeforeHello(t *testing.T) {
	forBothEnds(t, func(t *testing.T, e oneEnd) {
		go func() {
			_, _ = io.ReadAtLeast(e.peer, make([]byte, 1024), headerSize) // what a client has to say
			e.peer.Close()
		}()
		time.AfterFunc(time.Second, func() { e.peer.Close() })
		err := e.start(t.Context())
		assert.True(t, HasCode(err, CodeUnreachable), "%v", err)
	})
}

func TestPeerThatHangsUpInHello(t *testing.T) {
	forBothEnds(t, func(t *testing.T, e oneEnd) {
		go func() {
			go io.Copy(io.Discard, e.peer)
			raw, _ := AppendMessage(nil, &Hello{Versions: []int{Version}})
			_, _ = e.peer.Write(raw[:len(raw)-1])
			e.peer.Close()
		}()
		assert.ErrorIs(t, e.start(t.Context()), io.ErrUnexpectedEOF)
	})
}

func TestPeerThatSpeaksAnotherVersion(t *testing.T) {
	forBothEnds(t, func(t *testing.T, e oneEnd) {
		answers := make(chan Kind, 2)
		go func() {
			defer close(answers)
			fr := NewFrameReader(e.peer)
			for f, err := fr.Next(); err == nil; f, err = fr.Next() {
				answers <- f.Kind
				if m, err := ParseMessage(f.Kind, f.Payload); err == nil && f.Kind == KindReject {
					assert.Equal(t, CodeVersion, m.(*Reject).Code)
				}
			}
		}()
		go writeMessage(e.peer, &Hello{Versions: []int{2, 3}, Agent: "sbcast 9"})
		err := e.start(t.Context())
		assert.True(t, HasCode(err, CodeVersion), "%v", err)
		assert.ErrorContains(t, err, "[2 3]")
		assert.ErrorContains(t, err, "sbcast 9")
		var got []Kind
		for kind := range answers {
			got = append(got, kind)
		}
		want := KindReject // a client that was refused learns why
		if e.client {
			want = KindHello
		}
		assert.Equal(t, []Kind{want}, got)
	})
}

func TestPeerThatSpeaksThisVersionAmongOthersIsNotRefusedForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := net.Pipe()
		defer conn.Close()
		defer peer.Close()
		go func() {
			_ = writeMessage(peer, &Hello{Versions: []int{9, Version, 0}})
			_, _ = io.Copy(io.Discard, peer)
		}()
		got, err := hearHello(conn, false)
		require.NoError(t, err)
		assert.Equal(t, []int{9, Version, 0}, got.Versions)
	})
}

func TestServerThatRefusesTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := net.Pipe()
		go func() {
			go io.Copy(io.Discard, peer)
			_ = writeMessage(peer, &Reject{Code: CodeUnauthorised, Text: "no certificate"})
			peer.Close()
		}()
		_, err := dialWithoutSmux(t.Context(), conn, SessionConfig{})
		assert.True(t, HasCode(err, CodeUnauthorised), "%v", err)
		assert.ErrorContains(t, err, "no certificate")
	})
}

// Anybody may connect: before Hello nothing else is read, and nothing long.
func TestPeerThatDoesNotSpeakSbcast(t *testing.T) {
	frame := func(kind Kind, n int) string { return string(AppendFrame(nil, kind, 0, make([]byte, n))) }
	greetings := map[string]string{
		"http server":   "HTTP/1.1 400 Bad Request\r\n\r\n",
		"http client":   "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"ssh":           "SSH-2.0-OpenSSH_9.6\r\n",
		"tls":           "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"zeros":         "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"offer":         frame(KindOffer, 100),
		"chunk":         frame(KindChunk, 100),
		"ping":          frame(KindPing, 0),
		"long hello":    frame(KindHello, maxGreeting+1),
		"skippable":     string(AppendFrame(nil, 99, FlagSkip, nil)),
		"smux v2 hello": "\x02\x00\x00\x00\x03\x00\x00\x00",
	}
	for name, greeting := range greetings {
		t.Run(name, func(t *testing.T) {
			forBothEnds(t, func(t *testing.T, e oneEnd) {
				go io.Copy(io.Discard, e.peer)
				go io.WriteString(e.peer, greeting)
				begun := time.Now()
				err := e.start(t.Context())
				if name == "tls" {
					assert.ErrorContains(t, err, "the peer speaks TLS")
					assert.True(t, HasCode(err, CodeUnauthorised), "%v", err)
				} else {
					assert.ErrorContains(t, err, "does not speak sbcast")
					assert.True(t, HasCode(err, CodeProtocol), "%v", err)
				}
				assert.Zero(t, time.Since(begun), "it takes long to find out")
			})
		})
	}
}

// pipeListener accepts one connection.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// A port mixed up is the mistake most often made: the gateway is next door.
func TestDialOfAnHTTPServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := net.Pipe()
		ln := &pipeListener{conns: make(chan net.Conn, 1), done: make(chan struct{})}
		ln.conns <- peer
		srv := &http.Server{}
		go srv.Serve(ln)
		defer srv.Close()
		begun := time.Now()
		_, err := dialWithoutSmux(t.Context(), conn, SessionConfig{})
		assert.ErrorContains(t, err, "does not speak sbcast")
		assert.Less(t, time.Since(begun), time.Second, "the server waits for the end of a line that never comes")
	})
}

func TestHTTPClientIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := net.Pipe()
		accepted := make(chan error, 1)
		go func() {
			_, err := AcceptSession(t.Context(), conn, SessionConfig{})
			accepted <- err
		}()
		client := http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return peer, nil },
		}}
		begun := time.Now()
		res, err := client.Post("http://localhost/f", "text/plain", http.NoBody)
		if !assert.Error(t, err) {
			res.Body.Close()
		}
		assert.Zero(t, time.Since(begun))
		assert.ErrorContains(t, <-accepted, "does not speak sbcast")
		client.CloseIdleConnections()
	})
}
