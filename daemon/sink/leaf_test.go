// The leaf: what all stores need alike.

package sink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// chunk makes a chunk of content, compressed when it shrinks and codec says so.
func chunk(offset int64, content []byte, mode protocol.Compression) *protocol.Chunk {
	c := protocol.NewChunk(len(content))
	copy(c.Buffer(), content)
	return protocol.NewEncoder(mode).Seal(c, offset, len(content))
}

// assertReleased checks that the caller's reference to each chunk is the last, and drops it.
func assertReleased(t *testing.T, chunks ...*protocol.Chunk) {
	t.Helper()
	for _, c := range chunks {
		c.Release()
		assert.Panics(t, func() { c.Retain() }, "the chunk at %d is still held", c.Offset)
	}
}

func begin(t *testing.T, store sink.Store, o *protocol.Offer) (protocol.Transfer, *upstream) {
	t.Helper()
	up := newUpstream()
	tr, accept, err := sink.NewLeaf(store).Begin(t.Context(), o, up)
	require.NoError(t, err)
	assert.Equal(t, &protocol.Accept{Leaves: []protocol.Leaf{{State: protocol.LeafReceiving}}}, accept)
	return tr, up
}

func TestLeafStoresWhatChunksHold(t *testing.T) {
	for _, alg := range []protocol.DigestAlg{protocol.DigestXXH128, protocol.DigestSHA256, protocol.DigestBLAKE3, protocol.DigestNone} {
		t.Run(string(alg), func(t *testing.T) {
			content := bytes.Repeat([]byte("compressible "), 1000)
			file := &fakeFile{}
			o := offer("f", int64(len(content)))
			o.Digest = alg
			tr, up := begin(t, &fakeStore{file: file}, o)
			packed, plain := chunk(0, content[:8000], protocol.CompressLZ4), chunk(8000, content[8000:], protocol.CompressNone)
			require.Equal(t, protocol.CodecLZ4, packed.Codec)
			require.NoError(t, tr.Write(packed))
			require.NoError(t, tr.Write(plain))
			sum := digest(alg, content)
			leaves, err := tr.Finish(t.Context(), &protocol.Finish{Size: 13000, Digest: sum})
			require.NoError(t, err)
			assert.Equal(t, []protocol.Leaf{{State: protocol.LeafReady, Offset: 13000}}, leaves)
			assert.True(t, file.staged)
			assert.Zero(t, file.published)

			receipts := tr.Commit(t.Context())
			require.Len(t, receipts, 1)
			r := receipts[0]
			assert.GreaterOrEqual(t, r.Seconds, 0.0)
			r.Seconds = 0
			assert.Equal(t, protocol.Receipt{Status: protocol.LeafPublished, Bytes: 13000, Digest: sum, Location: "fake:file"}, r)
			assert.Equal(t, content, file.content)
			assert.Equal(t, 1, file.published)
			assert.Zero(t, file.discarded)
			assert.Equal(t, int64(8000), receive(t, up.acks, "the first ack"))
			assert.Equal(t, int64(13000), receive(t, up.acks, "the last ack"))
			assertReleased(t, packed, plain)
		})
	}
}

// The first chunk after a resume may begin before what the file has.
func TestLeafDropsWhatItHas(t *testing.T) {
	for _, mode := range []protocol.Compression{protocol.CompressNone, protocol.CompressLZ4} {
		content := bytes.Repeat([]byte("0123456789abcdef"), 64)
		file := &fakeFile{}
		tr, _ := begin(t, &fakeStore{file: file}, offer("f", 1024))
		a, b := chunk(0, content[:700], mode), chunk(500, content[500:], mode)
		require.NoError(t, tr.Write(a))
		require.NoError(t, tr.Write(b))
		_, err := tr.Finish(t.Context(), &protocol.Finish{Size: 1024, Digest: digest(protocol.DigestXXH128, content)})
		require.NoError(t, err)
		assert.Equal(t, content, file.content)
		tr.Abort(errors.New("enough"))
		assertReleased(t, a, b)
	}
}

