package protocol

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A peer that gives up says why, and then its connection goes. What it said
// must win over how it went.

func TestRejectIsReadThoughTheConnectionBreaksBehindIt(t *testing.T) {
	for range 20 { // as smux picks at random between what came and how it ended
		client, server := sessionPair(t, SessionConfig{}, SessionConfig{})
		stream, err := client.Open(context.Background())
		require.NoError(t, err)
		other, err := server.Accept()
		require.NoError(t, err)
		WriteReject(other, Errorf(CodeNoSpace, "disk full"))
		server.conn.Close()
		<-client.Done() // the end is known before anybody reads
		f, err := NewFrameReader(stream).Next()
		require.NoError(t, err)
		require.Equal(t, KindReject, f.Kind)
		stream.Close()
	}
}

// brokenStream reads, but every write fails.
type brokenStream struct{ *memStream }

func (brokenStream) Write([]byte) (int, error) { return 0, errLost }

func TestRejectCountsMoreThanAWriteThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := memPipe(1 << 20)
		s := NewSender(brokenStream{near}, SenderConfig{})
		time.AfterFunc(lastWords/2, func() { newRawPeer(t, far).send(&Reject{Code: CodeNoSpace, Text: "disk full"}) })
		_, err := s.Offer(t.Context(), offer(-1))
		assert.Equal(t, &Error{Code: CodeNoSpace, Text: "disk full"}, err)
		s.Close()
		s.Wait()
	})
}

func TestWriteThatFailedEndsATransferSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, _ := memPipe(1 << 20)
		s := NewSender(brokenStream{near}, SenderConfig{})
		begun := time.Now()
		_, err := s.Offer(t.Context(), offer(-1))
		assert.Equal(t, errLost, err)
		assert.Equal(t, lastWords, time.Since(begun))
		s.Wait()
	})
}

// A Receiver that has refused reads on for a moment: a stream that is closed
// with content unread could take the Reject with it.
func TestReceiverReadsOnBehindItsReject(t *testing.T) {
	ends := map[string]struct {
		do   func(h *received)
		want time.Duration
	}{
		"sender hangs up":       {func(h *received) { h.Close() }, 0},
		"sender does not":       {func(*received) {}, lastWords},
		"sender goes on for it": {func(h *received) { h.chunk(7, []byte("x")); h.ack(1) }, lastWords},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := receive(t, &fakeSink{
					onBegin: func(context.Context) error { return Errorf(CodeExists, "is there") },
				}, offer(-1), 1<<20)
				expect[*Reject](h.rawPeer)
				begun := time.Now()
				end.do(h)
				<-h.done
				assert.Equal(t, end.want, time.Since(begun))
				assert.True(t, HasCode(h.err, CodeExists), "%v", h.err)
			})
		})
	}
}
