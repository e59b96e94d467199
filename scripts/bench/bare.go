//go:build linux

// The processes of the bare loop: the least that a client, a relay and a
// reader can do that read bytes into memory and write them out again. There is
// no framing, no check and no acknowledgement, and none of the shortcuts that
// io.Copy knows (sendfile, splice), which programs that look at the bytes
// cannot take.

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

const (
	bareName    = "bare"
	bareCommand = "bare" // the hidden command that makes this program one of the processes
	bareBuffer  = 256 << 10
)

// bare is one of the processes: send FILE ADDR, relay ADDR..., sink [FILE].
func bare(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "send":
		return bareSend(args[1], args[2])
	case len(args) > 1 && args[0] == "relay":
		return bareRelay(args[1:])
	case len(args) == 1 && args[0] == "sink":
		return bareSink(nil)
	case len(args) == 2 && args[0] == "sink":
		f, err := os.Create(args[1])
		if err != nil {
			return err
		}
		return errors.Join(bareSink(f), f.Close())
	}
	return errors.New("usage: bench bare send FILE ADDR | relay ADDR... | sink [FILE]")
}

func bareSend(path, addr string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	_, err = loop(f, conn)
	return errors.Join(err, conn.Close())
}

func bareRelay(addrs []string) error {
	var outs []io.Writer
	var conns []net.Conn
	for _, addr := range addrs {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		conns, outs = append(conns, conn), append(outs, conn)
	}
	in, err := acceptOne("relay")
	if err != nil {
		return err
	}
	_, err = loop(in, outs...)
	for _, conn := range conns {
		err = errors.Join(err, conn.Close())
	}
	return err
}

// bareSink prints the number of bytes that it was sent.
func bareSink(f *os.File) error {
	in, err := acceptOne("sink")
	if err != nil {
		return err
	}
	var outs []io.Writer
	if f != nil {
		outs = append(outs, f)
	}
	n, err := loop(in, outs...)
	if err == nil {
		fmt.Println(n)
	}
	return err
}

// acceptOne listens, says where, and returns the first connection.
func acceptOne(role string) (net.Conn, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	fmt.Fprintf(os.Stderr, "bare %s: listening on %s\n", role, ln.Addr())
	return ln.Accept()
}

// loop writes all that in has to each of outs in turn.
func loop(in io.Reader, outs ...io.Writer) (int64, error) {
	buf := make([]byte, bareBuffer)
	var total int64
	for {
		n, err := in.Read(buf)
		total += int64(n)
		for _, out := range outs {
			if _, err := out.Write(buf[:n]); err != nil {
				return total, err
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