func TestLeafAcksOnlyWhatWasWritten(t *testing.T) {
	file := &fakeFile{entered: make(chan struct{}, 10), gate: make(chan struct{})}
	tr, up := begin(t, &fakeStore{file: file}, offer("f", 30))
	for i := range int64(3) {
		c := chunk(10*i, make([]byte, 10), protocol.CompressNone)
		require.NoError(t, tr.Write(c), "Write does not wait for the store")
		c.Release()
	}
	for i := range int64(3) {
		receive(t, file.entered, "the store's Write")
		assert.Empty(t, up.acks)
		file.gate <- struct{}{}
		assert.Equal(t, 10*(i+1), receive(t, up.acks, "the ack"))
	}
	tr.Abort(errors.New("enough"))
	first := up.progress[0]
	first.Busy = 0 // nobody knows how long the store took
	assert.Equal(t, protocol.Leaf{State: protocol.LeafReceiving, Offset: 10}, first, "and then ten times a second")
}

// What was stored before a restart and cannot be read back is checked by
// CRC32C, with the rest.
func TestLeafChecksByCRC(t *testing.T) {
	crc := func(b string) *uint32 {
		h := protocol.NewHasher(protocol.DigestNone)
		h.AddCRC(0)
		_, _ = h.Write([]byte(b))
		return h.CRC()
	}
	for name, c := range map[string]struct {
		have, rest string
		crc        *uint32 // of Finish
		want       protocol.Code
	}{
		"from the start":       {"", "the whole", nil, ""},
		"goes on":              {"the ", "whole", crc("the whole"), ""},
		"nothing more":         {"the whole", "", crc("the whole"), ""},
		"other content before": {"one ", "whole", crc("the whole"), protocol.CodeDigest},
		"other content after":  {"the ", "whale", crc("the whole"), protocol.CodeDigest},
		"not told":             {"the ", "whole", nil, protocol.CodeTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			store := &fakeStore{file: &fakeFile{content: []byte(c.have)}, have: sink.Have{Offset: int64(len(c.have)), ByCRC: true, CRC: *crc(c.have)}}
			tr, accept, err := sink.NewLeaf(store).Begin(t.Context(), offer("f", 9), newUpstream())
			require.NoError(t, err)
			assert.True(t, accept.CRC, "asked for, resumed or not")
			if c.rest != "" {
				require.NoError(t, tr.Write(chunk(int64(len(c.have)), []byte(c.rest), protocol.CompressNone)))
			}
			sum := digest(protocol.DigestXXH128, []byte("the whole"))
			_, err = tr.Finish(t.Context(), &protocol.Finish{Size: 9, Digest: sum, CRC: c.crc})
			if c.want != "" {
				assertCode(t, c.want, err)
				assert.False(t, store.file.staged)
				tr.Abort(err)
				return
			}
			require.NoError(t, err)
			receipts := tr.Commit(t.Context())
			assert.Equal(t, sum, receipts[0].Digest)
			assert.Equal(t, int64(len(c.have)), receipts[0].ResumedFrom)
		})
	}
}

func TestLeafWrongDigestIsNeverPublished(t *testing.T) {
	for name, f := range map[string]*protocol.Finish{
		"other content":   {Size: 4, Digest: digest(protocol.DigestXXH128, []byte("date"))},
		"other algorithm": {Size: 4, Digest: digest(protocol.DigestSHA256, []byte("data"))},
		"none":            {Size: 4},
	} {
		t.Run(name, func(t *testing.T) {
			file := &fakeFile{}
			tr, _ := begin(t, &fakeStore{file: file}, offer("f", 4))
			c := chunk(0, []byte("data"), protocol.CompressNone)
			require.NoError(t, tr.Write(c))
			_, err := tr.Finish(t.Context(), f)
			assertCode(t, protocol.CodeDigest, err)
			assert.False(t, file.staged)
			tr.Abort(err)
			assert.Zero(t, file.published)
			assert.Equal(t, 1, file.discarded)
			assertReleased(t, c)
		})
	}
}

func TestLeafFailsOnceWhenTheStoreDoes(t *testing.T) {
	file := &fakeFile{failAt: 25}
	tr, up := begin(t, &fakeStore{file: file}, offer("f", -1))
	var chunks []*protocol.Chunk
	for i := range int64(6) {
		c := chunk(10*i, make([]byte, 10), protocol.CompressNone)
		chunks = append(chunks, c)
		require.NoError(t, tr.Write(c))
	}
	require.ErrorIs(t, receive(t, up.fails, "Fail"), errBroken)
	_, err := tr.Finish(t.Context(), &protocol.Finish{Size: 60})
	require.ErrorIs(t, err, errBroken)
	tr.Abort(err)
	assert.Empty(t, up.fails, "told once")
	assert.Len(t, file.content, 20)
	assert.Len(t, up.acks, 2)
	assert.Equal(t, 1, file.discarded)
	assertReleased(t, chunks...)
}

