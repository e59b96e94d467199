//go:build linux

// Command copybench times ways to pass content on, each with a sender, a relay
// and readers that are processes of their own, over loopback, in turns:
//
//	go run ./scripts/copybench                  # one reader and four
//	go run ./scripts/copybench -readers 8 -rounds 7
//
// All move pieces of 1 MiB through 16 buffers, as sbcast does, whose window
// keeps buffers from being used again at once. Printed are medians of CPU
// seconds for a GiB, and ratios of the first way's, taken within a round.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	piece   = 1 << 20
	buffers = 16
)

// A way is how the relay reads and writes.
type way struct {
	name string
	read int // bytes that one read takes at most
	send func(conn *net.TCPConn, memory *memory, offset, n int) error
}

var ways = []way{
	{"read 1 MiB, write", piece, write},
	{"read 256 KiB, write", 256 << 10, write},
	{"read 64 KiB, write", 64 << 10, write},
	{"read 1 MiB, vmsplice and splice", piece, splice},
	{"read 1 MiB to a memfd, sendfile", piece, sendfile},
}

var (
	numbers = flag.String("readers", "1,4", "`numbers` of readers")
	rounds  = flag.Int("rounds", 5, "of every way")
	size    = flag.Int("size", 2, "`GiB` that each run sends")
)

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		check(role(os.Args[1], os.Args[2:]))
		return
	}
	flag.Parse()
	for number := range strings.SplitSeq(*numbers, ",") {
		n, err := strconv.Atoi(number)
		check(err)
		compare(n)
	}
}

// result is what one run took.
type result struct{ rate, sender, relay, reader float64 }

func compare(readers int) {
	results := make([][]result, len(ways))
	for range *rounds {
		for i := range ways {
			r, err := run(i, readers)
			check(err)
			results[i] = append(results[i], r)
		}
	}
	fmt.Printf("\nreaders: %d\n%-34s %6s %12s %12s %12s %16s\n", readers, "relay", "GB/s", "sender s/GiB", "relay s/GiB", "reader s/GiB", "relay, of first")
	for i, w := range ways {
		median := func(f func(round int) float64) float64 {
			var all []float64
			for round := range results[i] {
				all = append(all, f(round))
			}
			slices.Sort(all)
			return all[len(all)/2]
		}
		fmt.Printf("%-34s %6.2f %12.2f %12.2f %12.2f %16.2f\n", w.name,
			median(func(r int) float64 { return results[i][r].rate }),
			median(func(r int) float64 { return results[i][r].sender }),
			median(func(r int) float64 { return results[i][r].relay }),
			median(func(r int) float64 { return results[i][r].reader }),
			median(func(r int) float64 { return results[i][r].relay / results[0][r].relay }))
	}
}

// run sends the content once.
func run(way, readers int) (result, error) {
	var all []*exec.Cmd
	defer func() {
		for _, p := range all {
			_ = p.Process.Kill() // has mostly ended
		}
	}()
	start := func(listens bool, args ...string) (*exec.Cmd, string, error) {
		p := exec.Command(os.Args[0], args...)
		p.Stderr = os.Stderr
		out, err := p.StdoutPipe()
		if err == nil {
			err = p.Start()
		}
		if err != nil || !listens {
			return p, "", err
		}
		all = append(all, p)
		var addr string
		_, err = fmt.Fscanln(out, &addr)
		return p, addr, err
	}
	relayArgs := []string{"relay", strconv.Itoa(way)}
	var sinks []*exec.Cmd
	for range readers {
		p, addr, err := start(true, "reader")
		if err != nil {
			return result{}, err
		}
		sinks, relayArgs = append(sinks, p), append(relayArgs, addr)
	}
	relay, addr, err := start(true, relayArgs...)
	if err != nil {
		return result{}, err
	}
	begun := time.Now()
	sender, _, err := start(false, "sender", addr, strconv.Itoa(*size))
	if err != nil {
		return result{}, err
	}
	r, gib := result{}, float64(*size)
	for _, p := range append([]*exec.Cmd{sender, relay}, sinks...) {
		if err := p.Wait(); err != nil {
			return result{}, err
		}
		took := (p.ProcessState.UserTime() + p.ProcessState.SystemTime()).Seconds() / gib
		switch p {
		case sender:
			r.sender = took
		case relay:
			r.relay = took
		default:
			r.reader += took / float64(readers)
		}
	}
	r.rate = gib * (1 << 30) / 1e9 / time.Since(begun).Seconds()
	return r, nil
}

// role is what one of the processes does.
func role(name string, args []string) error {
	switch {
	case name == "sender" && len(args) == 2:
		gib, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		conn, err := net.Dial("tcp", args[0])
		if err != nil {
			return err
		}
		content := make([]byte, buffers*piece)
		for i := range gib << 10 {
			at := i % buffers * piece
			if _, err := conn.Write(content[at : at+piece]); err != nil {
				return err
			}
		}
		return conn.Close()
	case name == "reader" && len(args) == 0:
		return pass(piece, nil, write)
	case name == "relay" && len(args) > 1:
		i, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return pass(ways[i].read, args[1:], ways[i].send)
	}
	return fmt.Errorf("unknown role %s", name)
}

// pass reads a connection piece by piece and sends each piece to all addrs.
func pass(read int, addrs []string, send func(*net.TCPConn, *memory, int, int) error) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var outs []*net.TCPConn
	for _, addr := range addrs {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		outs = append(outs, conn.(*net.TCPConn))
	}
	fmt.Println(ln.Addr())
	in, err := ln.Accept()
	if err != nil {
		return err
	}
	mem, err := newMemory(buffers * piece)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		at, n := i%buffers*piece, 0
		for n < piece && err == nil {
			var k int
			k, err = io.ReadFull(in, mem.bytes[at+n:at+min(piece, n+read)])
			n += k
		}
		for _, out := range outs {
			if err := send(out, mem, at, n); err != nil {
				return err
			}
		}
		if err == io.EOF { //nolint:errorlint // io.ReadFull says it so: the end, between two pieces
			break
		}
		if err != nil {
			return err
		}
	}
	for _, out := range outs {
		if err := out.Close(); err != nil {
			return err
		}
	}
	return nil
}

func check(err error) {
	if err != nil {
		log.Fatal("copybench: ", err)
	}
}
