// Clients that do not play by the rules: what they get is an error or a closed
// connection, and what others push comes through.

package daemon_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// mux is a frame of smux's.
func mux(cmd byte, id uint32, payload []byte) []byte {
	b := []byte{2, cmd}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, id)
	return append(b, payload...)
}

// smux's commands.
const (
	muxSYN = 0
	muxFIN = 1
	muxPSH = 2
	muxUPD = 4
)

// greeted is a bare connection to a daemon, past its Hello.
func greeted(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	hello, err := protocol.AppendMessage(nil, &protocol.Hello{Versions: []int{protocol.Version}})
	require.NoError(t, err)
	_, err = conn.Write(hello)
	require.NoError(t, err)
	_, err = protocol.NewFrameReader(conn).Next()
	require.NoError(t, err)
	return conn
}

// heap is what is in use, when nobody lets go of more.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// A peer that breaks smux's rules has its session closed, one that only makes
// much of them costs little, and an honest push beside it goes through.
func TestHostileUseOfSmux(t *testing.T) {
	offer := func(id uint32) []byte {
		m, err := protocol.AppendMessage(nil, newOffer("hostile", 1<<30, protocol.All))
		require.NoError(t, err)
		return mux(muxPSH, id, m)
	}
	many := func(n int, frame func(i uint32) []byte) (b []byte) {
		for i := range uint32(n) {
			b = append(b, frame(i)...)
		}
		return b
	}
	for name, c := range map[string]struct {
		raw    []byte
		closed bool
	}{
		"stream 0":                  {mux(muxSYN, 0, nil), true},
		"stream of the daemon's":    {mux(muxSYN, 2, nil), true},
		"a stream twice":            {append(mux(muxSYN, 1, nil), mux(muxSYN, 1, nil)...), true},
		"unknown command":           {mux(9, 1, nil), true},
		"window update of nonsense": {mux(muxUPD, 1, []byte("123")), true},
		"flood of streams":          {many(5000, func(i uint32) []byte { return mux(muxSYN, 2*i+1, nil) }), true},
		"streams that end at once": {many(5000, func(i uint32) []byte {
			return append(mux(muxSYN, 2*i+1, nil), mux(muxFIN, 2*i+1, nil)...)
		}), false},
		"window updates":       {many(20_000, func(uint32) []byte { return mux(muxUPD, 1, make([]byte, 8)) }), false},
		"content of no stream": {many(50, func(i uint32) []byte { return mux(muxPSH, 2*i+1, make([]byte, 65535)) }), false},
		"an offer byte for byte": {append(mux(muxSYN, 1, nil), many(20, func(i uint32) []byte {
			return mux(muxPSH, 1, offer(1)[8+i:9+i])
		})...), false},
		"empty content":              {append(mux(muxSYN, 1, nil), many(20_000, func(uint32) []byte { return mux(muxPSH, 1, nil) })...), false},
		"chunks of 4 MiB":            {append(mux(muxSYN, 1, nil), mux(muxPSH, 1, []byte{0, 0x40, 0, 16, 5, 0, 0, 0})...), false},
		"content that does not wait": {append(append(mux(muxSYN, 1, nil), offer(1)...), many(400, func(i uint32) []byte { return mux(muxPSH, 1, overrun(t, i)) })...), false},
		"frames in no order":         {append(append(mux(muxSYN, 1, nil), offer(1)...), many(100, func(uint32) []byte { return mux(muxPSH, 1, overrun(t, 99)) })...), false},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := sink.Open("discard:", sink.Options{})
			require.NoError(t, err)
			n := reader(t, store)
			_, err = push(t, n.addr, newOffer("before", 1, protocol.All), []byte("x"))
			require.NoError(t, err)
			conn := greeted(t, n.addr)
			base := heap()
			_, err = conn.Write(c.raw)
			if err == nil && c.closed {
				_, err = io.Copy(io.Discard, conn)
			}
			if !c.closed {
				require.NoError(t, err)
			}
			_, err = push(t, n.addr, newOffer("after", 1, protocol.All), []byte("x"))
			require.NoError(t, err)
			assert.Less(t, heap()-base, int64(16<<20), "it costs little")
			conn.Close()
			eventually(t, "its session to end", func() bool { return n.Status().Sessions <= 2 && len(n.Status().Transfers) == 0 })
		})
	}
}

