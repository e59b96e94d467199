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

// joinable is how long others join a dial that is under way. One that takes
// longer may be waiting for a peer that is gone: who comes then dials too.
const joinable = time.Second

// Dialer opens streams to one address. It is safe for concurrent use: who comes
// while there is no session shares one dial. As many streams as a session
// is good for go over the first one, and then over a second: a broadcaster has
// one stream to each reader for each push that is under way, and to let some
// pushes wait for the streams of others could make them wait for each other.
// Close it when done.
type Dialer struct {
	addr string
	cfg  SessionConfig

	life  context.Context // of dials
	end   context.CancelFunc
	dials sync.WaitGroup

	mu       sync.Mutex
	sessions []*Session // in the order of their making
	dialling *dialling  // the latest that is under way, or nil
	closed   bool
}

// dialling is a dial under way.
type dialling struct {
	begun time.Time
	done  chan struct{} // closed at its end
	sess  *Session      // then
	err   error
}

// NewDialer returns a Dialer for addr, "host:port". Nothing is dialled yet.
func NewDialer(addr string, cfg SessionConfig) *Dialer {
	d := &Dialer{addr: addr, cfg: cfg}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Addr is the address that the Dialer connects to.
func (d *Dialer) Addr() string { return d.addr }

// Open opens a stream, on a session at hand if one has room and still works.
// It tries once; when to try again is the caller's to decide. CodeBusy means
// that all sessions that there may be are full.
func (d *Dialer) Open(ctx context.Context) (Stream, error) {
	var fresh *Session // that was dialled for this call
	for {
		if fresh != nil && fresh.ended() { // as another one would
			return nil, fresh.refused()
		}
		s, wait, err := d.choose()
		switch {
		case err != nil:
			return nil, err
		case s != nil:
			stream, err := s.openReserved(ctx)
			if err == nil || ctx.Err() != nil || fresh != nil {
				return stream, err
			}
			d.drop(s) // had died unnoticed: the next one
			continue
		}
		if dialled, err := wait(ctx); err != nil {
			return nil, err
		} else if dialled != nil {
			fresh = dialled
		}
	}
}

// choose returns a session with a stream reserved on it, or a wait for what may
// bring one: the Hello of a session at hand, or a dial, of which it returns the
// session.
func (d *Dialer) choose() (s *Session, wait func(context.Context) (dialled *Session, err error), err error) {
	for _, s := range d.all() {
		if s.ended() {
			d.drop(s)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil, net.ErrClosed
	}
	room := (*Session).hasRoom
	if len(d.sessions) >= maxSessions { // then to the limit
		room = (*Session).hasAny
	}
	var unheard *Session
	for _, s := range d.sessions {
		switch {
		case s.ended():
		case s.unheard():
			unheard = s
		case s.reserve(room):
			return s, nil, nil
		}
	}
	switch {
	case unheard != nil: // who waits for its Hello shares its fate
		return nil, func(ctx context.Context) (*Session, error) {
			_, err := unheard.Peer(ctx)
			return nil, err
		}, nil
	case len(d.sessions) >= maxSessions:
		return nil, nil, Errorf(CodeBusy, "all streams of %d connections to %s are in use", len(d.sessions), d.addr)
	}
	return nil, d.dialLocked().wait, nil
}

// dialLocked joins the dial under way or begins one.
func (d *Dialer) dialLocked() *dialling {
	if d.dialling != nil && time.Since(d.dialling.begun) < joinable {
		return d.dialling
	}
	now := &dialling{begun: time.Now(), done: make(chan struct{})}
	d.dialling = now
	d.dials.Go(func() {
		defer close(now.done)
		s, err := d.connect(d.life)
		if err == nil {
			err = d.keep(s)
		}
		now.sess, now.err = s, err
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.dialling == now {
			d.dialling = nil
		}
	})
	return now
}

func (n *dialling) wait(ctx context.Context) (*Session, error) {
	select {
	case <-n.done:
		return n.sess, n.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (d *Dialer) all() []*Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sessions)
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
		if s, err = d.install(fresh); err != nil {
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
func (d *Dialer) install(fresh *Session) (*Session, error) {
	if s := d.live(); s != nil {
		fresh.Close()
		return s, nil
	}
	return fresh, d.keep(fresh)
}

func (d *Dialer) connect(ctx context.Context) (*Session, error) {
	nd := net.Dialer{Timeout: DialTimeout, Control: unpace}
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

// keep makes s one of the sessions at hand.
func (d *Dialer) keep(s *Session) error {
	d.mu.Lock()
	closed := d.closed
	if !closed {
		d.sessions = append(d.sessions, s)
	}
	d.mu.Unlock()
	if closed {
		s.Close()
		return net.ErrClosed
	}
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

// Close ends dials under way, closes the sessions and makes every later Open
// fail.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	all := d.sessions
	d.sessions = nil
	d.mu.Unlock()
	d.end()
	d.dials.Wait()
	var err error
	for _, s := range all {
		err = errors.Join(err, s.Close())
	}
	return err
}
