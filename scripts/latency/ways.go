// The ways that a file can go, which are compared.

package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// way is one way to get a file somewhere: start makes what is needed, and
// returns what sends the file once.
type way struct {
	name  string
	start func(dir, file string) (send func() times, stop func())
}

var ways = []way{
	{"bare TCP ~ server", bare},
	{"curl -T ~ HTTP server", curl()},
	{"curl -T -H Expect: ~ HTTP server", curl("-H", "Expect:")}, // without a question whether to send
	{"push ~ reader", push(true, false, false)},
	{"push ~ broadcaster - reader", push(true, true, false)},
	{"push - broadcaster ~ reader", push(false, true, true)},
	{"push ~ broadcaster ~ reader", push(true, true, true)},
}

// settle is how long daemons are left alone before the first push.
const settle = 500 * time.Millisecond

// push pushes to a reader, behind a broadcaster or not, over a link on each
// hop or not.
func push(nearLink, broadcaster, farLink bool) func(dir, file string) (func() times, func()) {
	return func(dir, file string) (func() times, func()) {
		var stops []func()
		via := func(slow bool, addr string, stop func()) string {
			stops = append(stops, stop)
			if !slow {
				return addr
			}
			addr, stop = link(addr)
			stops = append(stops, stop)
			return addr
		}
		self, err := os.Executable()
		check(err)
		stamp := filepath.Join(dir, "stamp")
		addr, stop := daemon("reader", "--sink", fmt.Sprintf("exec:'%s' stamp '%s'", self, stamp))
		if broadcaster {
			reader := via(farLink, addr, stop)
			addr, stop = daemon("broadcaster", "--reader", reader)
		}
		host := via(nearLink, addr, stop)
		time.Sleep(settle + 2**rtt)
		send := func() times {
			begun := time.Now()
			out, err := exec.Command(*binary, "push", "-q", "--force", file, host).CombinedOutput()
			done := time.Since(begun)
			if err != nil {
				check(fmt.Errorf("push: %w: %s", err, out))
			}
			text, err := os.ReadFile(stamp)
			check(err)
			at, err := strconv.ParseInt(string(text), 10, 64)
			check(err)
			return times{time.Unix(0, at).Sub(begun), done}
		}
		return send, func() {
			for _, stop := range stops {
				stop()
			}
		}
	}
}

// daemon starts a daemon and returns where it listens.
func daemon(args ...string) (addr string, stop func()) {
	cmd := exec.Command(*binary, append(args, "--listen", "127.0.0.1:0", "-q")...)
	out, err := cmd.StderrPipe()
	check(err)
	check(cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), "listening on "); ok {
			addr, _, _ = strings.Cut(rest, " ")
			addr = strings.TrimSuffix(addr, ",")
			break
		}
	}
	if addr == "" {
		check(fmt.Errorf("%s does not listen", args[0]))
	}
	go func() { _, _ = io.Copy(os.Stderr, out) }()
	return addr, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
}

// role is what the program does as the reader's command: it notes when the
// first byte of content came.
func role(args []string) bool {
	if len(args) != 2 || args[0] != "stamp" {
		return false
	}
	_, err := os.Stdin.Read(make([]byte, 1))
	check(err)
	check(os.WriteFile(args[1], strconv.AppendInt(nil, time.Now().UnixNano(), 10), 0o600))
	_, err = io.Copy(io.Discard, os.Stdin)
	check(err)
	return true
}

// curl uploads the file by HTTP.
func curl(args ...string) func(dir, file string) (func() times, func()) {
	return func(_, file string) (func() times, func()) {
		first := make(chan time.Time, 1)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 1))
			first <- time.Now()
			_, _ = io.Copy(io.Discard, r.Body)
		})}
		go func() { _ = server.Serve(ln) }()
		near, stop := link(ln.Addr().String())
		return func() times {
				begun := time.Now()
				args := append([]string{"-sS", "-T", file, "http://" + near + "/"}, args...)
				out, err := exec.Command("curl", args...).CombinedOutput()
				if err != nil {
					check(fmt.Errorf("curl: %w: %s", err, out))
				}
				return times{(<-first).Sub(begun), time.Since(begun)}
			}, func() {
				server.Close()
				stop()
			}
	}
}

// bare writes the file to a connection and waits for one byte in return.
func bare(_, file string) (func() times, func()) {
	first := make(chan time.Time, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() {
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			_, _ = io.ReadFull(conn, make([]byte, 1))
			first <- time.Now()
			_, _ = io.Copy(io.Discard, conn)
			_, _ = conn.Write([]byte{0})
			conn.Close()
		}
	}()
	near, stop := link(ln.Addr().String())
	return func() times {
			content, err := os.ReadFile(file)
			check(err)
			begun := time.Now()
			conn, err := net.Dial("tcp", near)
			check(err)
			defer conn.Close()
			_, err = conn.Write(content)
			check(err)
			check(conn.(*net.TCPConn).CloseWrite())
			_, err = io.ReadFull(conn, make([]byte, 1))
			check(err)
			return times{(<-first).Sub(begun), time.Since(begun)}
		}, func() {
			ln.Close()
			stop()
		}
}

// startTime is how long it takes to start a program and end it.
func startTime(args ...string) time.Duration {
	var all []times
	for range 9 {
		begun := time.Now()
		check(exec.Command(args[0], args[1:]...).Run())
		all = append(all, times{done: time.Since(begun)})
	}
	return fastest(all, func(t times) time.Duration { return t.done })
}

// noise is n bytes that do not compress, the same in every run.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}
