package client

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/sbcast/sbcast/protocol"
)

// null is a receiver that takes everything at once.
type null struct{ feed *feed }

func (n null) Send(_ context.Context, c *protocol.Chunk) error {
	n.feed.acked.Store(c.End())
	c.Release()
	return nil
}
func (null) Done() <-chan struct{} { return nil }
func (null) Err() error            { return nil }

// zeros is a source of size bytes in memory.
type zeros struct {
	Source
	content []byte
	size    int64
}

func (z zeros) Name() string { return "zeros" }

func (z zeros) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(io.LimitReader(&repeat{b: z.content}, z.size)), nil
}

// repeat reads b again and again.
type repeat struct {
	b  []byte
	at int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.b[r.at:])
	r.at = (r.at + n) % len(r.b)
	return n, nil
}

func benchFeed(b *testing.B, mode protocol.Compression, alg protocol.DigestAlg, content []byte) {
	const chunk = DefaultChunkSize
	b.SetBytes(chunk)
	b.ReportAllocs()
	size := int64(b.N) * chunk
	f := &feed{src: zeros{content: content, size: size}, size: size, pace: newPace(chunk), alg: alg, compress: mode}
	defer f.close()
	err := f.send(b.Context(), null{f}, &protocol.Accept{Window: protocol.DefaultWindow, MaxChunk: chunk}, func(int) {})
	if err != nil {
		b.Fatal(err)
	}
}

func BenchmarkFeed(b *testing.B) {
	for name, content := range map[string][]byte{"text": text(4 << 20), "noise": noise(4 << 20)} {
		for _, mode := range []protocol.Compression{protocol.CompressNone, protocol.CompressAuto, protocol.CompressLZ4} {
			b.Run(fmt.Sprintf("%s/%s", name, mode), func(b *testing.B) { benchFeed(b, mode, protocol.DigestXXH128, content) })
		}
	}
}

// BenchmarkFeedDigest shows what a digest costs on the way of raw content.
func BenchmarkFeedDigest(b *testing.B) {
	content := noise(4 << 20)
	for _, alg := range []protocol.DigestAlg{protocol.DigestNone, protocol.DigestXXH128, protocol.DigestBLAKE3, protocol.DigestSHA256} {
		b.Run(string(alg), func(b *testing.B) { benchFeed(b, protocol.CompressNone, alg, content) })
	}
}

// BenchmarkDigester compares hashing in write and in a goroutine: the sum of
// the rest of the work for a chunk, here its checksum, and of the hash.
func BenchmarkDigester(b *testing.B) {
	for _, alg := range []protocol.DigestAlg{protocol.DigestXXH128, protocol.DigestBLAKE3, protocol.DigestSHA256} {
		for _, size := range []int{DefaultChunkSize, LargeChunkSize} {
			for _, own := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/%dK/own goroutine %v", alg, size>>10, own), func(b *testing.B) {
					r := &repeat{b: noise(4 << 20)}
					d := newDigester(protocol.NewHasher(alg), own)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						c := protocol.NewChunk(size)
						_, _ = io.ReadFull(r, c.Buffer()[:size])
						d.write(c, size)
						c.Seal(0, size, protocol.CodecRaw, size)
						c.Release()
					}
					d.close()
				})
			}
		}
	}
}
