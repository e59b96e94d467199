package protocol

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// heard is what FuzzInbound compares: frames, and how they ended.
type heard struct {
	frames []told
	err    error
}

// FuzzInbound cuts a stream into smux's frames, and the connection into reads,
// of any size: what comes out is what a FrameReader finds in one piece.
func FuzzInbound(f *testing.F) {
	var all []byte
	for _, s := range sampleFrames(f) {
		f.Add(s.raw, uint16(1), uint8(1), false)
		all = append(all, s.raw...)
	}
	f.Add(all, uint16(700), uint8(3), true)
	f.Add(AppendFrame(AppendFrame(nil, 99, FlagSkip, []byte("news")), KindPing, 0, nil), uint16(3), uint8(0), true)
	f.Fuzz(func(t *testing.T, stream []byte, part uint16, step uint8, good bool) {
		if good {
			stream = mend(stream)
		}
		var want heard
		for fr := NewFrameReader(bytes.NewReader(stream)); want.err == nil; {
			var fm Frame
			if fm, want.err = fr.Next(); want.err == nil {
				want.frames = append(want.frames, tell(fm))
			}
		}
		raw := muxFrame(nil, cmdSYN, 1, nil)
		for at := 0; at < len(stream); {
			n := min(1+int(part), linkPayload, len(stream)-at)
			raw = muxFrame(raw, cmdPSH, 1, stream[at:at+n])
			at += n
		}
		raw = muxFrame(raw, cmdFIN, 1, nil)
		l := playedLink(raw, int(step))
		if step%2 == 1 { // in larger parts
			l = vectorLink(raw, int(step)*997)
		}
		_, err := l.Read(make([]byte, linkHeaderSize))
		require.NoError(t, err)
		in := l.stream(1)
		var got heard
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			var largest atomic.Int64
			largest.Store(MaxChunk)
			got.err = in.each(&largest, func(fm Frame) error {
				if fm.Kind != 0 {
					got.frames = append(got.frames, tell(fm))
				}
				return nil
			})
		}()
		_, _ = drive(l)
		<-ended
		require.Equal(t, want.frames, got.frames)
		require.Equal(t, AsError(want.err).Code, AsError(got.err).Code, "%v, %v", want.err, got.err)
	})
}

// FuzzHello is the first that anybody who connects can say.
func FuzzHello(f *testing.F) {
	for _, m := range []Message{&Hello{Versions: []int{1}, Agent: "a", Token: "t", MaxStreams: 3}, &Reject{Code: CodeVersion, Text: "no"}, &Ready{}} {
		raw, err := AppendMessage(nil, m)
		require.NoError(f, err)
		f.Add(raw, true)
		f.Add(raw[:len(raw)/2], false)
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), false)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0}, false)
	f.Add([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, false)
	f.Fuzz(func(t *testing.T, raw []byte, good bool) {
		if good {
			raw = mend(raw)
		}
		conn := &played{r: bytes.NewReader(raw)}
		var h *Hello
		var err error
		cost := allocated(func() { h, err = readHello(conn) })
		require.Less(t, cost, uint64(1<<20), "for %d bytes", len(raw)) // JSON and the fuzzer's own; the buffer has 4 KiB
		if err != nil {
			require.Nil(t, h)
			require.NotEqual(t, CodeInternal, AsError(err).Code, "%v", err)
			return
		}
		require.NoError(t, h.validate())
		length := int(binary.BigEndian.Uint32(raw))
		require.LessOrEqual(t, length, maxGreeting)
		require.Equal(t, len(raw)-headerSize-length-checkSize, conn.r.Len(), "nothing behind it is read")
	})
}

// mute is a played connection that takes what is written, and ends behind what
// was sent.
type mute struct{ *played }

func (mute) Write(p []byte) (int, error)      { return len(p), nil }
func (mute) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (mute) SetDeadline(time.Time) error      { return nil }
func (mute) SetReadDeadline(time.Time) error  { return nil }
func (mute) SetWriteDeadline(time.Time) error { return nil }

