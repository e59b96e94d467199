// Readers that lie to a broadcaster: they fail, and the others have the file.

package daemon_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// liar is a daemon whose streams are all answered by answer, once their offer
// has come.
func liar(t *testing.T, answer func(stream protocol.Stream)) (addr string) {
	t.Helper()
	ln := listen(t)
	var work sync.WaitGroup
	serve := func(conn net.Conn) {
		s, err := protocol.AcceptSession(t.Context(), conn, protocol.SessionConfig{})
		if err != nil {
			return
		}
		defer s.Close()
		for {
			stream, err := s.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer stream.Close()
				if _, err := protocol.NewFrameReader(stream).Next(); err != nil {
					return
				}
				answer(stream)
				for b := make([]byte, 64<<10); err == nil; {
					_, err = stream.Read(b)
				}
			})
		}
	}
	work.Go(func() {
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			work.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		ln.cut()
		work.Wait()
	})
	return ln.Addr().String()
}

func TestLyingReaders(t *testing.T) {
	leaf := []protocol.Leaf{{State: protocol.LeafReceiving}}
	good := protocol.Accept{Window: smallWindow, MaxChunk: smallWindow / 4, Leaves: leaf}
	raw := func(kind protocol.Kind, json string) []byte { return protocol.AppendFrame(nil, kind, 0, []byte(json)) }
	accepts := func(change func(a *protocol.Accept)) []byte {
		a := good
		change(&a)
		b, err := protocol.AppendMessage(nil, &a)
		require.NoError(t, err)
		return b
	}
	accepted := accepts(func(*protocol.Accept) {})
	for name, says := range map[string][]byte{
		"ack of what was not sent": append(accepted, protocol.AppendAck(nil, 1<<40)...),
		"ack before accept":        protocol.AppendAck(nil, 0),
		"ack past all offsets":     append(accepted, raw(protocol.KindAck, "\xff\xff\xff\xff\xff\xff\xff\xff")...),
		"limit past all offsets":   append(accepted, raw(protocol.KindLimit, "\xff\xff\xff\xff\xff\xff\xff\xff")...),
		"offset beyond the size":   accepts(func(a *protocol.Accept) { a.Offset = 1 << 40 }),
		"negative offset":          raw(protocol.KindAccept, `{"offset":-1,"window":1048576,"max_chunk":65536,"leaves":[{"state":"receiving"}]}`),
		"max_chunk 0":              raw(protocol.KindAccept, `{"window":1048576,"leaves":[{"state":"receiving"}]}`),
		"max_chunk huge":           raw(protocol.KindAccept, `{"window":1048576,"max_chunk":2000000000,"leaves":[{"state":"receiving"}]}`),
		"window tiny":              raw(protocol.KindAccept, `{"window":1,"max_chunk":1,"leaves":[{"state":"receiving"}]}`),
		"window huge":              raw(protocol.KindAccept, `{"window":9223372036854775807,"max_chunk":1,"leaves":[{"state":"receiving"}]}`),
		"no leaves":                raw(protocol.KindAccept, `{"window":1048576,"max_chunk":65536}`),
		"accept twice":             append(append([]byte{}, accepted...), accepted...),
		"receipt before commit":    append(append([]byte{}, accepted...), raw(protocol.KindReceipt, `{"leaf":"other","status":"published"}`)...),
		"a chunk":                  append(append([]byte{}, accepted...), overrun(t, 0)...),
		"an offer":                 raw(protocol.KindOffer, `{"name":"f"}`),
		"nonsense":                 []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			addr := liar(t, func(stream protocol.Stream) { _, _ = stream.Write(says) })
			b := serve(t, fanout(t, short, hop("r1", reader(t, s).addr), hop("liar", addr)), daemon.Options{Window: smallWindow})
			content := random(3*smallWindow + 7)
			receipts, err := push(t, b.addr, newOffer("f", len(content), policy(t, "any")), content)
			require.NoError(t, err)
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafPublished, "liar": protocol.LeafFailed}, statuses(t, receipts))
			assertPublished(t, s, "f", content)
		})
	}
}

// Names and texts that a receiver makes its sender hold are bounded in bytes.
func TestReaderThatHasTooMuchToSay(t *testing.T) {
	long := string(make([]byte, 0, 500))
	for range 500 {
		long += "x"
	}
	for name, kind := range map[string]func(leaves []protocol.Leaf) protocol.Message{
		"progress": func(leaves []protocol.Leaf) protocol.Message { return &protocol.Progress{Leaves: leaves} },
		"leaves":   func(leaves []protocol.Leaf) protocol.Message { return &protocol.Leaves{Leaves: leaves} },
	} {
		t.Run(name, func(t *testing.T) {
			addr := liar(t, func(stream protocol.Stream) {
				for i := 0; ; i++ {
					var leaves []protocol.Leaf
					for j := range 50 {
						leaves = append(leaves, protocol.Leaf{Name: long[:480] + time.Duration(i*50+j).String(), State: protocol.LeafWaiting})
					}
					b, err := protocol.AppendMessage(nil, kind(leaves))
					if !assert.NoError(t, err) {
						return
					}
					if _, err := stream.Write(b); err != nil {
						return
					}
				}
			})
			s := newStore(t)
			b := serve(t, fanout(t, never, hop("r1", reader(t, s).addr), hop("liar", addr)), daemon.Options{})
			base := heap()
			_, err := push(t, b.addr, newOffer("f", 1, protocol.All), []byte("x"))
			assertCode(t, protocol.CodeProtocol, err)
			assert.ErrorContains(t, err, "65536 leaves")
			assert.Less(t, heap()-base, int64(128<<20))
		})
	}
}

// A hop that was lost and comes back, but never says what it makes of the
// offer, is not waited for without end.
func TestHopThatComesBackAndSaysNothing(t *testing.T) {
	leaf := []protocol.Leaf{{State: protocol.LeafReceiving}}
	accept, err := protocol.AppendMessage(nil, &protocol.Accept{Window: smallWindow, MaxChunk: smallWindow / 4, Leaves: leaf})
	require.NoError(t, err)
	var calls atomic.Int32
	accepted := make(chan struct{})
	addr := liar(t, func(stream protocol.Stream) {
		if calls.Add(1) == 1 {
			_, _ = stream.Write(accept)
			<-accepted
			stream.Close()
		}
	})
	s := newStore(t)
	b := serve(t, fanout(t, short, hop("r1", reader(t, s).addr), hop("liar", addr)), daemon.Options{Window: smallWindow})
	p := begin(t, b.addr, newOffer("f", piece, protocol.All))
	close(accepted)
	_ = p.send(random(piece))
	err = receive(t, p.ended, "the end of the push")
	assertCode(t, protocol.CodeStalled, err)
	assert.ErrorContains(t, err, "without an answer to the offer")
	assertNothingPublished(t, s)
}
