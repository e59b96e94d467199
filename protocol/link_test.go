package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// takenOver waits until each has.
func takenOver(in *inbound) {
	for !in.ready() {
		runtime.Gosched()
	}
}

// played is a connection that a peer has sent some bytes over. Reads return
// them in parts of at most step bytes, then io.EOF.
type played struct {
	net.Conn
	r    *bytes.Reader
	step int
}

func (p *played) Read(b []byte) (int, error) {
	if p.step > 0 && len(b) > p.step {
		b = b[:p.step]
	}
	return p.r.Read(b)
}

// readv reads as readv(2) does, step bytes at most.
func (p *played) readv(parts [][]byte) (n int, err error) {
	left := p.step
	for _, part := range parts {
		if p.step > 0 {
			part = part[:min(left, len(part))]
		}
		k, _ := p.r.Read(part)
		n, left = n+k, left-k
		if k < len(part) {
			break
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (p *played) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7} }
func (p *played) Close() error         { return nil }

// playedLink is a server's link, whose peer has sent raw.
func playedLink(raw []byte, step int) *link {
	return newLink(&played{r: bytes.NewReader(raw), step: step}, false, 8)
}

// vectorLink is a playedLink that reads to several places at once.
func vectorLink(raw []byte, step int) *link {
	l := playedLink(raw, step)
	l.intake.readv = l.conn.(*played).readv
	return l
}

// muxFrame appends a frame of smux's.
func muxFrame(b []byte, cmd byte, id uint32, payload []byte) []byte {
	b = append(b, linkVersion, cmd)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, id)
	return append(b, payload...)
}

// told is a frame that came, copied.
type told struct {
	kind    Kind
	payload string
}

func tell(f Frame) told {
	if f.Chunk != nil {
		defer f.Chunk.Release()
		return told{f.Kind, string(f.Chunk.Frame())}
	}
	return told{f.Kind, string(f.Payload)}
}

// drive reads what smux is to see, until the link ends.
func drive(l *link) (forwarded []byte, err error) {
	for {
		var h [linkHeaderSize]byte
		if _, err := l.Read(h[:]); err != nil {
			return forwarded, err
		}
		forwarded = append(forwarded, h[:]...)
	}
}

