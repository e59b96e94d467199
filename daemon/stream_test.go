// Streams that do not begin as they should.

package daemon_test

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

func openStream(t *testing.T, addr string) protocol.Stream {
	t.Helper()
	d := protocol.NewDialer(addr, protocol.SessionConfig{})
	stream, err := d.Open(patient(t))
	require.NoError(t, err)
	t.Cleanup(func() {
		stream.Close()
		d.Close()
	})
	return stream
}

// answer is the first frame of a daemon's answer.
func answer(t *testing.T, stream protocol.Stream) protocol.Message {
	t.Helper()
	got := make(chan protocol.Message, 1)
	go func() {
		defer close(got)
		f, err := protocol.NewFrameReader(stream).Next()
		if !assert.NoError(t, err) {
			return
		}
		m, err := protocol.ParseMessage(f.Kind, f.Payload)
		assert.NoError(t, err)
		got <- m
	}()
	return receive(t, got, "the answer")
}

func TestStreamMustBeginWithAnOfferOrAQuery(t *testing.T) {
	s := newStore(t)
	n := reader(t, s)
	data := protocol.NewChunk(4)
	copy(data.Buffer(), "data")
	data.Seal(0, 4, protocol.CodecRaw, 4)
	damaged := protocol.AppendFrame(nil, protocol.KindOffer, 0, []byte(`{"name":"f"}`))
	damaged[10] ^= 1
	for _, c := range []struct {
		name  string
		bytes []byte
		code  protocol.Code
	}{
		{"finish", protocol.AppendFrame(nil, protocol.KindFinish, 0, []byte(`{"size":0}`)), protocol.CodeProtocol},
		{"commit", protocol.AppendFrame(nil, protocol.KindCommit, 0, nil), protocol.CodeProtocol},
		{"receipt", protocol.AppendFrame(nil, protocol.KindReceipt, 0, nil), protocol.CodeProtocol},
		{"ack", protocol.AppendAck(nil, 0), protocol.CodeProtocol},
		{"ping", protocol.AppendFrame(nil, protocol.KindPing, 0, nil), protocol.CodeProtocol},
		{"chunk", data.Frame(), protocol.CodeProtocol},
		{"unknown kind", protocol.AppendFrame(nil, 99, 0, nil), protocol.CodeProtocol},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), protocol.CodeProtocol},
		{"no JSON", protocol.AppendFrame(nil, protocol.KindOffer, 0, []byte(`{`)), protocol.CodeProtocol},
		{"name outside", protocol.AppendFrame(nil, protocol.KindOffer, 0, []byte(`{"name":"../f"}`)), protocol.CodeName},
		{"bad query", protocol.AppendFrame(nil, protocol.KindQuery, 0, []byte(`{"hops":-1}`)), protocol.CodeLoop},
		{"damaged", damaged, protocol.CodeChecksum},
	} {
		t.Run(c.name, func(t *testing.T) {
			stream := openStream(t, n.addr)
			_, err := stream.Write(c.bytes)
			require.NoError(t, err)
			reject, ok := answer(t, stream).(*protocol.Reject)
			require.True(t, ok)
			assert.Equal(t, c.code, reject.Code)
			assert.NotEmpty(t, reject.Text)
		})
	}
	_, err := push(t, n.addr, newOffer("f", 4, protocol.All), []byte("data"))
	require.NoError(t, err, "the daemon is none the worse for it")
}

// What comes before an offer may be anything that a newer peer says can be skipped.
func TestStreamMayBeginWithWhatCanBeSkipped(t *testing.T) {
	n := reader(t, newStore(t))
	stream := openStream(t, n.addr)
	b := protocol.AppendFrame(nil, 99, protocol.FlagSkip, []byte("from the future"))
	b = protocol.AppendFrame(b, protocol.KindOffer, 0, []byte(`{"name":"f","news":1}`))
	_, err := stream.Write(b)
	require.NoError(t, err)
	accept, ok := answer(t, stream).(*protocol.Accept)
	require.True(t, ok)
	assert.Len(t, accept.Leaves, 1)
}

func TestConnectionMustBeginWithHello(t *testing.T) {
	n := reader(t, newStore(t))
	for _, first := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		protocol.AppendFrame(nil, protocol.KindOffer, 0, []byte(`{"name":"f"}`)),
		make([]byte, 64),
	} {
		conn, err := net.Dial("tcp", n.addr)
		require.NoError(t, err)
		_, err = conn.Write(first)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		answer, err := io.ReadAll(conn)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is closed at once")
		assert.Empty(t, answer)
		conn.Close()
	}
	assert.Zero(t, n.Status().Sessions)
}

func TestSessionHasSoManyStreamsAndNoMore(t *testing.T) {
	n := serve(t, leafOver(t, newStore(t)), daemon.Options{MaxStreams: 2})
	conn, err := net.Dial("tcp", n.addr)
	require.NoError(t, err)
	s, err := protocol.DialSession(patient(t), conn, protocol.SessionConfig{})
	require.NoError(t, err)
	defer s.Close()
	for range 2 {
		stream, err := s.Open(patient(t))
		require.NoError(t, err)
		defer stream.Close()
	}
	_, err = s.Open(patient(t))
	assertCode(t, protocol.CodeBusy, err)
}