func TestLeafRefusesChunksThatDoNotDecode(t *testing.T) {
	garbage := protocol.NewChunk(100)
	for i := range garbage.Buffer()[:100] {
		garbage.Buffer()[i] = 0xff
	}
	garbage.Seal(0, 1000, protocol.CodecLZ4, 100)
	file := &fakeFile{}
	tr, up := begin(t, &fakeStore{file: file}, offer("f", -1))
	require.NoError(t, tr.Write(garbage))
	assertCode(t, protocol.CodeProtocol, receive(t, up.fails, "Fail"))
	tr.Abort(errBroken)
	assert.Empty(t, file.content)
	assertReleased(t, garbage)
}

func TestLeafStageFails(t *testing.T) {
	file := &fakeFile{stageErr: errBroken}
	tr, _ := begin(t, &fakeStore{file: file}, offer("f", 0))
	_, err := tr.Finish(t.Context(), &protocol.Finish{Digest: digest(protocol.DigestXXH128, nil)})
	require.ErrorIs(t, err, errBroken)
	tr.Abort(err)
	assert.Equal(t, 1, file.discarded)
	assert.Zero(t, file.published)
}

func TestLeafReceiptOfWhatPublishSaid(t *testing.T) {
	for _, c := range []struct {
		file      *fakeFile
		status    protocol.LeafState
		code      protocol.Code
		discarded int
	}{
		{&fakeFile{}, protocol.LeafPublished, "", 0},
		{&fakeFile{unchanged: true}, protocol.LeafUnchanged, "", 0},
		{&fakeFile{publishErr: protocol.Errorf(protocol.CodeDenied, "not there")}, protocol.LeafFailed, protocol.CodeDenied, 1},
	} {
		tr, _ := begin(t, &fakeStore{file: c.file}, offer("f", 0))
		_, err := tr.Finish(t.Context(), &protocol.Finish{Digest: digest(protocol.DigestXXH128, nil)})
		require.NoError(t, err)
		receipts := tr.Commit(t.Context())
		require.Len(t, receipts, 1)
		assert.Equal(t, c.status, receipts[0].Status)
		assert.Equal(t, c.code, receipts[0].Code)
		assert.Equal(t, c.code != "", receipts[0].Text != "")
		assert.Equal(t, c.discarded, c.file.discarded)
		require.Error(t, c.file.life.Err(), "the file's life is over")
	}
}

func TestLeafAbortEndsAWriteUnderWay(t *testing.T) {
	file := &fakeFile{entered: make(chan struct{}, 10), gate: make(chan struct{})}
	tr, up := begin(t, &fakeStore{file: file}, offer("f", -1))
	a, b := chunk(0, []byte("data"), protocol.CompressNone), chunk(4, []byte("more"), protocol.CompressNone)
	require.NoError(t, tr.Write(a))
	receive(t, file.entered, "the store's Write")
	require.NoError(t, tr.Write(b))
	within(t, "Abort", func() { tr.Abort(protocol.ErrForget) })
	assert.Equal(t, 1, file.discarded)
	assert.Empty(t, file.content)
	assert.Empty(t, up.acks)
	require.ErrorIs(t, context.Cause(file.life), protocol.ErrForget)
	assertReleased(t, a, b)
}

func TestLeafFinishEndsWithItsContext(t *testing.T) {
	file := &fakeFile{gate: make(chan struct{})}
	tr, _ := begin(t, &fakeStore{file: file}, offer("f", -1))
	c := chunk(0, []byte("data"), protocol.CompressNone)
	require.NoError(t, tr.Write(c))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBroken)
	within(t, "Finish", func() {
		_, err := tr.Finish(ctx, &protocol.Finish{Size: 4})
		assert.ErrorIs(t, err, errBroken)
	})
	tr.Abort(errBroken)
	assert.False(t, file.staged)
	assertReleased(t, c)
}

// slowlyGone is a Store whose files take their time to be discarded.
type slowlyGone struct{}

func (slowlyGone) String() string { return "slow:" }

func (slowlyGone) Create(context.Context, sink.Request) (sink.File, sink.Have, error) {
	return &slowFile{}, sink.Have{}, nil
}