// However a stream's bytes are cut into frames of smux's, and those into
// reads, the same frames come out as a FrameReader finds.
func TestLinkPutsFramesTogether(t *testing.T) {
	var content []byte
	for _, s := range sampleFrames(t) {
		content = append(content, s.raw...)
	}
	content = append(content, rawChunk(77, random(200_000, 3)).Frame()...)
	content = append(content, AppendFrame(nil, Kind(200), FlagSkip, []byte("passed over"))...)
	content = append(content, AppendAck(nil, 9)...)
	var want []told
	for fr := NewFrameReader(bytes.NewReader(content)); ; {
		f, err := fr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		want = append(want, tell(f))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for try := range 120 {
		raw := muxFrame(nil, cmdSYN, 3, nil)
		for at := 0; at < len(content); {
			n := min(1+rng.IntN(1+[]int{3, 40, 700, linkPayload}[try/2%4]), len(content)-at)
			raw = muxFrame(raw, cmdPSH, 3, content[at:at+n])
			if rng.IntN(4) == 0 {
				raw = muxFrame(raw, cmdNOP, 0, nil)
				raw = muxFrame(raw, cmdUPD, 3, make([]byte, 8))
				raw = muxFrame(raw, cmdPSH, 99, []byte("of a stream that is gone"))
			}
			at += n
		}
		raw = muxFrame(raw, cmdFIN, 3, nil)
		begin := []func([]byte, int) *link{playedLink, vectorLink}[try%2]
		l := begin(raw, []int{0, 1, 7, 300, 5000, 150_000}[try%6])
		ended := make(chan error, 1)
		var got []told
		_, err := l.Read(make([]byte, linkHeaderSize)) // the SYN
		require.NoError(t, err)
		in := l.stream(3)
		go func() {
			ended <- in.each(nil, func(f Frame) error {
				if f.Kind != 0 {
					got = append(got, tell(f))
				}
				return nil
			})
		}()
		forwarded, err := drive(l)
		assert.Equal(t, io.EOF, err)
		assert.Equal(t, io.EOF, <-ended)
		require.True(t, slices.Equal(want, got), "try %d", try)
		for i := 0; i < len(forwarded); i += linkHeaderSize {
			assert.NotEqual(t, byte(cmdPSH), forwarded[i+1], "smux sees content")
		}
	}
}

func TestLinkEndsInsideAFrame(t *testing.T) {
	frame := AppendFrame(nil, KindFinish, 0, []byte(`{"size":1}`))
	for cut := 1; cut < len(frame); cut++ {
		raw := muxFrame(nil, cmdSYN, 3, nil)
		raw = muxFrame(raw, cmdPSH, 3, frame[:cut])
		raw = muxFrame(raw, cmdFIN, 3, nil)
		l := playedLink(raw, 0)
		_, err := l.Read(make([]byte, linkHeaderSize))
		require.NoError(t, err)
		in := l.stream(3)
		_, _ = drive(l)
		assert.Equal(t, io.ErrUnexpectedEOF, in.each(nil, func(Frame) error { t.Error("half a frame"); return nil }), "cut at %d", cut)
	}
}

// What no honest peer sends ends the connection before anything is made of it.
func TestLinkRefuses(t *testing.T) {
	syn := func(ids ...uint32) (raw []byte) {
		for _, id := range ids {
			raw = muxFrame(raw, cmdSYN, id, nil)
		}
		return raw
	}
	var many []uint32
	for i := range uint32(2*8 + 17) {
		many = append(many, 2*i+1)
	}
	for name, c := range map[string]struct {
		raw  []byte
		code Code
	}{
		"another version":     {[]byte{1, cmdNOP, 0, 0, 0, 0, 0, 0}, CodeChecksum},
		"unknown command":     {muxFrame(nil, 9, 1, nil), CodeChecksum},
		"SYN with a payload":  {muxFrame(nil, cmdSYN, 1, []byte("x")), CodeChecksum},
		"FIN with a payload":  {muxFrame(nil, cmdFIN, 1, []byte("x")), CodeChecksum},
		"NOP with a payload":  {muxFrame(nil, cmdNOP, 0, []byte("x")), CodeChecksum},
		"short UPD":           {muxFrame(nil, cmdUPD, 1, []byte("x")), CodeChecksum},
		"stream 0":            {syn(0), CodeChecksum},
		"stream of this end":  {syn(2), CodeChecksum},
		"stream opened twice": {syn(1, 1), CodeChecksum},
		"too many streams":    {syn(many...), CodeBusy},
	} {
		_, err := drive(playedLink(c.raw, 0))
		assert.True(t, HasCode(err, c.code), "%s: %v", name, err)
	}
}

// An error of one stream is not the others'.
func TestLinkStreamsFailAlone(t *testing.T) {
	raw := muxFrame(muxFrame(nil, cmdSYN, 1, nil), cmdSYN, 3, nil)
	bad := AppendAck(nil, 1)
	bad[len(bad)-1]++
	raw = muxFrame(raw, cmdPSH, 1, bad)
	raw = muxFrame(raw, cmdPSH, 1, AppendAck(nil, 2))
	raw = muxFrame(raw, cmdPSH, 3, AppendAck(nil, 3))
	raw = muxFrame(raw, cmdPSH, 3, AppendAck(nil, 4))
	raw = muxFrame(raw, cmdPSH, 3, AppendAck(nil, 5))
	l := playedLink(raw, 0)
	for range 2 {
		_, err := l.Read(make([]byte, linkHeaderSize))
		require.NoError(t, err)
	}
	one, three := l.stream(1), l.stream(3)
	ended := make(chan error, 2)
	go func() {
		ended <- one.each(nil, func(Frame) error { t.Error("a damaged frame, or one behind it"); return nil })
	}()
	var got []int64
	takenOver(one)
	go func() {
		ended <- three.each(nil, func(f Frame) error {
			offset, _ := ParseAck(f.Payload)
			if got = append(got, offset); offset == 4 {
				return errLost
			}
			return nil
		})
	}()
	takenOver(three)
	_, err := drive(l)
	assert.Equal(t, io.EOF, err)
	first, second := <-ended, <-ended
	if errors.Is(first, errLost) {
		first, second = second, first
	}
	assert.True(t, HasCode(first, CodeChecksum), "%v", first)
	assert.Equal(t, errLost, second)
	assert.Equal(t, []int64{3, 4}, got)
}

// What nobody reads waits in the connection and not in memory.
func TestLinkHoldsLittleUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw := muxFrame(nil, cmdSYN, 1, nil)
		for range 20 {
			raw = muxFrame(raw, cmdPSH, 1, make([]byte, 60_000))
		}
		l := playedLink(raw, 0)
		_, err := l.Read(make([]byte, linkHeaderSize))
		require.NoError(t, err)
		var over atomic.Bool
		go func() { _, _ = drive(l); over.Store(true) }()
		synctest.Wait()
		in := l.stream(1)
		assert.False(t, over.Load())
		assert.LessOrEqual(t, len(in.unread), maxUnread)
		n, err := io.Copy(io.Discard, readerFunc(in.read))
		assert.NoError(t, err)
		assert.EqualValues(t, 20*60_000, n)
		synctest.Wait()
		assert.True(t, over.Load())
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// When each has returned no handler runs, however the stream was ended.
func TestEachWaitsForItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw := muxFrame(nil, cmdSYN, 1, nil)
		raw = muxFrame(raw, cmdPSH, 1, AppendAck(nil, 1))
		l := playedLink(raw, 0)
		_, err := l.Read(make([]byte, linkHeaderSize))
		require.NoError(t, err)
		in := l.stream(1)
		gate := make(chan struct{})
		var running, over atomic.Bool
		go func() {
			_ = in.each(nil, func(Frame) error { running.Store(true); <-gate; running.Store(false); return nil })
			assert.False(t, running.Load())
			over.Store(true)
		}()
		synctest.Wait()
		go func() { _, _ = drive(l) }()
		synctest.Wait()
		require.True(t, running.Load())
		in.end(errLost)
		synctest.Wait()
		assert.False(t, over.Load())
		close(gate)
		synctest.Wait()
		assert.True(t, over.Load())
	})
}

