// The other processes: daemons that discard, and the link.

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/time/rate"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// linkPiece is how much the link passes on at once.
const linkPiece = 16 << 10

// network starts a reader, or a broadcaster and its readers, behind a link
// unless limit is 0.
func network(readers int, limit int64) (host string, stop func()) {
	var stops []func()
	start := func(args ...string) string {
		addr, stop, err := process(args...)
		check(err)
		stops = append(stops, stop)
		return addr
	}
	if readers == 0 {
		host = start("reader")
	} else {
		args := []string{"broadcaster"}
		for range readers {
			args = append(args, start("reader"))
		}
		host = start(args...)
	}
	if limit > 0 {
		host = start("link", strconv.FormatInt(limit, 10), host)
	}
	return host, func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// process starts this program in a role. It ends when its input does, so that
// none is left behind, and says where it listens.
func process(args ...string) (addr string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self, append([]string{"role"}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	addr, err = bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(addr), func() {
		in.Close()
		_ = cmd.Wait() // it has served
	}, err
}

// role is what a process that was started by another does.
func role(args []string) bool {
	if len(args) < 2 || args[0] != "role" {
		return false
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	switch args[1] {
	case "reader":
		store, err := sink.Open("discard:", sink.Options{})
		check(err)
		go serve(ln, sink.NewLeaf(store))
	case "broadcaster":
		var hops []*daemon.Hop
		for i, addr := range args[2:] {
			hops = append(hops, daemon.NewHop(fmt.Sprint("r", i+1), protocol.NewDialer(addr, protocol.SessionConfig{})))
		}
		fanout, err := daemon.NewFanout(hops, daemon.FanoutOptions{})
		check(err)
		go serve(ln, fanout)
	case "link":
		limit, err := strconv.ParseInt(args[2], 10, 64)
		check(err)
		burst := max(linkPiece, int(limit/50)) // 20 ms make up for a sleep that was too long
		go link(ln, args[3], rate.NewLimiter(rate.Limit(limit), burst))
	}
	fmt.Println(ln.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return true
}

func serve(ln net.Listener, s protocol.Sink) { check(daemon.NewServer(s, daemon.Options{}).Serve(ln)) }

// link passes connections on to addr, what goes there no faster than limit.
func link(ln net.Listener, addr string, limit *rate.Limiter) {
	for {
		near, err := ln.Accept()
		check(err)
		far, err := net.Dial("tcp", addr)
		check(err)
		_ = near.(*net.TCPConn).SetReadBuffer(4 * linkPiece) // a link holds little
		go func() {
			defer near.Close()
			_, _ = io.Copy(near, far)
		}()
		go func() {
			defer far.Close()
			b := make([]byte, linkPiece)
			for {
				n, err := near.Read(b)
				if n > 0 {
					check(limit.WaitN(context.Background(), n))
					_, _ = far.Write(b[:n])
				}
				if err != nil {
					return
				}
			}
		}()
	}
}