// overrun is the chunk i of content that no window has room for.
func overrun(t *testing.T, i uint32) []byte {
	t.Helper()
	c := protocol.NewChunk(60_000)
	c.Seal(int64(i)*60_000, 60_000, protocol.CodecRaw, 60_000)
	return c.Frame()
}

// A peer that asks for much and reads nothing is dropped, and holds nobody up.
func TestPeerThatReadsNothing(t *testing.T) {
	s := newStore(t)
	n := reader(t, s)
	conn := greeted(t, n.addr)
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4096))
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	query := protocol.AppendFrame(nil, protocol.KindQuery, 0, []byte("{}"))
	for i := range uint32(20_000) {
		b := append(mux(muxSYN, 2*i+1, nil), mux(muxPSH, 2*i+1, query)...)
		if _, err := conn.Write(append(b, mux(muxFIN, 2*i+1, nil)...)); err != nil {
			break // it does not listen any more, or waits for us
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		_, err := push(t, n.addr, newOffer(name, 1, protocol.All), []byte("x"))
		require.NoError(t, err)
	}
	assert.Less(t, runtime.NumGoroutine(), 1500, "what it has asked for is bounded")
}

// Sizes that are lies are found, and nothing is published for them.
func TestLyingSizes(t *testing.T) {
	for _, c := range []struct {
		name    string
		offered int64
		sent    int
		said    int64
		code    protocol.Code
	}{
		{"more than offered", 1, 2, 2, protocol.CodeSize},
		{"fewer than offered", 3, 2, 2, protocol.CodeSize},
		{"more than sent", 3, 2, 3, protocol.CodeSize},
		{"less than sent", -1, 2, 1, protocol.CodeSize},
		{"no size at all", -1, 2, 3, protocol.CodeSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			n := reader(t, s)
			o := newOffer("f", 0, protocol.All)
			o.Size = c.offered
			p := begin(t, n.addr, o)
			require.NoError(t, p.send(make([]byte, c.sent)))
			_, err := p.Finish(patient(t), &protocol.Finish{Size: c.said, Digest: p.hasher.Digest()})
			assertCode(t, c.code, err)
			assertNothingPublished(t, s)
			_, err = push(t, n.addr, newOffer("g", 0, protocol.All), nil)
			require.NoError(t, err, "a file of size 0 is one")
			assertPublished(t, s, "g", nil)
		})
	}
}

// A directory has no room for a file that no disk has, and says so before it
// takes any of it.
func TestOfferOfTheLargestSize(t *testing.T) {
	store, err := sink.OpenDir(t.TempDir(), sink.DirOptions{})
	require.NoError(t, err)
	n := reader(t, store)
	for _, size := range []int64{math.MaxInt64 - protocol.MaxChunk, 1 << 60} {
		o := newOffer(fmt.Sprint("of size ", size), 0, protocol.All)
		o.Size = size
		assertCode(t, protocol.CodeNoSpace, newPusher(t, n.addr).offer(o))
	}
	stream := openStream(t, n.addr)
	_, err = stream.Write(protocol.AppendFrame(nil, protocol.KindOffer, 0, []byte(`{"name":"f","size":9223372036854775807}`)))
	require.NoError(t, err)
	reject, ok := answer(t, stream).(*protocol.Reject)
	require.True(t, ok)
	assert.Equal(t, protocol.CodeSize, reject.Code)
	_, err = push(t, n.addr, newOffer("f", 1, protocol.All), []byte("x"))
	require.NoError(t, err)
}

// A chunk that decodes to more than it says, or to less, is never content.
func TestBombs(t *testing.T) {
	s := newStore(t)
	n := reader(t, s)
	bomb := append([]byte{0x1f, 0, 1, 0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0) // a run of 2,000 zeros
	for _, raw := range []int{14, 500, 1999, 60_000} {
		p := begin(t, n.addr, newOffer(fmt.Sprint("bomb of ", raw), raw, protocol.All))
		c := protocol.NewChunk(len(bomb))
		copy(c.Buffer(), bomb)
		c.Seal(0, raw, protocol.CodecLZ4, len(bomb))
		if err := p.Send(patient(t), c); err == nil {
			assertCode(t, protocol.CodeProtocol, receive(t, p.ended, "the chunk to be refused"))
		}
	}
	assertNothingPublished(t, s)
	_, err := push(t, n.addr, newOffer("f", 1, protocol.All), []byte("x"))
	require.NoError(t, err)
}
