package protocol

import (
	"bytes"
	"testing"
)

const benchChunk = 256 << 10

func BenchmarkChunkSealAndRead(b *testing.B) {
	content := random(benchChunk, 1)
	var r bytes.Reader
	fr := NewFrameReader(&r)
	b.SetBytes(benchChunk)
	b.ReportAllocs()
	for b.Loop() {
		c := NewChunk(benchChunk)
		copy(c.Buffer(), content)
		c.Seal(0, benchChunk, CodecRaw, benchChunk)
		r.Reset(c.Frame())
		f, err := fr.Next()
		if err != nil {
			b.Fatal(err)
		}
		f.Chunk.Release()
		c.Release()
	}
}

func BenchmarkAckAppendAndParse(b *testing.B) {
	var buf []byte
	var r bytes.Reader
	fr := NewFrameReader(&r)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendAck(buf[:0], 1<<40)
		r.Reset(buf)
		f, err := fr.Next()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ParseAck(f.Payload); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMessageAppendAndParse(b *testing.B) {
	o := &Offer{ID: "0190b2c4-7d7e-7c3a-8b1e-0123456789ab", Name: "releases/app.tar.zst", Size: 1 << 40, Digest: DigestXXH128, Codec: CodecLZ4}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = AppendMessage(buf[:0], o); err != nil {
			b.Fatal(err)
		}
		if _, err = ParseMessage(KindOffer, buf[headerSize:len(buf)-checkSize]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, bb := range []struct {
		name    string
		mode    Compression
		content []byte
	}{
		{"lz4/text", CompressLZ4, text(benchChunk)},
		{"lz4/random", CompressLZ4, random(benchChunk, 2)},
		{"auto/random", CompressAuto, random(benchChunk, 3)},
		{"none/text", CompressNone, text(benchChunk)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			enc := NewEncoder(bb.mode)
			b.SetBytes(benchChunk)
			b.ReportAllocs()
			for b.Loop() {
				seal(enc, 0, bb.content).Release()
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, content := range map[string][]byte{"lz4/text": text(benchChunk), "raw/random": random(benchChunk, 4)} {
		b.Run(name, func(b *testing.B) {
			c := seal(NewEncoder(CompressLZ4), 0, content)
			var scratch []byte
			b.SetBytes(benchChunk)
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if _, scratch, err = c.Decode(scratch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDigest(b *testing.B) {
	content := random(benchChunk, 5)
	for _, alg := range digestAlgs {
		b.Run(string(alg), func(b *testing.B) {
			h := NewHasher(alg)
			b.SetBytes(benchChunk)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = h.Write(content)
			}
		})
	}
}

func BenchmarkWindow(b *testing.B) {
	content := make([]byte, 1<<10)
	w := newWindow(DefaultWindow, 0)
	offset := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		c := rawChunk(offset, content)
		if err := w.reserve(b.Context(), c); err != nil {
			b.Fatal(err)
		}
		offset = c.End()
		w.written(offset)
		if err := w.ack(offset); err != nil {
			b.Fatal(err)
		}
	}
}
