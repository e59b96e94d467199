package protocol

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestSessionSaysHelloBothWays(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{Agent: "one", MaxStreams: 3}, SessionConfig{Agent: "two"})
	assert.Equal(t, Hello{Versions: []int{Version}, Agent: "two", MaxStreams: DefaultMaxStreams}, peerOf(t, client))
	assert.Equal(t, Hello{Versions: []int{Version}, Agent: "one", MaxStreams: 3}, peerOf(t, server))
	assert.Equal(t, client.RemoteAddr(), server.conn.LocalAddr())
}

func TestStreamsAreHalfClosed(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
	echo(t, server)
	content := random(1<<20, 12) // more than smux lets through before it is read
	got, err := ask(client, content)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
}

func TestManyStreamsAtOnce(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
	echo(t, server)
	var wg sync.WaitGroup
	for i := range DefaultMaxStreams {
		wg.Go(func() {
			question := bytes.Repeat([]byte(fmt.Sprint(i, " ")), 10_000)
			answer, err := ask(client, question)
			if assert.NoError(t, err) {
				assert.True(t, bytes.Equal(question, answer), "stream %d got another's answer", i)
			}
		})
	}
	wg.Wait()
}

func TestStreamsOpenBothWays(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
	echo(t, client)
	got, err := ask(server, []byte("hello"))
	require.NoError(t, err)
	assert.Equal(t, "hello", string(got))
}

func TestOpenKeepsToThePeersLimit(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{MaxStreams: 2})
	echo(t, server)
	first, err := client.Open(context.Background())
	require.NoError(t, err)
	_, err = client.Open(context.Background())
	require.NoError(t, err)
	assert.Equal(t, 2, client.Streams())
	_, err = client.Open(context.Background())
	assert.True(t, HasCode(err, CodeBusy), "%v", err)
	assert.ErrorContains(t, err, "all 2 streams")

	require.NoError(t, first.Close())
	require.NoError(t, first.Close(), "Close is not idempotent")
	require.Eventually(t, func() bool { // the stream is closed behind Close's back
		got, err := ask(client, []byte("hello"))
		return err == nil && string(got) == "hello"
	}, time.Minute, time.Millisecond)
}

// A peer that ignores the limit is told so on the stream.
func TestStreamsOverTheLimitAreRejected(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{MaxStreams: 2})
	peerOf(t, client)
	client.peer.MaxStreams = 0
	accepted := make(chan Stream, 10)
	go func() {
		defer close(accepted)
		for stream, err := server.Accept(); err == nil; stream, err = server.Accept() {
			accepted <- stream
		}
	}()
	for range 2 {
		_, err := client.Open(context.Background())
		require.NoError(t, err)
		<-accepted
	}
	stream, err := client.Open(context.Background())
	require.NoError(t, err)
	fr := NewFrameReader(stream)
	f, err := fr.Next()
	require.NoError(t, err)
	m, err := ParseMessage(f.Kind, f.Payload)
	require.NoError(t, err)
	assert.Equal(t, CodeBusy, m.(*Reject).Code)
	_, err = fr.Next()
	assert.Equal(t, io.EOF, err)
	assert.Empty(t, accepted)
	server.Close()
	<-accepted // closed: the goroutine has ended
}

func TestSessionEndsWithThePeers(t *testing.T) {
	ends := map[string]func(*Session){
		"closed":         func(s *Session) { s.Close() },
		"process killed": func(s *Session) { s.conn.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
			stream, err := client.Open(context.Background())
			require.NoError(t, err)
			end(server)
			<-client.Done()
			_, err = client.Accept()
			assert.Equal(t, io.EOF, err)
			_, err = client.Open(context.Background())
			assert.True(t, HasCode(err, CodeUnreachable), "%v", err)
			_, err = stream.Read(make([]byte, 1))
			assert.Error(t, err)
			_, err = stream.Write([]byte("x"))
			assert.True(t, HasCode(err, CodeUnreachable), "%v", err)
		})
	}
}

// Where no streams are expected nobody accepts: that a peer opens one all the
// same must not keep the end of the connection from being noticed.
func TestSessionEndsThoughAStreamWaitsToBeAccepted(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
	for range 2 {
		_, err := server.Open(context.Background())
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return client.Streams() > 0 }, time.Minute, time.Millisecond)
	server.conn.Close()
	select {
	case <-client.Done():
	case <-time.After(keepaliveTimeout - time.Second):
		t.Error("noticed by nothing but the keepalive of smux")
	}
}

// smux closes the link of a peer that hangs, without a word: whoever reads and
// whoever is held up writing are told why.
func TestStreamsSayThatSmuxGaveUp(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
	stream, err := client.Open(t.Context())
	require.NoError(t, err)
	_, err = server.Accept()
	require.NoError(t, err)
	ends := make(chan error, 2)
	go func() { _, err := stream.Read(make([]byte, 1)); ends <- err }()
	begun := make(chan struct{})
	go func() {
		var err error
		for i := 0; err == nil; i++ { // until nothing more fits, as the peer reads nothing
			if _, err = stream.Write(make([]byte, 1<<20)); i == 0 {
				close(begun)
			}
		}
		ends <- err
	}()
	<-begun
	client.link.Close()
	for range 2 {
		err := <-ends
		assert.True(t, HasCode(err, CodeDead), "%v", err)
	}
}

