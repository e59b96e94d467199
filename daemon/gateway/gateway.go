// Package gateway lets HTTP clients push: curl, browsers, what already speaks
// HTTP. It is a door, not a way of its own: an upload is handed to a [Pusher],
// which is a client of the broadcaster in the same process, and so has its
// policy, its passes, its progress and its receipts.
//
//	PUT  /broadcast/NAME    one file, its content as the body
//	POST /broadcast         a form with files, pushed one after the other as they come
//	GET  /events/ID         the progress of the upload with the query parameter id=ID
//	GET  /                  a page for people
//	GET  /healthz, /readyz  for machines
//
// Content is never stored on the way. It is read when the readers have room,
// so a slow reader slows the HTTP client down, through TCP. A body that ends
// before its end, by whatever measure HTTP has, is never published.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// Defaults of Options, and limits that have no option.
const (
	DefaultStall      = time.Minute
	DefaultMaxUploads = 32

	maxConns       = 1024             // open connections; more wait to be accepted
	maxHeader      = 32 << 10         // bytes of a request's line and headers
	headerTimeout  = 10 * time.Second // for them to come
	idleTimeout    = 2 * time.Minute  // between the requests of a connection
	answerTimeout  = 30 * time.Second // for a client to take an answer
	lingerTimeout  = 2 * time.Second  // see body.linger
	retryAfter     = "5"              // seconds, told with 503
	closingTimeout = time.Second      // for connections without a request, at the end
)

// Options say how a Gateway behaves. The zero value is good.
type Options struct {
	MaxSize    int64         // bytes of the largest file; 0: no limit
	MaxUploads int           // uploads at once, more get 503; 0: DefaultMaxUploads
	Stall      time.Duration // without a byte from a client that is waited for; 0: DefaultStall
	Hosts      []string      // what a gateway on loopback is called beside localhost and its addresses; AnyHost: anything
	Log        *slog.Logger  // nil: none

	TLS *tls.Config // nil: plain HTTP
	// Admit says whether the client of a request may push, before anything else
	// of the request is looked at; nil: anybody may.
	Admit func(*http.Request) error
}

// Gateway is an HTTP server in front of a Pusher.
type Gateway struct {
	pusher Pusher
	opts   Options
	server *http.Server
	events *events
	health *health
	slots  chan struct{} // of uploads
	local  atomic.Bool   // only this machine can connect

	ctx    context.Context // ends when uploads must
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	draining bool
	uploads  sync.WaitGroup
}

// errShutdown ends what is under way when a Gateway is shut down.
var errShutdown = &protocol.Error{Code: protocol.CodeShutdown, Text: "the gateway is stopping"}

// New returns a Gateway that hands uploads to p.
func New(p Pusher, opts Options) *Gateway {
	if opts.MaxUploads == 0 {
		opts.MaxUploads = DefaultMaxUploads
	}
	if opts.Stall == 0 {
		opts.Stall = DefaultStall
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{pusher: p, opts: opts, events: newEvents(), health: newHealth(), slots: make(chan struct{}, opts.MaxUploads)}
	g.ctx, g.cancel = context.WithCancelCause(context.Background())
	g.server = &http.Server{
		Handler:           g.Handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(opts.Log.Handler(), slog.LevelDebug),
	}
	return g
}

// Handler is all that the Gateway serves. Who may use it is decided before
// anything else is looked at.
func (g *Gateway) Handler() http.Handler {
	same := http.NewCrossOriginProtection()
	same.SetDenyHandler(http.HandlerFunc(foreign))
	return headers(g.hosts(g.admit(same.Handler(http.HandlerFunc(g.route)))))
}

// admit lets those in who may. Health is nobody's secret.
func (g *Gateway) admit(next http.Handler) http.Handler {
	if g.opts.Admit == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := error(nil)
		if !isHealth(r.URL.Path) {
			err = g.opts.Admit(r)
		}
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		g.opts.Log.Warn("request refused", "peer", r.RemoteAddr, "error", err)
		w.Header().Set("Connection", "close")
		w.Header().Add("WWW-Authenticate", `Bearer realm="sbcast"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="sbcast: any name, and a token as the password", charset="UTF-8"`)
		failure(err).write(w)
	})
}

// Serve answers on ln until the Gateway is shut down, then returns nil. It
// owns ln.
func (g *Gateway) Serve(ln net.Listener) error {
	g.local.Store(loopback(ln))
	ln = netutil.LimitListener(ln, maxConns)
	if g.opts.TLS != nil {
		ln = tls.NewListener(ln, g.opts.TLS)
	}
	err := g.server.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, lets the uploads under way end until ctx does, then
// ends them, with ctx's cause where that is a *protocol.Error, and waits for
// them. It returns ctx's error when uploads had to be ended.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	g.draining = true
	g.mu.Unlock()
	closing, stop := context.WithCancel(context.Background())
	defer stop()
	var server sync.WaitGroup
	server.Go(func() { _ = g.server.Shutdown(closing) }) // closes the listener at once

	err := daemon.Drain(ctx, &g.uploads, g.cancel, errShutdown)
	last := time.AfterFunc(closingTimeout, stop)
	defer last.Stop()
	server.Wait()
	_ = g.server.Close()
	return err
}

// enter takes a slot for an upload, which Shutdown waits for from then on. When
// there is none, or the Gateway is stopping, it says so.
func (g *Gateway) enter() error {
	select {
	case g.slots <- struct{}{}:
	default:
		return refuse(http.StatusServiceUnavailable, protocol.CodeBusy, "%d uploads are under way, the most at once: try again later", g.opts.MaxUploads)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		<-g.slots
		return refuse(http.StatusServiceUnavailable, protocol.CodeShutdown, "%v", errShutdown)
	}
	g.uploads.Add(1)
	return nil
}

// stopping reports whether Shutdown has begun.
func (g *Gateway) stopping() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining
}
