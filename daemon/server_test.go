// The server: sessions, streams, and the way it ends.

package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

func TestManyTransfersAtOnce(t *testing.T) {
	stores := []*store{newStore(t), newStore(t), newStore(t)}
	b, readers := broadcaster(t, never, stores...)
	d := protocol.NewDialer(b.addr, protocol.SessionConfig{})
	defer d.Close()
	var pushes sync.WaitGroup
	size := func(i int) int { return i * 7919 }
	for i := range 50 {
		pushes.Go(func() {
			stream, err := d.Open(patient(t))
			if !assert.NoError(t, err) {
				return
			}
			p := &pusher{t: t, Sender: protocol.NewSender(stream, protocol.SenderConfig{}), hasher: protocol.NewHasher(protocol.DigestXXH128)}
			defer p.Wait()
			defer p.Close()
			assert.NoError(t, p.offer(newOffer(fmt.Sprint("f", i), size(i), protocol.All)))
			assert.NoError(t, p.send(random(size(i))))
			_, err = p.finish()
			assert.NoError(t, err)
			receipts, err := p.commit()
			assert.NoError(t, err)
			assert.Len(t, receipts, 3)
		})
	}
	pushes.Wait()
	for i := range 50 {
		for _, s := range stores {
			assertPublished(t, s, fmt.Sprint("f", i), random(size(i)))
		}
	}
	for _, n := range append(readers, b) {
		assert.Equal(t, 1, n.count(), "one session carries them all")
	}
}

// Serve returns, and with it the listener is closed.
func TestShutdownOfAnIdleServer(t *testing.T) {
	s := reader(t, newStore(t))
	p := begin(t, s.addr, newOffer("f", 0, protocol.All)) // its session stays open
	p.complete()
	p.Close()
	assert.NoError(t, awaitEnd(t, s).err)
	require.NoError(t, s.Shutdown(patient(t)))
	_, err := net.Dial("tcp", s.addr)
	require.Error(t, err)
	require.NoError(t, s.Shutdown(patient(t)), "again does no harm")
	require.NoError(t, s.Serve(listen(t)), "a server that was shut down serves no more")
}

func TestShutdownDrains(t *testing.T) {
	for _, until := range []string{"content", "publish"} {
		t.Run(until, func(t *testing.T) {
			s := newStore(t)
			gate := make(chan struct{})
			if until == "content" {
				s.writing = gate
			} else {
				s.publishing = gate
			}
			b, readers := broadcaster(t, never, s)
			content := random(2 * piece)
			p := begin(t, b.addr, newOffer("f", len(content), protocol.All))
			idle, err := p.dialer.Open(patient(t)) // on the same session, for later
			require.NoError(t, err)
			require.NoError(t, p.send(content))
			receipts := make(chan []protocol.Receipt, 1)
			go func() {
				_, err := p.finish()
				assert.NoError(t, err)
				all, err := p.commit()
				assert.NoError(t, err)
				p.Close()
				receipts <- all
			}()
			s.await(t, map[string]string{"content": "write", "publish": "publish"}[until])

			down := make(chan error, 2)
			for _, n := range []*node{b, readers[0]} {
				go func() { down <- n.Shutdown(patient(t)) }()
			}
			eventually(t, "the listener to close", func() bool {
				conn, err := net.Dial("tcp", b.addr)
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
			late := protocol.NewSender(idle, protocol.SenderConfig{})
			_, err = late.Offer(patient(t), newOffer("late", 0, protocol.All))
			assertCode(t, protocol.CodeShutdown, err)
			late.Close()
			late.Wait()
			assert.Empty(t, down)

			close(gate)
			assert.Equal(t, protocol.LeafPublished, receive(t, receipts, "the receipts")[0].Status)
			for range 2 {
				require.NoError(t, receive(t, down, "Shutdown to return"))
			}
			assertPublished(t, s, "f", content)
		})
	}
}

// When its patience is over a server ends what is under way and says why.
func TestShutdownEndsTransfers(t *testing.T) {
	for _, c := range []struct {
		name   string
		cause  error
		code   protocol.Code
		forget bool
	}{
		{"in time", nil, protocol.CodeShutdown, false},
		{"for another reason", errElsewhere, protocol.CodeShutdown, false},
		{"at its terminal", protocol.ErrInterrupted, protocol.CodeInterrupted, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			s.writing = make(chan struct{})
			b, readers := broadcaster(t, never, s)
			p := begin(t, b.addr, newOffer("f", piece, protocol.All))
			require.NoError(t, p.send(random(piece)))
			s.await(t, "write")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(c.cause)
			require.ErrorIs(t, b.Shutdown(ctx), context.Canceled)
			assertCode(t, c.code, receive(t, p.ended, "the end of the push"))
			err := awaitEnd(t, b).err
			assertCode(t, c.code, err)
			assert.Equal(t, c.forget, isForget(err))
			err = awaitEnd(t, readers[0]).err
			require.Error(t, err)
			assert.Equal(t, c.forget, isForget(err), "%v", err)
			assertNothingPublished(t, s)
		})
	}
}

// A store that hangs must not keep a daemon from stopping.
func TestShutdownEndsWhatHangs(t *testing.T) {
	for _, c := range []struct {
		name string
		hang func(s *store, gate chan struct{})
	}{
		{"write", func(s *store, gate chan struct{}) { s.writing = gate }},
		{"stage", func(s *store, gate chan struct{}) { s.staging = gate }},
		{"publish", func(s *store, gate chan struct{}) { s.publishing = gate }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			gate := make(chan struct{})
			c.hang(s, gate)
			n := reader(t, s)
			content := random(piece)
			p := begin(t, n.addr, newOffer("f", len(content), protocol.All))
			require.NoError(t, p.send(content))
			ended := make(chan error, 1)
			go func() {
				_, err := p.finish()
				if err == nil {
					_, err = p.commit()
				}
				ended <- err
				p.Close()
			}()
			s.await(t, c.name)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			down := make(chan error, 1)
			go func() { down <- n.Shutdown(ctx) }()
			select {
			case err := <-down:
				require.ErrorIs(t, err, context.Canceled)
			case <-time.After(patience):
				close(gate)
				require.FailNow(t, "Shutdown waits for a store that hangs")
			}
			receive(t, ended, "the end of the push")
			assertNothingPublished(t, s)
		})
	}
}

