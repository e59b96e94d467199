// Dialer: streams to one address, over a session that is kept and reused.

package protocol

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
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

// maxSessions is how many connections a Dialer has to its address at most:
// with DefaultMaxStreams, for 4,096 streams at once.
const maxSessions = 32

// Dialer opens streams to one address. It is safe for concurrent use: one
// caller dials, the others wait for the session. As many streams as a session
// is good for go over the first one, and then over a second: a broadcaster has
// one stream to each reader for each push that is under way, and to let some
// pushes wait for the streams of others could make them wait for each other.
// Close it when done.
type Dialer struct {
	addr string
	cfg  SessionConfig

	turn     chan struct{} // capacity 1: held while sessions change
	mu       sync.Mutex
	sessions []*Session // in the order of their making
	closed   bool
}

// NewDialer returns a Dialer for addr, "host:port". Nothing is dialled yet.
func NewDialer(addr string, cfg SessionConfig) *Dialer {
	return &Dialer{addr: addr, cfg: cfg, turn: make(chan struct{}, 1)}
}

// Addr is the address that the Dialer connects to.
func (d *Dialer) Addr() string { return d.addr }

// Open opens a stream, on a session at hand if one has room and still works.
// It tries once; when to try again is the caller's to decide. CodeBusy means
// that all sessions that there may be are full.
func (d *Dialer) Open(ctx context.Context) (Stream, error) {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	stream, err := d.reuse(ctx, (*Session).hasRoom)
	if stream != nil || err != nil {
		return stream, err
	}
	if d.count() >= maxSessions { // then to the limit
		if stream, err = d.reuse(ctx, (*Session).hasAny); stream != nil || err != nil {
			return stream, err
		}
		if n := d.count(); n >= maxSessions {
			return nil, Errorf(CodeBusy, "all streams of %d connections to %s are in use", n, d.addr)
		}
	}
	s, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	return s.Open(ctx)
}

// reuse opens a stream on the first session that fits. It returns neither
// stream nor error when none does, and closes those that do not work any more.
func (d *Dialer) reuse(ctx context.Context, fits func(*Session) bool) (Stream, error) {
	for _, s := range d.all() {
		if s.ended() {
			d.drop(s)
			continue
		}
		if !fits(s) {
			continue
		}
		stream, err := s.Open(ctx)
		switch {
		case err == nil, ctx.Err() != nil:
			return stream, err
		case !HasCode(err, CodeBusy):
			d.drop(s)
		}
	}
	return nil, nil
}

func (d *Dialer) all() []*Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sessions)
}

func (d *Dialer) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.sessions)
}

// drop closes a session and forgets it.
func (d *Dialer) drop(s *Session) {
	d.mu.Lock()
	if i := slices.Index(d.sessions, s); i >= 0 {
		d.sessions = slices.Delete(d.sessions, i, i+1)
	}
	d.mu.Unlock()
	s.Close()
}

// Connect makes sure that there is a session which works, for an Open to come,
// and returns it when the peer has said Hello. It does not make an Open wait:
// one that comes in the middle of it dials itself.
func (d *Dialer) Connect(ctx context.Context) (*Session, error) {
	s := d.live()
	if s == nil {
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

// live is a session that works, or nil.
func (d *Dialer) live() *Session {
	for _, s := range d.all() {
		if !s.ended() {
			return s
		}
		d.drop(s)
	}
	return nil
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
	if s := d.live(); s != nil {
		fresh.Close()
		return s, nil
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
	cfg := d.cfg
	if cfg.Host == "" {
		cfg.Host, _, _ = net.SplitHostPort(d.addr)
	}
	return DialSession(ctx, conn, cfg)
}

// keep makes s the session at hand. The caller has the turn.
func (d *Dialer) keep(s *Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		s.Close()
		return net.ErrClosed
	}
	d.sessions = append(d.sessions, s)
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
	if s := d.live(); s != nil {
		return s.maxStreams()
	}
	return 0
}

// Close closes the sessions and makes every later Open fail.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	all := d.sessions
	d.sessions = nil
	d.mu.Unlock()
	var err error
	for _, s := range all {
		err = errors.Join(err, s.Close())
	}
	return err
}
