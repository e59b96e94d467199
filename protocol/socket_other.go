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
