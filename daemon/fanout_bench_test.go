package daemon

import (
	"fmt"
	"testing"

	"github.com/sbcast/sbcast/protocol"
)

// deaf is an upstream that listens to nothing but acks.
type deaf struct{ acks int }

func (*deaf) Window() int64 { return protocol.DefaultWindow }

func (*deaf) Room() protocol.Room {
	return protocol.Room{Window: protocol.DefaultWindow, Tail: protocol.DefaultWindow / 4}
}

func (d *deaf) Ack(int64)               { d.acks++ }
func (*deaf) Progress(...protocol.Leaf) {}
func (*deaf) Fail(error)                {}

// benchSpread is a transfer to n hops, whose senders the caller plays.
func benchSpread(n int) (*spread, *deaf) {
	up := &deaf{}
	t := &spread{fanout: &Fanout{}, up: up, strict: true, settled: true, window: protocol.DefaultWindow}
	for range n {
		t.legs = append(t.legs, &leg{spread: t, accept: &protocol.Accept{}, leaves: make([]protocol.Leaf, 1)})
	}
	t.paceLocked()
	return t, up
}

// What the acks of a chunk by all hops take, for each hop: no more with 1,000
// hops than with 10.
func BenchmarkFanoutAcks(b *testing.B) {
	const size = 4 << 10
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			t, up := benchSpread(n)
			e := protocol.NewEncoder(protocol.CompressNone)
			b.ReportAllocs()
			for i := range int64(b.N) {
				c := e.Seal(protocol.NewChunk(size), i*size, size)
				if err := t.Write(c); err != nil {
					b.Fatal(err)
				}
				c.Release()
				for _, l := range t.legs {
					l.onAck(0, (i+1)*size)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/reader")
			if up.acks != b.N {
				b.Fatalf("%d acks upstream for %d chunks", up.acks, b.N)
			}
		})
	}
}

// A round of acks by all hops is one ack upstream, in whatever order they
// come, and hops are looked at once a round.
func TestRoundOfAcksIsOneAck(t *testing.T) {
	s, up := benchSpread(100)
	for round := range 10 {
		c := protocol.NewEncoder(protocol.CompressNone).Seal(protocol.NewChunk(1), int64(round), 1)
		if err := s.Write(c); err != nil {
			t.Fatal(err)
		}
		c.Release()
		for i := range s.legs {
			if up.acks != round {
				t.Fatalf("%d acks upstream after %d rounds and %d hops", up.acks, round, i)
			}
			s.legs[(i*37+round)%len(s.legs)].onAck(0, int64(round)+1)
		}
	}
	if up.acks != 10 || s.acked != 10 {
		t.Fatalf("%d acks upstream, of %d bytes", up.acks, s.acked)
	}
}
