//go:build !linux

package protocol

import "syscall"

// unpace is nil: the defaults of other systems do not need it.
var unpace func(network, address string, raw syscall.RawConn) error
