// Connections: the bytes under smux, with a deadline on every write.

package protocol

import (
	"io"
	"net"
	"time"
)

// timedConn gives every write a deadline. smux writes from one goroutine.
type timedConn struct {
	net.Conn
	until time.Time
}

func (c *timedConn) extend() {
	if now := time.Now(); c.until.Sub(now) < WriteTimeout-time.Second {
		c.until = now.Add(WriteTimeout)
		c.SetWriteDeadline(c.until)
	}
}

func (c *timedConn) Write(p []byte) (int, error) {
	c.extend()
	return c.Conn.Write(p)
}

// vectorConn is a timedConn whose writev smux can use, which saves it a copy
// of every frame. A tls.Conn would send a record for each part: not for those.
type vectorConn struct{ timedConn }

func (c *vectorConn) WriteBuffers(v [][]byte) (int, error) {
	c.extend()
	b := net.Buffers(v)
	n, err := b.WriteTo(c.Conn)
	return int(n), err
}

func smuxConn(conn net.Conn) io.ReadWriteCloser {
	if _, ok := conn.(*net.TCPConn); ok {
		return &vectorConn{timedConn{Conn: conn}}
	}
	return &timedConn{Conn: conn}
}
