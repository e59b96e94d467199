package protocol

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// narrowLink is a link and the other end of its connection, which takes little at
// once.
func narrowLink(t *testing.T) (*link, net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	peer, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).SetWriteBuffer(64<<10))
	require.NoError(t, peer.(*net.TCPConn).SetReadBuffer(256<<10))
	t.Cleanup(func() { _, _ = conn.Close(), peer.Close() })
	return newLink(conn, true, 1), peer
}

// sharedChunk is a sealed chunk that can be sent by reference.
func sharedChunk(t *testing.T, n int, seed uint64) *Chunk {
	c := NewChunk(n)
	if c.mem == nil {
		t.Skip("this system has no huge pages")
	}
	copy(c.Buffer(), random(n, seed))
	c.Seal(0, n, CodecRaw, n)
	return c
}

// readChunk reads what carries a frame of n bytes as content of one stream.
func readChunk(t *testing.T, peer io.Reader, n int) (content []byte) {
	for len(content) < n {
		h := make([]byte, linkHeaderSize)
		_, err := io.ReadFull(peer, h)
		require.NoError(t, err)
		require.Equal(t, []byte{linkVersion, cmdPSH}, h[:2])
		part := make([]byte, int(h[2])|int(h[3])<<8)
		_, err = io.ReadFull(peer, part)
		require.NoError(t, err)
		content = append(content, part...)
	}
	return content
}

func pipesMade() (made, idle int) {
	pipes.Lock()
	defer pipes.Unlock()
	return pipes.made, len(pipes.idle)
}

// A chunk by reference comes as it is, over a connection that takes little at
// once, and the pipe that it passed is there for the next one.
func TestSendByReference(t *testing.T) {
	l, peer := narrowLink(t)
	var open atomic.Bool
	for i := range 3 {
		c := sharedChunk(t, 1<<20, uint64(i))
		done := make(chan error)
		go func() { done <- l.send(7, c.Frame(), true, &open) }()
		assert.True(t, bytes.Equal(c.Frame(), readChunk(t, peer, len(c.Frame()))), "chunk %d", i)
		require.NoError(t, <-done)
		c.Release()
	}
	made, idle := pipesMade()
	assert.Positive(t, made, "nothing went by reference")
	assert.Positive(t, idle, "it is not there for the next one")
}

// What sockets refer to stays as it is when the chunk is dropped, and its
// memory is gone.
func TestDroppedChunkStaysOnItsWay(t *testing.T) {
	l, peer := narrowLink(t)
	require.NoError(t, l.conn.(*net.TCPConn).SetWriteBuffer(4<<20))
	var open atomic.Bool
	c := sharedChunk(t, 256<<10, 1)
	want := bytes.Clone(c.Frame())
	at := &c.Buffer()[0]
	require.NoError(t, l.send(7, c.Frame(), true, &open))
	c = nil //nolint:wastedassign // it is what the test is about
	other := random(256<<10, 2)
	var held []*Chunk // one of them comes to be in its place
	for found := false; !found; {
		require.Less(t, len(held), 2000, "the memory does not come back")
		runtime.GC()
		next := NewChunk(256 << 10)
		copy(next.Buffer(), other)
		held, found = append(held, next), &next.Buffer()[0] == at
	}
	assert.True(t, bytes.Equal(want, readChunk(t, peer, len(want))))
	for _, c := range held {
		c.Release()
	}
}

// A deadline in the middle is no end: what is left goes on from there. One
// that is given up takes its pipe with it.
func TestSendByReferenceInParts(t *testing.T) {
	l, peer := narrowLink(t)
	c := sharedChunk(t, 1<<20, 3)
	before, _ := pipesMade()
	load := func() {
		h, lasting := l.out.headers(linkHeaderSize, true)
		require.True(t, lasting)
		copy(h, "headers ")
		l.out.load([][]byte{h, c.Frame()}, true)
	}
	load()
	total, reads := 0, 0
	got := make([]byte, linkHeaderSize+len(c.Frame()))
	for l.out.left() > 0 {
		require.NoError(t, l.conn.SetWriteDeadline(time.Now().Add(time.Millisecond)))
		n, err := l.out.flush()
		if total += n; err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		_, err = io.ReadFull(peer, got[reads:total])
		require.NoError(t, err)
		reads = total
	}
	assert.True(t, bytes.Equal(append([]byte("headers "), c.Frame()...), got))

	load()
	require.NoError(t, l.conn.SetWriteDeadline(time.Now().Add(time.Millisecond)))
	_, err := l.out.flush()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	l.out.abandon()
	c.Release()
	after, idle := pipesMade()
	assert.Equal(t, after, idle)
	assert.LessOrEqual(t, after, before)
}

// With all pipes in use chunks are copied.
func TestSendWithoutPipe(t *testing.T) {
	var all []*splicePipe
	for p := takePipe(); p != nil; p = takePipe() {
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Skip("this system has no pipes for it")
	}
	assert.Len(t, all, mostPipes)
	defer func() {
		for _, p := range all {
			p.giveBack()
		}
	}()
	l, peer := narrowLink(t)
	var open atomic.Bool
	c := sharedChunk(t, 1<<20, 1)
	done := make(chan error)
	go func() { done <- l.send(7, c.Frame(), true, &open) }()
	assert.True(t, bytes.Equal(c.Frame(), readChunk(t, peer, len(c.Frame()))))
	require.NoError(t, <-done)
	c.Release()
}

// What a peer that has gone leaves in a pipe is not for anybody else.
func TestSendByReferenceToNobody(t *testing.T) {
	l, peer := narrowLink(t)
	c := sharedChunk(t, 1<<20, 1)
	require.NoError(t, peer.Close())
	var open atomic.Bool
	var err error
	for range 10 { // the first ones may be taken by the kernel
		if err = l.send(7, c.Frame(), true, &open); err != nil {
			break
		}
	}
	c.Release()
	assert.True(t, errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET), "%v", err)
	made, idle := pipesMade()
	assert.Equal(t, made, idle)
}

// What is dropped comes back without anybody asking for it.
func TestDroppedChunksAreCollected(t *testing.T) {
	sharedChunk(t, 1<<20, 1).Release()
	most := 0
	for range 1000 { // 1 GiB
		clear(NewChunk(1 << 20).Buffer())
		slabs.Lock()
		most = max(most, slabs.given)
		slabs.Unlock()
	}
	assert.Less(t, most, 512<<20)
}
