package protocol

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// tcpPair returns both ends of a connection over loopback.
func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	server, err = ln.Accept()
	require.NoError(t, err)
	return client, server
}

// sessionPair returns both ends of a session, and fails the test when they
// leave goroutines behind.
func sessionPair(t *testing.T, clientCfg, serverCfg SessionConfig) (client, server *Session) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	a, b := tcpPair(t)
	var serverErr error
	var wg sync.WaitGroup
	wg.Go(func() { server, serverErr = AcceptSession(t.Context(), b, serverCfg) })
	client, err := DialSession(t.Context(), a, clientCfg)
	wg.Wait()
	require.NoError(t, err)
	require.NoError(t, serverErr)
	t.Cleanup(func() {
		client.Close()
		server.Close()
		goleak.VerifyNone(t, before)
	})
	return client, server
}

// peerOf is what the peer of s said of itself.
func peerOf(t *testing.T, s *Session) Hello {
	t.Helper()
	peer, err := s.Peer(t.Context())
	require.NoError(t, err)
	return *peer
}

// echo answers every stream with what comes, until the session ends.
func echo(t *testing.T, s *Session) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			stream, err := s.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer stream.Close()
				b, _ := io.ReadAll(stream)
				_, _ = stream.Write(b)
			})
		}
	})
	t.Cleanup(func() {
		s.Close()
		wg.Wait()
	})
}

// ask writes question to a new stream and returns the answer.
func ask(s *Session, question []byte) ([]byte, error) {
	stream, err := s.Open(context.Background())
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	if _, err := stream.Write(question); err != nil {
		return nil, err
	}
	if err := stream.CloseWrite(); err != nil {
		return nil, err
	}
	return io.ReadAll(stream)
}
