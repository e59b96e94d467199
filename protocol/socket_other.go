//go:build !linux

package protocol

import "net"

func vectorReader(net.Conn) func(parts [][]byte) (int, error) { return nil }
