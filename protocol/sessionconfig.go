// Session configuration: what this end of a session allows.

package protocol

import "fmt"

// SessionConfig says how this end of a session behaves. The zero value is good.
type SessionConfig struct {
	Agent      string // software and version, told to the peer
	Window     int64  // largest window granted on a stream, bytes; 0 is DefaultWindow
	MaxStreams int    // streams the peer may have open at once; 0 is DefaultMaxStreams
}

func (c SessionConfig) withDefaults() SessionConfig {
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = DefaultMaxStreams
	}
	return c
}

// CheckWindow refuses windows that a session cannot grant.
func CheckWindow(n int64) error {
	if n < minWindow || n > MaxWindow {
		return fmt.Errorf("%d bytes, want %d to %d", n, minWindow, MaxWindow)
	}
	return nil
}
