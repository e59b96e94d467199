// Output: how a link writes its connection. A plain TCP connection takes many
// parts with one system call, and on Linux chunks without a copy; anything
// else, like TLS, takes them one after the other as one piece.

package protocol

import "net"

// output writes parts to a connection, in order. Its owner loads it, and then
// flushes it until nothing is left or an error stays.
type output interface {
	// headers returns n bytes for what stands between the parts of one load,
	// and whether they may be referred to for long, if that is asked for.
	headers(n int, lasting bool) ([]byte, bool)
	// load takes parts, which are lent until the last flush. Lasting says that
	// they are of a shared chunk, and of headers of that kind: they may be
	// referred to until the peer has acknowledged them.
	load(parts [][]byte, lasting bool)
	// flush writes what is left, or some of it, and returns how much.
	flush() (int, error)
	// left is how many bytes are loaded and not written.
	left() int
	// abandon gives up what is left.
	abandon()
}

// scratch is memory for headers that nobody refers to after the last flush.
type scratch []byte

func (s *scratch) headers(n int, _ bool) ([]byte, bool) {
	if cap(*s) < n {
		*s = make([]byte, n)
	}
	return (*s)[:n], false
}

// flatPiece is what is written with one deadline where there is no writev: a
// tls.Conn whose write was cut off by its deadline cannot go on.
const flatPiece = 64 << 10

// flatOutput copies parts together: a tls.Conn would make a record of each.
type flatOutput struct {
	scratch
	conn net.Conn
	all  []byte // reused
	rest []byte
}

func (o *flatOutput) load(parts [][]byte, _ bool) {
	o.all = o.all[:0]
	for _, part := range parts {
		o.all = append(o.all, part...)
	}
	o.rest = o.all
}

func (o *flatOutput) flush() (int, error) {
	n, err := o.conn.Write(o.rest[:min(len(o.rest), flatPiece)])
	o.rest = o.rest[n:]
	return n, err
}

func (o *flatOutput) left() int { return len(o.rest) }
func (o *flatOutput) abandon()  { o.rest = nil }
