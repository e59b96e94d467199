// What all daemon commands share: listening, logging, stopping.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/protocol"
)

// drainTimeout is how long a daemon that is told to stop (SIGTERM) lets the
// transfers under way go on. What is not done by then resumes later.
const drainTimeout = 3 * time.Second

// minBuffer is the least window that a sender can work with.
const minBuffer = 64 << 10

func listenFlag(port, env string) cli.Flag {
	return &cli.StringFlag{Name: "listen", Aliases: []string{"l"}, Value: ":" + port, Usage: "`ADDRESS` to listen on; port 0 takes a free one" + env}
}

func windowFlag(env string) cli.Flag {
	return &cli.GenericFlag{
		Name: "window", Value: &sizeValue{n: protocol.DefaultWindow, max: protocol.MaxWindow}, EnvVars: []string{env},
		Usage: "`SIZE` of the most content a sender may have unacknowledged, which bounds the memory for each push",
	}
}

func memoryFlag() cli.Flag {
	return &cli.GenericFlag{
		Name: "memory", Value: &sizeValue{},
		Usage: "`SIZE` of the most content that all pushes together hold, shared fairly (default: no bound but the windows)",
	}
}

// memory is the --memory of a process, for each of its daemons; 0 is no bound.
func memory(c *cli.Context, daemons int64) (int64, error) {
	if !c.IsSet("memory") {
		return 0, nil
	}
	n := sizeOf(c, "memory")
	if err := protocol.CheckMemory(n / daemons); err != nil {
		if daemons > 1 {
			err = fmt.Errorf("a %dth of it for each daemon is %w", daemons, err)
		}
		return 0, usagef("--memory: %v", err)
	}
	return n / daemons, nil
}

// window is the --window of a daemon. One below the least that works, which
// the proof of concept allowed, is raised to it, with a word in the log.
func window(c *cli.Context, log *slog.Logger) (int64, error) {
	n := sizeOf(c, "window")
	if n > 0 && n < minBuffer {
		log.Warn("the window is raised to the least that works", "from", n, "to", minBuffer)
		n = minBuffer
	}
	if err := protocol.CheckWindow(n); err != nil {
		return 0, usagef("--window: %v", err)
	}
	return n, nil
}

// modest leaves half of the cores to others, unless GOMAXPROCS says otherwise.
// What a daemon does is nearly all system calls, which do not count; each
// further core only wakes up to find that another one has done the work. With
// one of two cores broadcaster and readers need a tenth less CPU time, half of
// the context switches, and are faster for it (docs/performance.md).
func modest() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}

// service is what serve runs: a daemon, or a gateway in front of one.
type service interface {
	Serve(ln net.Listener) error
	Shutdown(ctx context.Context) error
}

// serve runs servers, each on its listener, until ctx ends. On an interrupt
// (Ctrl-C) the transfers under way are forgotten, at every daemon below too;
// on SIGTERM they have drainTimeout, and what they leave can be resumed.
// SIGHUP calls reload (newSupervisor says what is expected of it).
func serve(ctx context.Context, servers map[service]net.Listener, reload ...func()) error {
	if err := refuseSockets(); err != nil {
		return err
	}
	super, err := newSupervisor(reload)
	if err != nil {
		return err
	}
	defer daemonHeap()()
	failed := make(chan error, len(servers))
	var serving sync.WaitGroup
	for s, ln := range servers {
		ln = super.watch(s, ln)
		serving.Go(func() {
			if err := s.Serve(ln); err != nil {
				failed <- err
			}
		})
	}
	up, stopping := context.WithCancel(context.Background())
	var supervising sync.WaitGroup
	supervising.Go(func() { super.run(up) })
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
	case err = <-failed:
	}
	stopping()
	supervising.Wait()
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var sig *signalError
	if errors.As(err, &sig) && sig.Signal == os.Interrupt {
		now, interrupt := context.WithCancelCause(drain)
		interrupt(protocol.ErrInterrupted)
		drain = now
	}
	var ending sync.WaitGroup
	for s := range servers {
		ending.Go(func() { _ = s.Shutdown(drain) })
	}
	ending.Wait()
	serving.Wait()
	if errors.As(err, &sig) {
		return &exitError{code: sig.code()} // asked for: nothing to print
	}
	return err
}
