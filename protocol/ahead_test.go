package protocol

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A client says what it wants behind its Hello, before it has the server's.

// rawServer runs f on the one connection that comes to its address.
func rawServer(t *testing.T, f func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		f(conn)
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return ln.Addr().String()
}

// offerTo makes an offer to addr and returns why it was not accepted.
func offerTo(t *testing.T, addr string) error {
	t.Helper()
	d := NewDialer(addr, SessionConfig{})
	defer d.Close()
	stream, err := d.Open(t.Context())
	if err != nil {
		return err
	}
	s := NewSender(stream, SenderConfig{})
	defer s.Wait()
	defer s.Close()
	_, err = s.Offer(t.Context(), &Offer{Name: "f", Digest: DigestNone, Size: 1, Hops: 8})
	require.Error(t, err)
	return err
}

func TestClientDoesNotWaitForHello(t *testing.T) {
	addr := rawServer(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		_, err := readHello(bufferedConn{conn, in})
		assert.NoError(t, err)
		// The stream and what is on it, as smux has them, and no answer so far.
		syn := make([]byte, linkHeaderSize)
		_, err = io.ReadFull(in, syn)
		assert.NoError(t, err)
		assert.EqualValues(t, cmdSYN, syn[1])
		_, err = io.ReadFull(in, syn)
		assert.NoError(t, err)
		assert.EqualValues(t, cmdPSH, syn[1])
		f, err := NewFrameReader(in).Next()
		assert.NoError(t, err)
		assert.Equal(t, KindOffer, f.Kind)
	})
	assert.True(t, HasCode(offerTo(t, addr), CodeUnreachable))
}

type bufferedConn struct {
	net.Conn
	in *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// A connection that is closed with unread bytes is reset, and the reason lost
// on the way, unless the server sees to it.
func TestRefusalIsReadByAClientThatWentAhead(t *testing.T) {
	for range 20 {
		client, server := tcpPair(t)
		refused := make(chan error, 1)
		go func() {
			_, err := AcceptSession(t.Context(), server, SessionConfig{})
			refused <- err
		}()
		require.NoError(t, writeMessage(client, &Hello{Versions: []int{9}, Agent: "sbcast 9"}))
		_, err := client.Write(make([]byte, 64<<10))
		require.NoError(t, err)
		time.Sleep(time.Millisecond) // let a reset overtake it
		_, err = client.Write(make([]byte, 64<<10))
		require.NoError(t, err)
		require.NoError(t, client.(*net.TCPConn).CloseWrite())
		all, err := io.ReadAll(client)
		require.NoError(t, err)
		f := readFrame(t, all)
		assert.Equal(t, KindReject, f.Kind)
		assert.Contains(t, string(f.Payload), `"version"`)
		assert.True(t, HasCode(<-refused, CodeVersion))
		client.Close()
	}
}

func TestRefusalOfTheVersionEndsTheOffer(t *testing.T) {
	for range 20 {
		addr := rawServer(t, func(conn net.Conn) {
			_, err := readHello(conn)
			assert.NoError(t, err)
			_ = writeMessage(conn, &Reject{Code: CodeVersion, Text: "upgrade"})
			drain(conn)
		})
		err := offerTo(t, addr)
		assert.True(t, HasCode(err, CodeVersion), "%v", err)
		assert.ErrorContains(t, err, "upgrade")
		assert.ErrorContains(t, err, "hello with "+addr)
	}
}

func TestHelloOfAnotherVersionEndsTheOffer(t *testing.T) {
	addr := rawServer(t, func(conn net.Conn) {
		_, _ = readHello(conn)
		_ = writeMessage(conn, &Hello{Versions: []int{2, 3}, Agent: "sbcast 9"})
		_, _ = io.Copy(io.Discard, conn)
	})
	err := offerTo(t, addr)
	assert.True(t, HasCode(err, CodeVersion), "%v", err)
	assert.ErrorContains(t, err, "[2 3]")
}

func TestOfferToAnHTTPServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Serve(ln) }()
	defer func() { srv.Close(); <-ended }()
	for range 20 {
		begun := time.Now()
		err := offerTo(t, ln.Addr().String())
		assert.True(t, HasCode(err, CodeProtocol), "%v", err)
		assert.ErrorContains(t, err, "does not speak sbcast")
		assert.Less(t, time.Since(begun), HelloTimeout/2)
	}
}

// Nothing that comes before the server's Hello is taken for an answer.
func TestFramesBeforeHelloAreNoAnswer(t *testing.T) {
	addr := rawServer(t, func(conn net.Conn) {
		_, _ = readHello(conn)
		_, _ = conn.Write([]byte{linkVersion, cmdNOP, 0, 0, 0, 0, 0, 0})
		_, _ = io.Copy(io.Discard, conn)
	})
	assert.ErrorContains(t, offerTo(t, addr), "does not speak sbcast")
}

func TestSlowHelloHoldsUpOnlyTheSecondStream(t *testing.T) {
	hello := make(chan struct{})
	addr := rawServer(t, func(conn net.Conn) {
		_, _ = readHello(conn)
		<-hello
		_ = writeHello(conn, &Hello{Versions: []int{Version}, MaxStreams: 1})
		_, _ = io.Copy(io.Discard, conn)
	})
	d := NewDialer(addr, SessionConfig{})
	defer d.Close()
	_, err := d.Open(t.Context())
	require.NoError(t, err)
	assert.Zero(t, d.MaxStreams())

	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = d.Open(short)
	assert.ErrorIs(t, err, context.DeadlineExceeded)

	close(hello)
	_, err = d.Open(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, d.MaxStreams())
	assert.Equal(t, 2, len(d.all()), "a session that is full is not the last one")
}

// An answer can be complete, the end of its stream included, before anybody
// reads it.
func TestRejectCountsMoreThanTheEndBehindIt(t *testing.T) {
	in := newInbound()
	in.unread = bytes.Clone(rejectFrame(Errorf(CodeDenied, "not here")))
	in.end(io.EOF)
	err := in.each(nil, func(f Frame) error {
		m, err := ParseMessage(f.Kind, f.Payload)
		require.NoError(t, err)
		return m.(*Reject).asError()
	})
	assert.True(t, HasCode(err, CodeDenied), "%v", err)
}
