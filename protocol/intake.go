// Intake: how a link reads its connection. smux cuts what a stream carries
// into frames of 64 KiB, and a broadcaster that makes a read for each of them
// needs half as much CPU time again as one that takes 1 MiB at once
// (docs/performance.md). So one readv(2) takes the rest of a payload and what
// is expected behind it: headers to rooms of their own, payloads to where they
// belong, up to the end of the frame that they are parts of.

package protocol

import (
	"bytes"
	"net"
)

// intakeAhead is how far beyond what is expected is read in the same system
// call: the next header, and all of a short frame behind it.
const intakeAhead = 256

// intake reads a connection for the goroutine that owns it. What comes as
// expected is read to where it is wanted, what does not is copied there.
type intake struct {
	conn  net.Conn
	readv func(parts [][]byte) (int, error) // nil: one part at a time

	unread [][]byte // what has come and was not asked for, in order
	lent   int      // of unread, the last part that is in a caller's room, and those before it
	of     *Chunk   // what that room is of: unread alone does not keep it

	parts   [][]byte // reused; unread is part of it
	headers []byte   // rooms for headers between payloads
	ahead   [intakeAhead]byte
	scratch []byte // for what is dropped
}

func newIntake(conn net.Conn) intake {
	return intake{conn: conn, readv: vectorReader(conn)}
}

// header reads one of smux's headers.
func (in *intake) header(h *[linkHeaderSize]byte) error {
	for got := 0; got < len(h); {
		if len(in.unread) == 0 {
			if err := in.readAhead(); err != nil {
				return err
			}
		}
		got += in.consume(copy(h[got:], in.unread[0]))
	}
	return nil
}

// fill reads n bytes to the beginning of room. The rest of room is where what
// follows is wanted, if that is more payloads of full frames: until the next
// calls have asked for all of it there, room is for nothing else, and chunk c,
// which it is of if not nil, is kept.
func (in *intake) fill(room []byte, n int, c *Chunk) error {
	for n > 0 {
		var k int
		switch {
		case len(in.unread) > 0:
			k = in.move(room[:n])
		case in.readv == nil && n <= intakeAhead/2:
			if err := in.readAhead(); err != nil {
				return err
			}
		default:
			var err error
			if k, err = in.read(room, n); err != nil {
				return err
			}
			in.of = c
		}
		room, n = room[k:], n-k
	}
	return nil
}

// drain reads n bytes, at most what one of smux's frames has, which are valid
// until the next call.
func (in *intake) drain(n int) ([]byte, error) {
	if len(in.scratch) < n { // most sessions never need more than an Offer takes
		in.scratch = make([]byte, n)
	}
	return in.scratch[:n], in.fill(in.scratch[:n], n, nil)
}

// move takes bytes of the first unread part to the beginning of b, and returns
// how many. Mostly they are there.
func (in *intake) move(b []byte) int {
	if &in.unread[0][0] != &b[0] {
		if in.lent > 0 { // b may be where they are, or those behind them
			in.unread = append(in.parts[:0], bytes.Join(in.unread, nil))
			in.lent = 0
		}
		copy(b, in.unread[0])
	}
	return in.consume(min(len(b), len(in.unread[0])))
}

// consume drops n bytes of the first unread part.
func (in *intake) consume(n int) int {
	in.unread[0] = in.unread[0][n:]
	if len(in.unread[0]) == 0 {
		in.unread = in.unread[1:]
		in.lent--
	}
	return n
}

// readAhead reads what has come, a little of it.
func (in *intake) readAhead() error {
	in.of = nil
	k, err := in.readOne(in.ahead[:])
	if k > 0 {
		in.unread, in.lent = append(in.parts[:0], in.ahead[:k]), 0
		return nil
	}
	return err
}

func (in *intake) readOne(b []byte) (int, error) {
	if in.readv == nil {
		return in.conn.Read(b)
	}
	in.parts = append(in.parts[:0], b)
	return in.readv(in.parts)
}

// read reads up to n bytes to the beginning of room, and returns how many. When
// those are complete it may have read what follows.
func (in *intake) read(room []byte, n int) (int, error) {
	if in.readv == nil {
		k, err := in.conn.Read(room[:n])
		if k > 0 {
			err = nil
		}
		return k, err
	}
	rest := room[n:]
	if need := (len(rest)/linkPayload + 1) * linkHeaderSize; len(in.headers) < need {
		in.headers = make([]byte, need)
	}
	parts, headers := append(in.parts[:0], room[:n]), in.headers
	for len(rest) > 0 {
		k := min(linkPayload, len(rest))
		parts = append(parts, headers[:linkHeaderSize], rest[:k])
		rest, headers = rest[k:], headers[linkHeaderSize:]
	}
	in.parts = append(parts, in.ahead[:])
	got, err := in.readv(in.parts)
	if err != nil {
		return 0, err
	}
	k, i := min(got, n), 1
	for left := got - k; left > 0; i++ {
		size := min(left, len(in.parts[i]))
		in.parts[i] = in.parts[i][:size]
		left -= size
	}
	in.unread, in.lent = in.parts[1:i], (i-1)&^1 // each second one is in room
	return k, nil
}
