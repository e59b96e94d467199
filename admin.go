// The admin listener: metrics, health and pprof, for this machine only.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/urfave/cli/v2"
)

// Bounds of the admin listener. Whoever asks is on this machine, but may still
// be broken.
const (
	adminRead    = 10 * time.Second // a request
	adminWrite   = 2 * time.Minute  // an answer; a profile takes as long as it was asked for
	adminIdle    = time.Minute
	adminScrapes = 4 // of /metrics at once
	adminHeaders = 16 << 10
	adminEnd     = time.Second // for answers under way when the daemon stops
)

func adminFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "admin", EnvVars: []string{"SBCAST_ADMIN"},
		Usage: "`ADDRESS` for /metrics, /healthz and /debug/pprof/: 127.0.0.1:PORT or unix:PATH (default: none)",
	}
}

// admin is the HTTP server of --admin. It is a service.
type admin struct {
	http.Server
	end context.CancelFunc // of profiles being made
}

// openAdmin opens the listener of --admin; it is nil without.
func openAdmin(c *cli.Context) (net.Listener, error) {
	addr := c.String("admin")
	if addr == "" {
		return nil, nil
	}
	ln, err := listenAdmin(addr)
	if err != nil {
		return nil, configError(fmt.Errorf("--admin %s: %w", addr, err))
	}
	return ln, nil
}

// addAdmin adds to services what answers on ln, unless that is nil.
func addAdmin(c *cli.Context, ln net.Listener, services map[service]net.Listener, log *slog.Logger, role string, parts ...prometheus.Collector) {
	if ln == nil {
		return
	}
	registry := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sbcast_info", Help: "1, for its labels.", ConstLabels: prometheus.Labels{"version": versionString(), "role": role},
	})
	info.Set(1)
	registry.MustRegister(append(parts, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())...)
	life, end := context.WithCancel(context.Background())
	services[&admin{http.Server{
		Handler:           adminHandler(registry),
		ReadHeaderTimeout: adminRead, ReadTimeout: adminRead, WriteTimeout: adminWrite, IdleTimeout: adminIdle,
		MaxHeaderBytes: adminHeaders,
		BaseContext:    func(net.Listener) context.Context { return life },
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}, end}] = ln
	fmt.Fprintf(c.App.ErrWriter, "sbcast admin: listening on %s\n", ln.Addr())
}

// errNotLocal is why an address is refused.
var errNotLocal = errors.New("metrics and profiles ask nobody who they are, so they are for this machine only: " +
	"127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH; a proxy can show /metrics to others")

// listenAdmin listens on a loopback address or a socket.
func listenAdmin(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return listenUnix(path)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("not HOST:PORT or unix:PATH: %w", err)
	}
	if !isLocal(host) {
		return nil, errNotLocal
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, withoutOp(err)
	}
	if at, ok := ln.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() { // what localhost is said to be
		ln.Close()
		return nil, errNotLocal
	}
	return ln, nil
}

// listenUnix listens on a socket that only this user may connect to. One that
// a process left behind which was killed is replaced.
func listenUnix(path string) (net.Listener, error) {
	if path == "" {
		return nil, errors.New("unix: needs a path")
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return nil, errors.New("another process listens there")
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(path) // when that fails, Listen says so
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, withoutOp(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// withoutOp is err without what net says it was doing.
func withoutOp(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func adminHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: adminScrapes, Timeout: adminRead}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !asksLocally(r) {
			http.Error(w, "this listener is asked as localhost or by its address only", http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// asksLocally reports whether a request was meant for this machine: a page in
// a browser can have a name of its own resolve to 127.0.0.1, and read answers.
func asksLocally(r *http.Request) bool {
	at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if at == nil || at.Network() == "unix" {
		return true // no browser connects to one
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = strings.Trim(r.Host, "[]")
	}
	return isLocal(host)
}

// Serve implements service.
func (a *admin) Serve(ln net.Listener) error {
	if err := a.Server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

// Shutdown implements service. Answers under way have adminEnd.
func (a *admin) Shutdown(ctx context.Context) error {
	a.end()
	ctx, cancel := context.WithTimeout(ctx, adminEnd)
	defer cancel()
	return errors.Join(a.Server.Shutdown(ctx), a.Close())
}
