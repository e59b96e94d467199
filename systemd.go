// At home under systemd: the sockets it opens, and what it is told (sd_notify).

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/sbcast/sbcast/protocol"
)

// socketNames say which socket of systemd a role listens on in place of its
// own: FileDescriptorName= of the socket unit. Other roles take none.
var socketNames = map[string]string{"broadcaster": "sbcast", "reader": "sbcast", "gateway": "http"}

// passed are the sockets that systemd opened for this process and that nobody
// has taken. Commands take them while they start, one after the other.
var passed = sync.OnceValue(func() map[*os.File]struct{} {
	all := map[*os.File]struct{}{}
	for _, f := range activation.Files(true) {
		all[f] = struct{}{}
	}
	return all
})

// findSocket returns what systemd opened for role to listen on, nil if nothing.
func findSocket(role string) *os.File {
	for f := range passed() {
		if f.Name() == socketNames[role] {
			return f
		}
	}
	return nil
}

// takeSocket returns the listener that systemd opened for role, nil if none.
func takeSocket(role string) (net.Listener, error) {
	f := findSocket(role)
	if f == nil {
		return nil, nil
	}
	delete(passed(), f)
	defer f.Close() // the listener has a copy
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen on the socket %q from systemd: %w; the socket unit needs a ListenStream=", role, f.Name(), err)
	}
	return ln, nil
}

// refuseSockets names a socket that systemd opened and that nobody took: its
// peers would wait for an answer for ever.
func refuseSockets() error {
	for f := range passed() {
		return configError(fmt.Errorf("systemd passed a socket called %q, which nobody here listens on; FileDescriptorName= in the socket unit says what it is for: sbcast or http, each once", f.Name()))
	}
	return nil
}

// statusEvery is how often systemd hears how many transfers are under way,
// where the watchdog does not want to hear more often.
const statusEvery = 10 * time.Second

// worker is a service that says what it is doing: a daemon.
type worker interface{ Status() *protocol.Status }

// supervisor answers to whoever started the daemon: it tells systemd that the
// daemon is ready, alive, stopping, and reloads on SIGHUP.
type supervisor struct {
	servers  []worker
	doors    []*door
	reload   []func()
	managed  bool          // somebody listens: NOTIFY_SOCKET is set
	watchdog bool          // and wants to hear that all is well
	every    time.Duration // how often to look after the servers
}

// newSupervisor looks who is there. reload is what SIGHUP is for: each
// function logs what it could not do, and then leaves all as it was.
func newSupervisor(reload []func()) (*supervisor, error) {
	v := &supervisor{reload: reload, managed: os.Getenv("NOTIFY_SOCKET") != "", every: statusEvery}
	limit, err := sd.SdWatchdogEnabled(true)
	if err != nil {
		return nil, configError(errors.New("WATCHDOG_USEC: want a number of microseconds, as systemd sets it"))
	}
	if limit > 0 {
		v.watchdog, v.every = true, min(limit/2, statusEvery)
	}
	return v, nil
}

// watch makes s, which is to be served on the listener it returns, one of
// those looked after. It must not be called once run is.
func (v *supervisor) watch(s any, ln net.Listener) net.Listener {
	if w, ok := s.(worker); ok {
		v.servers = append(v.servers, w)
	}
	d := &door{Listener: ln, begun: time.Now()}
	v.doors = append(v.doors, d)
	return d
}

// run says that the daemon is ready, and looks after it until ctx ends: the
// daemon is stopping then. A hangup ends a daemon that nobody manages and that
// has nothing to reload, as it ends every program when its terminal goes.
func (v *supervisor) run(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	if v.managed || len(v.reload) > 0 {
		signal.Notify(hangup, syscall.SIGHUP) // for good: nor does one end a daemon that is stopping
	}
	var look <-chan time.Time
	if v.managed {
		t := time.NewTicker(v.every)
		defer t.Stop()
		look = t.C
	}
	said := v.status()
	tell(sd.SdNotifyReady, said)
	for {
		select {
		case <-ctx.Done():
			tell(sd.SdNotifyStopping)
			return
		case <-hangup:
			tell(sd.SdNotifyReloading, strings.TrimSpace(sd.SdNotifyMonotonicUsec()))
			for _, f := range v.reload {
				f()
			}
			tell(sd.SdNotifyReady)
		case <-look:
			if status := v.status(); status != said {
				said = status
				tell(said)
			}
			if v.watchdog && v.open() {
				tell(sd.SdNotifyWatchdog)
			}
		}
	}
}

// tell sends lines to systemd. If it does not hear, its own deadline says so.
func tell(lines ...string) { _, _ = sd.SdNotify(false, strings.Join(lines, "\n")) }

// status is what the servers are doing. It takes the lock of each and of its
// transfers: where one is never given back, nor does status return, and the
// watchdog ends the daemon.
func (v *supervisor) status() string {
	transfers, sessions := 0, 0
	for _, s := range v.servers {
		st := s.Status()
		transfers, sessions = transfers+len(st.Transfers), sessions+st.Sessions
	}
	return fmt.Sprintf("STATUS=transfers under way: %d, sessions: %d", transfers, sessions)
}

// open is whether all accept loops turn.
func (v *supervisor) open() bool {
	for _, d := range v.doors {
		if d.away() > v.every {
			return false
		}
	}
	return true
}

// door is a listener that knows whether its accept loop turns.
type door struct {
	net.Listener
	begun time.Time
	left  atomic.Int64 // when the loop last went away with a connection, since begun; waiting: it is here
}

const waiting = -1

// Accept is net.Listener's.
func (d *door) Accept() (net.Conn, error) {
	d.left.Store(waiting)
	conn, err := d.Listener.Accept()
	d.left.Store(int64(time.Since(d.begun)))
	return conn, err
}

// away is how long the accept loop has not been back for another connection.
func (d *door) away() time.Duration {
	left := d.left.Load()
	if left == waiting {
		return 0
	}
	return time.Since(d.begun) - time.Duration(left)
}
