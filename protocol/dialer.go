// Dialer: streams to one address, over a session that is kept and reused.

package protocol

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// DialTimeout bounds one attempt to connect, before Hello.
const DialTimeout = 10 * time.Second

// Address completes HOST to HOST:port. "[::1]", "::1" and ":7000" work too; no
// host means localhost.
func Address(addr, port string) (string, error) {
	if addr == "" {
		return "", errors.New("empty address")
	}
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		host, p = strings.Trim(addr, "[]"), port
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") {
			return "", fmt.Errorf("%q is not HOST or HOST:PORT", addr)
		}
	}
	if p == "" {
		p = port
	}
	if n, err := net.LookupPort("tcp", p); err != nil || n == 0 {
		return "", fmt.Errorf("%q has no valid port: %q", addr, p)
	}
	if host == "" {
		host = "localhost"
	}
	return net.JoinHostPort(host, p), nil
}

// Opener opens streams to one daemon. A Dialer is one.
type Opener interface {
	Open(ctx context.Context) (Stream, error)
	Addr() string // for messages
	Close() error
}

// Dialer opens streams to one address. It is safe for concurrent use: one
// caller dials, the others wait for the session. Close it when done.
type Dialer struct {
	addr string
	cfg  SessionConfig

	turn   chan struct{} // capacity 1: held while sess is replaced
	mu     sync.Mutex
	sess   *Session
	closed bool
}

// NewDialer returns a Dialer for addr, "host:port". Nothing is dialled yet.
func NewDialer(addr string, cfg SessionConfig) *Dialer {
	return &Dialer{addr: addr, cfg: cfg, turn: make(chan struct{}, 1)}
}

// Addr is the address that the Dialer connects to.
func (d *Dialer) Addr() string { return d.addr }

// Open opens a stream, on the session at hand if that still works. It tries
// once; when to try again is the caller's to decide.
func (d *Dialer) Open(ctx context.Context) (Stream, error) {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s := d.current(); s != nil {
		stream, err := s.Open(ctx)
		if err == nil || ctx.Err() != nil || HasCode(err, CodeBusy) {
			return stream, err
		}
		s.Close()
	}
	s, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	return s.Open(ctx)
}

func (d *Dialer) current() *Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sess
}

// Connect makes sure that there is a session which works, for an Open to come,
// and returns it when the peer has said Hello. It does not make an Open wait:
// one that comes in the middle of it dials itself.
func (d *Dialer) Connect(ctx context.Context) (*Session, error) {
	s := d.current()
	if s == nil || s.ended() {
		fresh, err := d.connect(ctx)
		if err != nil {
			return nil, err
		}
		if s, err = d.install(ctx, fresh); err != nil {
			return nil, err
		}
	}
	_, err := s.Peer(ctx)
	return s, err
}

// install makes fresh the session of the Dialer, unless there is one by now.
func (d *Dialer) install(ctx context.Context, fresh *Session) (*Session, error) {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		fresh.Close()
		return nil, context.Cause(ctx)
	}
	if s := d.current(); s != nil {
		if !s.ended() {
			fresh.Close()
			return s, nil
		}
		s.Close()
	}
	return fresh, d.keep(fresh)
}

func (d *Dialer) dial(ctx context.Context) (*Session, error) {
	s, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	return s, d.keep(s)
}

func (d *Dialer) connect(ctx context.Context) (*Session, error) {
	nd := net.Dialer{Timeout: DialTimeout}
	conn, err := nd.DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, dialError(err)
	}
	return DialSession(ctx, conn, d.cfg)
}

// keep makes s the session at hand. The caller has the turn.
func (d *Dialer) keep(s *Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		s.Close()
		return net.ErrClosed
	}
	d.sess = s
	return nil
}

// dialError says what a failed dial means, without the addresses that the
// caller knows.
func dialError(err error) error {
	why := err.Error()
	var opErr *net.OpError
	var dnsErr *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "connection refused: is it running there?"
	case errors.As(err, &dnsErr):
		why = fmt.Sprintf("no such host %q", dnsErr.Name)
	case errors.As(err, &opErr) && opErr.Timeout():
		why = "no answer to the connection"
	case errors.As(err, &opErr):
		why = opErr.Err.Error()
	}
	return &Error{Code: CodeUnreachable, Text: why, cause: err}
}

// MaxStreams is how many streams the peer allows on a session, 0 while that is not known.
func (d *Dialer) MaxStreams() int {
	if s := d.current(); s != nil {
		return s.maxStreams()
	}
	return 0
}

// Close closes the session and makes every later Open fail.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	s := d.sess
	d.sess = nil
	d.mu.Unlock()
	if s != nil {
		return s.Close()
	}
	return nil
}
