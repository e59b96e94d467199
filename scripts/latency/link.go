// The link: a proxy that takes its time.

package main

import (
	"errors"
	"net"
	"sync"
	"time"
)

// piece is content on its way.
type piece struct {
	due  time.Time
	data []byte // nil: the end
}

// link passes connections on to addr, what comes each way half a round trip
// after it came. The kernel answers the near side's handshake at once, so what
// comes in the first round trip counts as sent at its end.
func link(addr string) (near string, stop func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			open := time.Now().Add(*rtt)
			b, err := net.Dial("tcp", addr)
			if err != nil {
				a.Close()
				continue
			}
			var ways sync.WaitGroup
			ways.Go(func() { pass(a, b, open) })
			ways.Go(func() { pass(b, a, open) })
			work.Go(func() {
				ways.Wait()
				a.Close()
				b.Close()
			})
		}
	})
	return ln.Addr().String(), func() {
		ln.Close()
		work.Wait()
	}
}

// pass copies from a to b, as if nothing had been sent before open.
func pass(a, b net.Conn, open time.Time) {
	way := make(chan piece, 1<<12) // 1 MiB at once is 16 of 64 KiB
	var out sync.WaitGroup
	out.Go(func() {
		for p := range way {
			time.Sleep(time.Until(p.due))
			if p.data == nil {
				_ = b.(*net.TCPConn).CloseWrite()
				continue
			}
			if _, err := b.Write(p.data); err != nil {
				a.Close() // and with it the reading below
			}
		}
	})
	for {
		buf := make([]byte, 64<<10)
		n, err := a.Read(buf)
		due := time.Now()
		if due.Before(open) {
			due = open
		}
		due = due.Add(*rtt / 2)
		if n > 0 {
			way <- piece{due, buf[:n]}
		}
		if err != nil {
			way <- piece{due: due}
			close(way)
			out.Wait()
			if errors.Is(err, net.ErrClosed) {
				b.Close()
			}
			return
		}
	}
}