func TestCloseIsIdempotentAndEndsEverything(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
	stream, err := client.Open(context.Background())
	require.NoError(t, err)
	silent, err := server.Accept()
	require.NoError(t, err)

	reads, writes, accepts := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() { _, err := stream.Read(make([]byte, 1)); reads <- err }()
	go func() {
		var err error
		for err == nil { // until nothing more fits, as the peer reads nothing
			_, err = stream.Write(make([]byte, 1<<20))
		}
		writes <- err
	}()
	go func() { _, err := client.Accept(); accepts <- err }()

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { assert.NoError(t, client.Close()) })
	}
	wg.Wait()
	assert.Error(t, <-reads)
	assert.Error(t, <-writes)
	assert.Equal(t, io.EOF, <-accepts)
	select {
	case <-client.Done():
	default:
		t.Error("Close returned before the session had ended")
	}
	assert.NoError(t, stream.CloseWrite(), "after the session")
	assert.NoError(t, stream.Close(), "after the session")
	assert.NoError(t, silent.Close())
}

// A peer that reads nothing holds up even what opens a stream.
func TestOpenWaitsNoLongerThanItsContext(t *testing.T) {
	before := goleak.IgnoreCurrent()
	conn, peer := net.Pipe()
	go func() {
		_, _ = NewFrameReader(peer).Next()
		_ = writeMessage(peer, &Hello{Versions: []int{Version}})
	}()
	s, err := DialSession(t.Context(), conn, SessionConfig{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errLost)
	_, err = s.Open(ctx)
	assert.Equal(t, errLost, err)
	assert.Zero(t, s.Streams(), "a stream that nobody has is counted")
	require.NoError(t, s.Close())
	peer.Close()
	goleak.VerifyNone(t, before)
}

// What has no writev, as TLS.
func TestSessionOverAnyConnection(t *testing.T) {
	a, b := net.Pipe()
	accepted := make(chan *Session, 1)
	go func() {
		s, err := AcceptSession(t.Context(), b, SessionConfig{})
		assert.NoError(t, err)
		accepted <- s
	}()
	client, err := DialSession(t.Context(), a, SessionConfig{})
	require.NoError(t, err)
	defer client.Close()
	echo(t, <-accepted)
	content := random(1<<20, 15)
	got, err := ask(client, content)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
}

func TestClosedStreamCannotBeUsed(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
	echo(t, server)
	stream, err := client.Open(context.Background())
	require.NoError(t, err)
	require.NoError(t, stream.Close())
	require.Eventually(t, func() bool { return client.Streams() == 0 }, time.Minute, time.Millisecond)
	_, err = stream.Write([]byte("x"))
	assert.Error(t, err)
	_, err = stream.Read(make([]byte, 1))
	assert.Error(t, err)
	_, err = ask(client, []byte("x"))
	assert.NoError(t, err, "the session went down with one stream")
}

func TestSessionConfigDefaults(t *testing.T) {
	c := SessionConfig{}.withDefaults()
	assert.EqualValues(t, DefaultWindow, c.Window)
	assert.Equal(t, DefaultMaxStreams, c.MaxStreams)
}

func TestCheckWindow(t *testing.T) {
	for _, n := range []int64{minWindow, DefaultWindow, MaxWindow} {
		assert.NoError(t, CheckWindow(n))
	}
	for _, n := range []int64{-1, 0, minWindow - 1, MaxWindow + 1} {
		assert.Error(t, CheckWindow(n), "%d", n)
	}
}

// The parts together, over a real connection.
func TestTransferOverASession(t *testing.T) {
	client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
	content := append(random(3<<20, 13), text(3<<20)...)
	sink := &fakeSink{}
	var wg sync.WaitGroup
	wg.Go(func() {
		stream, err := server.Accept()
		if !assert.NoError(t, err) {
			return
		}
		frames := NewFrameReader(stream)
		f, err := frames.Next()
		if !assert.NoError(t, err) {
			return
		}
		m, err := ParseMessage(f.Kind, f.Payload)
		if !assert.NoError(t, err) {
			return
		}
		_, err = NewReceiver(stream, frames, m.(*Offer), sink, testWindow).Run(t.Context())
		assert.NoError(t, err)
	})
	stream, err := client.Open(context.Background())
	require.NoError(t, err)
	h := &hop{Sender: NewSender(stream, SenderConfig{}), sink: sink}
	a, err := h.Offer(t.Context(), offer(int64(len(content))))
	require.NoError(t, err)
	h.sendAll(t, content, 0, a.MaxChunk)
	_, err = h.Finish(t.Context(), &Finish{Size: int64(len(content))})
	require.NoError(t, err)
	receipts, err := h.Commit(t.Context())
	require.NoError(t, err)
	h.Close()
	h.Wait()
	wg.Wait()
	assert.Equal(t, int64(len(content)), receipts[0].Bytes)
	assert.True(t, bytes.Equal(content, sink.content.Bytes()))
}
