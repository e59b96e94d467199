//go:build linux

// A network of the bench's own, for a congestion control that all contenders
// use: it is a setting of the network namespace, and of new ones the system's.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	congestionFile = "/proc/sys/net/ipv4/tcp_congestion_control"
	// insideEnv tells the bench that it runs in its own network already.
	insideEnv = "SBCAST_BENCH_INSIDE"
)

// congestion is the congestion control that connections have here.
func congestion() string {
	b, err := os.ReadFile(congestionFile)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// useCongestion makes name the congestion control, in this process's network if
// that is its own; otherwise it runs the bench once more in one, and reports
// that this was done. Only root may have one.
func useCongestion(ctx context.Context, name string, args []string) (done bool, err error) {
	if name == "" || name == congestion() {
		return false, nil
	}
	if os.Getenv(insideEnv) == "" {
		again := exec.CommandContext(ctx, "/proc/self/exe", args...)
		again.Args[0] = os.Args[0]
		again.Env = append(os.Environ(), insideEnv+"=1")
		again.Stdout, again.Stderr = os.Stdout, os.Stderr
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		again.Cancel = func() error { return again.Process.Signal(syscall.SIGTERM) }
		if err := again.Run(); err != nil {
			return true, fmt.Errorf("in a network of its own, which only root may have: %w", err)
		}
		return true, nil
	}
	if err := loopbackUp(); err != nil {
		return false, fmt.Errorf("loopback: %w", err)
	}
	if err := os.WriteFile(congestionFile, []byte(name), 0o644); err != nil {
		if errors.Is(err, os.ErrPermission) { // the system lets only its own network use it
			err = fmt.Errorf("%w (add it to sysctl net.ipv4.tcp_allowed_congestion_control)", err)
		}
		return false, fmt.Errorf("congestion control %s: %w", name, err)
	}
	return false, nil
}

// loopbackUp brings up the one interface of a new network. With nothing but
// 127.0.0.1 mbuffer's look-ups find no address (AI_ADDRCONFIG): it gets one of
// those that are nobody's (RFC 5737).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq("lo")
	if err == nil {
		ifr.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	}
	if err == nil {
		ifr, err = unix.NewIfreq("lo:1")
	}
	if err == nil {
		err = ifr.SetInet4Addr([]byte{192, 0, 2, 1})
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCSIFADDR, ifr)
	}
	return errors.Join(err, unix.Close(fd))
}
