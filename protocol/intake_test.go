package protocol

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// counted is an intake of raw that reads to several places at once, at most
// step bytes, and how often it did.
func counted(raw []byte, step int) (in *intake, calls *int) {
	p := &played{r: bytes.NewReader(raw), step: step}
	in, calls = &intake{conn: p}, new(int)
	in.readv = func(parts [][]byte) (int, error) {
		*calls++
		return p.readv(parts)
	}
	return in, calls
}

// inPayloads is content as one stream sends it.
func inPayloads(content []byte) (raw []byte) {
	for len(content) > 0 {
		n := min(linkPayload, len(content))
		raw = muxFrame(raw, cmdPSH, 3, content[:n])
		content = content[n:]
	}
	return raw
}

// A chunk takes two reads: one for the first header, and one for all the rest
// and what stands behind it.
func TestIntakeReadsAChunkAtOnce(t *testing.T) {
	content := random(1<<20, 1)
	raw := append(inPayloads(content), muxFrame(nil, cmdNOP, 0, nil)...)
	in, calls := counted(raw, 0)
	room := make([]byte, len(content))
	var h [linkHeaderSize]byte
	for at := 0; at < len(room); {
		require.NoError(t, in.header(&h))
		assert.EqualValues(t, cmdPSH, h[1])
		n := min(linkPayload, len(room)-at)
		require.NoError(t, in.fill(room[at:], n, nil))
		at += n
	}
	assert.True(t, bytes.Equal(content, room))
	require.NoError(t, in.header(&h))
	assert.EqualValues(t, cmdNOP, h[1])
	assert.Equal(t, 2, *calls)
	assert.Equal(t, io.EOF, in.header(&h))
}

// Whatever is asked for, whatever was expected: bytes come in order, and what
// was said to be in a room is there at the end.
func TestIntakeTakesWhatItDidNotExpect(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for try := range 300 {
		raw := random(400_000, uint64(try))
		in, _ := counted(raw, []int{0, 1 + rng.IntN(200_000)}[try%2])
		at := 0
		next := func(n int) []byte { at += n; return raw[at-n : at] }
		for at < len(raw)-linkHeaderSize {
			var h [linkHeaderSize]byte
			require.NoError(t, in.header(&h))
			require.True(t, bytes.Equal(next(len(h)), h[:]), "try %d: header before %d", try, at)
			room := make([]byte, min(1+rng.IntN(200_000), len(raw)-at))
			var want []byte
			for len(want) < len(room) && at < len(raw)-linkHeaderSize {
				// All of a payload, less of it, or something else in between.
				rest := room[len(want):]
				n := min(linkPayload, len(rest), len(raw)-at)
				switch rng.IntN(6) {
				case 0:
					n = 1 + rng.IntN(n)
				case 1:
					k := min(rng.IntN(500), len(raw)-at)
					b, err := in.drain(k)
					require.NoError(t, err)
					require.True(t, bytes.Equal(next(k), b), "try %d: between, before %d", try, at)
					n = min(n, len(raw)-at)
				}
				require.NoError(t, in.fill(rest, n, nil))
				want = append(want, next(n)...)
				if k := min(linkHeaderSize, len(raw)-at); k == linkHeaderSize && rng.IntN(4) > 0 {
					require.NoError(t, in.header(&h))
					require.True(t, bytes.Equal(next(k), h[:]), "try %d: header before %d", try, at)
				}
			}
			require.True(t, bytes.Equal(want, room[:len(want)]), "try %d: room before %d", try, at)
		}
	}
}

// The real thing reads like the other, sees the end, and keeps deadlines.
func TestVectorReader(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer peer.Close()
	conn, err := ln.Accept()
	require.NoError(t, err)
	defer conn.Close()
	readv := vectorReader(conn)
	if readv == nil {
		t.Skip("this system reads one part at a time")
	}
	a, b, c := make([]byte, 3), make([]byte, 4), make([]byte, 5)
	_, err = peer.Write([]byte("broadcast"))
	require.NoError(t, err)
	n, err := readv([][]byte{a, b, c})
	require.NoError(t, err)
	assert.Equal(t, "broadcast", string(a)+string(b)+string(c[:n-7]))

	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Millisecond)))
	_, err = readv([][]byte{a, b})
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, conn.SetReadDeadline(time.Time{}))

	require.NoError(t, peer.Close())
	_, err = readv([][]byte{a, b})
	assert.Equal(t, io.EOF, err)
	require.NoError(t, conn.Close())
	_, err = readv([][]byte{a, b})
	assert.ErrorIs(t, err, net.ErrClosed)

	one, other := net.Pipe()
	assert.Nil(t, vectorReader(one))
	_, _ = one.Close(), other.Close()
}