func TestLinkCutsLongFramesIntoWholeWords(t *testing.T) {
	client, server := tcpPair(t)
	l := newLink(client, true, 8)
	content := random(3*linkPayload+5, 4)
	var open atomic.Bool
	go func() { assert.NoError(t, l.send(5, content, false, &open)) }()
	var got []byte
	for _, want := range []int{linkPayload, linkPayload, linkPayload, 5} {
		var h [linkHeaderSize]byte
		_, err := io.ReadFull(server, h[:])
		require.NoError(t, err)
		assert.Equal(t, []byte{linkVersion, cmdPSH}, h[:2])
		require.EqualValues(t, want, binary.LittleEndian.Uint16(h[2:]))
		assert.EqualValues(t, 5, binary.LittleEndian.Uint32(h[4:]))
		part := make([]byte, want)
		_, err = io.ReadFull(server, part)
		require.NoError(t, err)
		got = append(got, part...)
	}
	assert.True(t, bytes.Equal(content, got))
	open.Store(true)
	assert.Equal(t, io.ErrClosedPipe, l.send(5, content, false, &open))
}

// FuzzLink takes anything for what a peer sends.
func FuzzLink(f *testing.F) {
	raw := muxFrame(nil, cmdSYN, 1, nil)
	for _, s := range sampleFrames(f) {
		raw = muxFrame(raw, cmdPSH, 1, s.raw)
	}
	f.Add(muxFrame(raw, cmdFIN, 1, nil), uint16(0))
	f.Add(muxFrame(muxFrame(nil, cmdSYN, 1, nil), cmdPSH, 1, AppendAck(nil, 1)[:9]), uint16(3))
	f.Fuzz(func(t *testing.T, raw []byte, step uint16) {
		l := playedLink(raw, int(step))
		if step%2 == 1 {
			l = vectorLink(raw, int(step))
		}
		streams := 0
		for {
			var h [linkHeaderSize]byte
			if _, err := l.Read(h[:]); err != nil {
				break
			}
			if h[1] == cmdSYN { // what each does, without a goroutine: the fuzzer wants to see the same again
				l.stream(binary.LittleEndian.Uint32(h[4:])).handle = func(f Frame) error { tell(f); return nil }
				streams++
			}
		}
		if streams > 2*8+16 {
			t.Errorf("%d streams", streams)
		}
		for id, in := range l.streams {
			if in.err == nil {
				t.Errorf("stream %d did not end with its connection", id)
			}
		}
	})
}

// smux closes a connection on which it has seen nothing for a while. It does
// not see content, and its peer's keepalive may be stuck behind it.
func TestLinkShowsSmuxThatContentComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := muxFrame(nil, cmdPSH, 9, []byte("of a stream that is gone"))
		l := playedLink(bytes.Repeat(one, 3), 0)
		nops := func() int {
			l.intake.conn = &played{r: bytes.NewReader(bytes.Repeat(one, 3))}
			forwarded, err := drive(l)
			assert.Equal(t, io.EOF, err)
			return len(forwarded) / linkHeaderSize
		}
		assert.Equal(t, 1, nops())
		l.err = nil
		time.Sleep(keepaliveInterval - time.Second)
		assert.Equal(t, 0, nops())
		l.err = nil
		time.Sleep(time.Second)
		assert.Equal(t, 1, nops())
	})
}

// smux closes the connection of a peer that hangs, and has no words for it.
func TestLinkSaysWhySmuxClosedIt(t *testing.T) {
	l := playedLink(nil, 0)
	require.NoError(t, l.Close())
	_, err := drive(l)
	assert.True(t, HasCode(err, CodeDead), "%v", err)
	require.ErrorContains(t, err, "for 15s")

	l = playedLink(nil, 0)
	l.asked.Store(true)
	require.NoError(t, l.Close())
	_, err = drive(l)
	require.ErrorIs(t, err, net.ErrClosed)
}