type slowFile struct{ fakeFile }

func (*slowFile) Discard(bool) { time.Sleep(20 * time.Second) }

// What is suspended is given up at once: a daemon that stops does not wait for
// one store's deadline after the other.
func TestLeafCloseGivesUpAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaf := sink.NewLeaf(slowlyGone{})
		for _, name := range []string{"a", "b", "c"} {
			o := offer(name, -1)
			o.ID = name
			tr, _, err := leaf.Begin(t.Context(), o, newUpstream())
			require.NoError(t, err)
			require.NoError(t, tr.Write(chunk(0, []byte("content"), protocol.CompressNone)))
			tr.Abort(errBroken)
		}
		begun := time.Now()
		leaf.Close()
		assert.Equal(t, 20*time.Second, time.Since(begun))
	})
}

func TestLeafPassesOnWhyTheStoreRefuses(t *testing.T) {
	refused := protocol.Errorf(protocol.CodeExists, "no")
	_, _, err := sink.NewLeaf(&fakeStore{err: refused}).Begin(t.Context(), offer("f", 1), newUpstream())
	assert.Equal(t, refused, err)
}

// slowStore is a Store whose Create waits until its context ends.
type slowStore struct{ fakeStore }

func (s *slowStore) Create(ctx context.Context, _ sink.Request) (sink.File, sink.Have, error) {
	<-ctx.Done()
	return nil, sink.Have{}, context.Cause(ctx)
}

// Begin must return soon after its context has ended, see protocol.Sink, also
// when the store has not made its mind up, as one far away may take long.
func TestLeafBeginEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBroken)
	life, stop := context.WithCancel(ctx) // lets Create go in the end
	defer stop()
	begun := make(chan error, 1)
	go func() {
		_, _, err := sink.NewLeaf(&slowStore{}).Begin(life, offer("f", 1), newUpstream())
		begun <- err
	}()
	require.ErrorIs(t, receive(t, begun, "Begin to return"), errBroken)
}

// What failed elsewhere for good is not held open for its sender; what another
// push could resume stays.
func TestLeafHoldsNothingOpenThatIsOver(t *testing.T) {
	for name, c := range map[string]struct {
		cause error
		held  bool
	}{
		"cut off": {errors.New("the connection broke"), true},
		"over":    {fmt.Errorf("elsewhere: %w", protocol.ErrOver), false},
	} {
		t.Run(name, func(t *testing.T) {
			file := &fakeFile{}
			leaf := sink.NewLeaf(&fakeStore{file: file})
			tr, _, err := leaf.Begin(t.Context(), offer("f", 8), newUpstream())
			require.NoError(t, err)
			require.NoError(t, tr.Write(chunk(0, []byte("data"), protocol.CompressNone)))
			tr.Abort(c.cause)
			assert.Equal(t, c.held, file.discarded == 0)
			leaf.Close()
			assert.Equal(t, 1, file.discarded)
		})
	}
}

// crowd is a Store that counts which of its files were given up.
type crowd struct {
	fakeStore
	mu    sync.Mutex
	given []string
}

type crowdFile struct {
	fakeFile
	crowd *crowd
	name  string
}

func (c *crowd) Create(_ context.Context, r sink.Request) (sink.File, sink.Have, error) {
	return &crowdFile{crowd: c, name: string(r.Name)}, sink.Have{}, nil
}

func (f *crowdFile) Discard(bool) {
	f.crowd.mu.Lock()
	defer f.crowd.mu.Unlock()
	f.crowd.given = append(f.crowd.given, f.name)
}

// Transfers that were cut off are held open, but not without end: those that
// have waited longest make way.
func TestLeafHoldsSoManyOpen(t *testing.T) {
	c := &crowd{}
	l := sink.NewLeaf(c)
	for i := range 260 {
		o := offer(fmt.Sprint("f", i), 2)
		o.ID = string(o.Name)
		up := newUpstream()
		tr, _, err := l.Begin(t.Context(), o, up)
		require.NoError(t, err)
		require.NoError(t, tr.Write(chunk(0, []byte("x"), protocol.CompressNone)))
		tr.Abort(errBroken)
	}
	assert.Equal(t, []string{"f0", "f1", "f2", "f3"}, c.given)
	l.Close()
	assert.Len(t, c.given, 260)
}
