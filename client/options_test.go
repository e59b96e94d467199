// Options: what they are when nothing is said, and what is refused.

package client_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// recorder is a protocol.Sink that keeps the offers and the lengths of chunks.
type recorder struct {
	protocol.Sink
	offers chan *protocol.Offer
	chunks chan int
}

type recorded struct {
	protocol.Transfer
	r *recorder
}

func newRecorder(t *testing.T) (*recorder, *client.Client) {
	t.Helper()
	store, err := sink.Open("discard:", sink.Options{})
	require.NoError(t, err)
	r := &recorder{Sink: leafOver(t, store), offers: make(chan *protocol.Offer, 100), chunks: make(chan int, 1<<16)}
	return r, newClient(t, serve(t, r, daemon.Options{}).addr)
}

func (r *recorder) Begin(ctx context.Context, o *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	told := *o // the test may change it
	r.offers <- &told
	tr, a, err := r.Sink.Begin(ctx, o, up)
	return &recorded{tr, r}, a, err
}

func (t *recorded) Write(c *protocol.Chunk) error {
	t.r.chunks <- c.RawLen
	return t.Transfer.Write(c)
}

func TestDefaults(t *testing.T) {
	r, c := newRecorder(t)
	src := bytesSource("a name", random(client.DefaultChunkSize+1))
	_, err := c.Push(patient(t), src, client.Options{})
	require.NoError(t, err)
	o := receive(t, r.offers, "the offer")
	assert.NotEmpty(t, o.ID)
	assert.True(t, o.MTime.Equal(time.Unix(1e9, 0)))
	o.ID, o.MTime = "", time.Time{}
	assert.Equal(t, &protocol.Offer{
		Attempt: 1, Name: "a name", Size: client.DefaultChunkSize + 1, Mode: 0o640,
		Digest: protocol.DigestXXH128, Codec: protocol.CodecLZ4, Policy: protocol.All, Hops: o.Hops,
	}, o)
	assert.Positive(t, o.Hops)
	assert.Equal(t, client.DefaultChunkSize, <-r.chunks)
	assert.Equal(t, 1, <-r.chunks)
}

func TestOptionsAreOffered(t *testing.T) {
	r, c := newRecorder(t)
	_, err := c.Push(patient(t), client.Stream(strings.NewReader("0123456789"), "-"), client.Options{
		Name: "dir/file", Force: true, Preserve: true, Require: policy(t, "any"),
		Compress: protocol.CompressNone, Digest: protocol.DigestBLAKE3, ChunkSize: 4,
	})
	require.NoError(t, err)
	o := receive(t, r.offers, "the offer")
	o.ID, o.MTime = "", time.Time{}
	assert.Equal(t, &protocol.Offer{
		Attempt: 1, Name: "dir/file", Size: -1, Force: true, Preserve: true,
		Digest: protocol.DigestBLAKE3, Codec: protocol.CodecRaw, Policy: policy(t, "any"), Hops: o.Hops,
	}, o)
	for _, want := range []int{4, 4, 2} {
		assert.Equal(t, want, <-r.chunks)
	}
}

func TestEachPushHasItsOwnID(t *testing.T) {
	r, c := newRecorder(t)
	ids := map[string]bool{}
	for range 3 {
		_, err := c.Push(patient(t), bytesSource("f", nil), client.Options{})
		require.NoError(t, err)
		ids[receive(t, r.offers, "the offer").ID] = true
	}
	assert.Len(t, ids, 3)
}

// What is wrong on this side is found before anybody is asked.
func TestOptionsAreChecked(t *testing.T) {
	for text, opts := range map[string]client.Options{
		"chunk size of -1 bytes":      {ChunkSize: -1},
		"chunk size of 4194305 bytes": {ChunkSize: protocol.MaxChunk + 1},
		`bad name "../f"`:             {Name: "../f"},
		`bad name "/f"`:               {Name: "/f"},
		`bad name "a//b"`:             {Name: "a//b"},
		`bad name ".sbcast-f"`:        {Name: ".sbcast-f"},
	} {
		opts.Host = down
		receipts, err := client.Push(patient(t), bytesSource("f", nil), opts)
		require.ErrorContains(t, err, text)
		assert.Empty(t, receipts)
	}
	_, err := client.Push(patient(t), client.Stream(&bytes.Buffer{}, ""), client.Options{Host: down})
	assertCode(t, protocol.CodeName, err)
}

func TestUnknownDigestIsRefused(t *testing.T) {
	r, c := newRecorder(t)
	_, err := c.Push(patient(t), bytesSource("f", nil), client.Options{Digest: "md5"})
	assertCode(t, protocol.CodeUnsupported, err)
	assert.Empty(t, r.offers)
}

func TestHost(t *testing.T) {
	for host, want := range map[string]string{
		"host":      "host:7000",
		"host:99":   "host:99",
		"[::1]":     "[::1]:7000",
		"10.0.0.1":  "10.0.0.1:7000",
		":99":       "localhost:99",
		"":          "",
		"host:none": "",
		"a:b:c":     "",
	} {
		c, err := client.New(host, protocol.SessionConfig{})
		if want == "" {
			require.Error(t, err, "%q", host)
			continue
		}
		require.NoError(t, err, "%q", host)
		assert.Equal(t, want, c.Addr())
		require.NoError(t, c.Close())
	}
	_, err := client.Push(patient(t), bytesSource("f", nil), client.Options{})
	require.ErrorContains(t, err, "empty address")
}

func TestUnreachableHost(t *testing.T) {
	c := newClient(t, down)
	receipts, err := c.Push(patient(t), bytesSource("f", nil), client.Options{Timeout: 100 * time.Millisecond})
	assertCode(t, protocol.CodeUnreachable, err)
	assert.ErrorContains(t, err, "connection refused")
	assert.Empty(t, receipts)
	_, err = c.Status(patient(t), 0)
	assertCode(t, protocol.CodeUnreachable, err)
	_, err = c.Open(patient(t))
	assertCode(t, protocol.CodeUnreachable, err)
}
