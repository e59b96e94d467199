//go:build !linux

package protocol

import "net"

func vectorReader(net.Conn) func(parts [][]byte) (int, error) { return nil }

func newOutput(conn net.Conn) output {
	if _, ok := conn.(*net.TCPConn); ok {
		return &vectorOutput{conn: conn}
	}
	return &flatOutput{conn: conn}
}

// vectorOutput writes many parts with one system call, in the portable way.
type vectorOutput struct {
	scratch
	conn  net.Conn
	parts net.Buffers
}

func (o *vectorOutput) load(parts [][]byte, _ bool) { o.parts = parts }

func (o *vectorOutput) flush() (int, error) {
	n, err := o.parts.WriteTo(o.conn)
	return int(n), err
}

func (o *vectorOutput) left() (n int) {
	for _, part := range o.parts {
		n += len(part)
	}
	return n
}

func (o *vectorOutput) abandon() { o.parts = nil }