var errElsewhere = errors.New("something else")

func isForget(err error) bool { return errors.Is(err, protocol.ErrForget) }

// lateListener yields its connection only when it is closed, as the system may.
type lateListener struct {
	net.Listener
	conn      chan net.Conn
	accepting chan struct{} // capacity 2
	closed    chan struct{}
	once      sync.Once
}

func (l *lateListener) Accept() (net.Conn, error) {
	l.accepting <- struct{}{}
	<-l.closed
	select {
	case conn := <-l.conn:
		return conn, nil
	default:
		return nil, net.ErrClosed
	}
}

func (l *lateListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func TestConnectionThatComesWithTheShutdown(t *testing.T) {
	own, theirs := net.Pipe()
	defer own.Close()
	ln := &lateListener{conn: make(chan net.Conn, 1), accepting: make(chan struct{}, 2), closed: make(chan struct{})}
	ln.conn <- theirs
	s := daemon.NewServer(leafOver(t, newStore(t)), daemon.Options{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	receive(t, ln.accepting, "Accept")
	require.NoError(t, s.Shutdown(patient(t)))
	require.NoError(t, receive(t, served, "Serve to return"))
	_ = own.SetReadDeadline(time.Now().Add(protocol.HelloTimeout / 2)) // fails when it is closed already
	_, err := own.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "it is closed")
}

func TestIdleSessionIsClosed(t *testing.T) {
	s := newStore(t)
	s.writing = make(chan struct{})
	n := serve(t, leafOver(t, s), daemon.Options{Idle: 50 * time.Millisecond})
	busy := begin(t, n.addr, newOffer("f", piece, protocol.All))
	require.NoError(t, busy.send(random(piece)))
	s.await(t, "write")
	for range 3 { // one after the other, so that the busy session is older than they get
		conn, err := net.Dial("tcp", n.addr)
		require.NoError(t, err)
		idle, err := protocol.DialSession(patient(t), conn, protocol.SessionConfig{})
		require.NoError(t, err)
		receive(t, idle.Done(), "the idle session to be closed")
		idle.Close()
	}
	close(s.writing)
	busy.complete()
	_, published := s.file("f")
	assert.True(t, published)
}

func TestSessionsOfUsersComeBackAfterIdling(t *testing.T) {
	s := newStore(t)
	n := serve(t, leafOver(t, s), daemon.Options{Idle: 20 * time.Millisecond})
	b := serve(t, fanout(t, never, hop("r1", n.addr)), daemon.Options{})
	for i, name := range []string{"a", "b", "c"} {
		_, err := push(t, b.addr, newOffer(name, 1, protocol.All), []byte(name))
		require.NoError(t, err)
		assertPublished(t, s, name, []byte(name))
		assert.LessOrEqual(t, n.count(), i+1)
		eventually(t, "the hop's session to be closed", func() bool { return n.Status().Sessions == 0 })
	}
	assert.Equal(t, 3, n.count())
}