// FuzzSession is what comes behind a good Hello: smux's frames, and what its
// streams carry, into a whole session.
func FuzzSession(f *testing.F) {
	offer, err := AppendMessage(nil, &Offer{Name: "f"})
	require.NoError(f, err)
	open := muxFrame(nil, cmdSYN, 1, nil)
	f.Add(muxFrame(open, cmdPSH, 1, offer))
	f.Add(muxFrame(muxFrame(open, cmdPSH, 1, offer), cmdFIN, 1, nil))
	f.Add(muxFrame(nil, cmdSYN, 0, nil))
	f.Add(muxFrame(nil, cmdSYN, 2, nil))
	f.Add(muxFrame(open, cmdSYN, 1, nil))
	f.Add(muxFrame(open, cmdUPD, 1, make([]byte, 8)))
	f.Add(muxFrame(muxFrame(open, cmdNOP, 0, nil), cmdPSH, 7, []byte("nobody's")))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	hello, err := AppendMessage(nil, &Hello{Versions: []int{Version}})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, raw []byte) {
		conn := mute{&played{r: bytes.NewReader(append(bytes.Clone(hello), raw...))}}
		s, err := AcceptSession(t.Context(), conn, SessionConfig{MaxStreams: 4})
		require.NoError(t, err)
		s.link.mu.Lock()
		most := s.link.most
		s.link.mu.Unlock()
		ended := make(chan int)
		go func() {
			opened := 0
			for {
				stream, err := s.Accept()
				if err != nil {
					break
				}
				opened++
				frames := NewFrameReader(stream)
				frames.LimitChunks(0)
				go func() {
					_ = frames.Each(func(fm Frame) error {
						if fm.Chunk != nil {
							panic("a chunk where none may come")
						}
						return nil
					})
					stream.Close()
				}()
			}
			ended <- opened
		}()
		<-s.Done()
		s.link.mu.Lock()
		theirs := s.link.theirs
		s.link.mu.Unlock()
		require.LessOrEqual(t, theirs, most)
		s.Close()
		<-ended
	})
}

// blockOf decodes an LZ4 block as its specification says, slowly. It returns nil
// for what is not one of exactly n bytes.
func blockOf(src []byte, n int) (dst []byte) {
	length := func(nibble int) (int, bool) {
		for more := nibble == 15; more; {
			if len(src) == 0 {
				return 0, false
			}
			nibble += int(src[0])
			more, src = src[0] == 255, src[1:]
		}
		return nibble, true
	}
	for len(src) > 0 {
		token := int(src[0])
		src = src[1:]
		literals, ok := length(token >> 4)
		if !ok || literals > len(src) || len(dst)+literals > n {
			return nil
		}
		dst, src = append(dst, src[:literals]...), src[literals:]
		if len(src) == 0 { // the last sequence has literals only
			break
		}
		if len(src) < 2 {
			return nil
		}
		back := int(src[0]) | int(src[1])<<8
		src = src[2:]
		match, ok := length(token & 15)
		if !ok || back == 0 || back > len(dst) || len(dst)+match+4 > n {
			return nil
		}
		for range match + 4 {
			dst = append(dst, dst[len(dst)-back])
		}
	}
	if len(dst) != n {
		return nil
	}
	return dst
}

// FuzzLZ4 compares what a chunk decodes to with what the specification says,
// with lies about its length, and with what was in the buffer before.
func FuzzLZ4(f *testing.F) {
	for _, content := range [][]byte{text(300), make([]byte, 3000), bytes.Repeat([]byte("ab"), 500)} {
		c := seal(NewEncoder(CompressLZ4), 0, content)
		f.Add(bytes.Clone(c.Data()), uint32(len(content)))
		f.Add(bytes.Clone(c.Data()), uint32(len(content)-1))
		f.Add(bytes.Clone(c.Data()), uint32(len(content)+1))
	}
	f.Add([]byte{0x1f, 0, 1, 0, 0xff, 0xff, 0xff, 0}, uint32(1<<20))
	f.Fuzz(func(t *testing.T, data []byte, raw uint32) {
		if raw == 0 || raw > 1<<20 || len(data) >= int(raw) {
			return
		}
		c := NewChunk(len(data))
		copy(c.Buffer(), data)
		c.Seal(0, int(raw), CodecLZ4, len(data))
		defer c.Release()
		first, _, err := c.Decode(bytes.Repeat([]byte{0xa5}, int(raw)))
		if err != nil {
			require.True(t, HasCode(err, CodeProtocol))
			return
		}
		want := blockOf(data, int(raw))
		require.NotNil(t, want, "what is no block of %d bytes is decoded", raw)
		require.True(t, bytes.Equal(want, first))
		second, _, err := c.Decode(bytes.Repeat([]byte{0x5a}, int(raw)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, second), "content depends on what was in the buffer")
	})
}

// FuzzTokens reads the file of a daemon's tokens.
func FuzzTokens(f *testing.F) {
	_, line, err := NewToken("ci", ScopePush)
	require.NoError(f, err)
	f.Add([]byte(line))
	f.Add([]byte("# nobody\n\n" + line + line))
	f.Add([]byte("ci push zz\n"))
	f.Add([]byte{0})
	path := filepath.Join(f.TempDir(), "tokens")
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		all, err := readTokens(path)
		if err != nil {
			require.Nil(t, all)
			return
		}
		require.NotEmpty(t, all)
		for _, e := range all {
			require.NotEmpty(t, e.peer.Name)
			require.Contains(t, []Scope{ScopeStatus, ScopePush}, e.peer.Scope)
		}
	})
}
