// Session configuration: what this end of a session allows.

package protocol

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// SessionConfig says how this end of a session behaves. The zero value is good.
type SessionConfig struct {
	Agent      string // software and version, told to the peer
	Window     int64  // largest window granted on a stream, bytes; 0 is DefaultWindow
	MaxStreams int    // streams the peer may have open at once; 0 is DefaultMaxStreams

	Identity *Identity // for TLS; nil: bare TCP, on which nobody is known and all may push
	Host     string    // to dial: whose certificate it has to be
	Token    string    // to dial: told to the server, inside TLS; "": none
	Tokens   *Tokens   // to accept: who may come without a certificate; nil: nobody

	// Admit has the last word on a client whom all of this lets in. Its error
	// is told to the client. Nil: all may come.
	Admit func(Peer) error
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

// admit decides whether the client on conn, that said h, may come, and as whom.
func (c SessionConfig) admit(conn net.Conn, h *Hello) (Peer, error) {
	p, err := c.identify(conn, h)
	if err == nil && c.Admit != nil {
		err = c.Admit(p)
	}
	return p, err
}

// identify finds who the client is.
func (c SessionConfig) identify(conn net.Conn, h *Hello) (Peer, error) {
	tc, ok := conn.(*tls.Conn)
	if !ok {
		return Peer{Scope: ScopePush}, nil
	}
	if certs := tc.ConnectionState().PeerCertificates; len(certs) > 0 { // TLS has verified it
		return Peer{Name: certs[0].Subject.CommonName, Scope: ScopePush}, nil
	}
	if c.Tokens == nil && !c.Identity.Takes() {
		return Peer{Scope: ScopePush}, nil // whoever made it so has said that anybody may
	}
	if c.Tokens != nil {
		if p, ok := c.Tokens.Find(h.Token); ok {
			return p, nil
		}
	}
	if h.Token == "" {
		return Peer{}, Errorf(CodeUnauthorised, "who is it? --tls-cert or --token-file says so")
	}
	time.Sleep(wrongTokenDelay)
	return Peer{}, Errorf(CodeUnauthorised, "the token is not one of this daemon's")
}

// CheckWindow refuses windows that a session cannot grant.
func CheckWindow(n int64) error {
	if n < minWindow || n > MaxWindow {
		return fmt.Errorf("%d bytes, want %d to %d", n, minWindow, MaxWindow)
	}
	return nil
}
