// The nc command: netcat for frames.

package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

const (
	// ncWait bounds every wait of nc for a frame or for the peer to hang up.
	ncWait = 10 * time.Second
	// ncLine is the longest line of a script.
	ncLine = 16 << 20
)

func ncCommand() *cli.Command {
	return &cli.Command{
		Name:  "nc",
		Usage: "netcat for frames: speak the protocol by hand",
		UsageText: `sbcast nc HOST[:PORT]

Says Hello, opens one stream, sends the lines of standard input as frames and
prints each frame that comes as a line. Lines:

  offer {"name":"hello.txt","size":5,"digest":"none"}    any JSON frame: KIND {...}
  chunk OFFSET TEXT      a chunk; @FILE in place of TEXT sends a file's bytes
  raw HEX                any bytes
  wait KIND              until such a frame has come, 10 s at most
  close                  end this direction, as the end of input does
  # ...                  a comment

Exits with 0 when the peer closed cleanly after its answer, 1 on a reject.`,
		Flags:  clientFlags(),
		Action: nc,
	}
}

func nc(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("nc needs one HOST[:PORT]")
	}
	session, err := clientSession(c)
	if err != nil {
		return err
	}
	cl, err := client.New(c.Args().First(), session)
	if err != nil {
		return usagef("HOST: %v", err)
	}
	defer cl.Close()
	dial, cancel := context.WithTimeout(c.Context, ncWait)
	defer cancel()
	stream, err := cl.Open(dial)
	if err != nil {
		return fmt.Errorf("nc %s: %w", cl.Addr(), err)
	}
	n := &netcat{stream: stream, out: c.App.Writer, seen: map[protocol.Kind]bool{}, news: make(chan struct{}), over: make(chan struct{})}
	stop := context.AfterFunc(c.Context, func() { stream.Close() })
	defer stop()
	go n.print()
	err = n.script(bufio.NewReaderSize(os.Stdin, 1<<16))
	if err == nil {
		err = n.hangUp()
	}
	stream.Close()
	<-n.over
	if c.Context.Err() != nil {
		return context.Cause(c.Context)
	}
	if n.err != nil { // what the peer said explains what the script ran into
		err = n.err
	}
	if err != nil {
		return fmt.Errorf("nc %s: %w", cl.Addr(), err)
	}
	return nil
}

// netcat is one stream, spoken by hand.
type netcat struct {
	stream protocol.Stream
	out    io.Writer
	over   chan struct{} // closed when print has ended

	mu   sync.Mutex
	seen map[protocol.Kind]bool // since the last wait for it
	news chan struct{}          // closed and replaced at each frame

	err      error // of print, after over
	answered bool  // the peer sent something, after over
}

// print prints the frames that come, until the stream ends.
func (n *netcat) print() {
	defer close(n.over)
	err := protocol.NewFrameReader(n.stream).Each(n.frame)
	if n.err == nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		n.err = err
	}
}

func (n *netcat) frame(f protocol.Frame) error {
	if f.Kind == 0 {
		return nil
	}
	n.answered = true
	switch f.Kind {
	case protocol.KindChunk:
		fmt.Fprintf(n.out, "chunk %d %d\n", f.Chunk.Offset, f.Chunk.RawLen)
		f.Chunk.Release()
	case protocol.KindAck:
		offset, err := protocol.ParseAck(f.Payload)
		if err != nil {
			return err
		}
		fmt.Fprintf(n.out, "ack %d\n", offset)
	case protocol.KindLimit:
		offset, err := protocol.ParseLimit(f.Payload)
		if err != nil {
			return err
		}
		fmt.Fprintf(n.out, "limit %d\n", offset)
	case protocol.KindPing:
		fmt.Fprintln(n.out, "ping")
		n.send(protocol.AppendFrame(nil, protocol.KindPong, 0, nil))
	case protocol.KindReject:
		fmt.Fprintf(n.out, "reject %s\n", f.Payload)
		n.err = rejected(f.Payload)
	default:
		fmt.Fprintln(n.out, strings.TrimSpace(fmt.Sprintf("%s %s", f.Kind, f.Payload)))
	}
	n.mu.Lock()
	n.seen[f.Kind] = true
	close(n.news)
	n.news = make(chan struct{})
	n.mu.Unlock()
	return nil
}

func rejected(payload []byte) error {
	m, err := protocol.ParseMessage(protocol.KindReject, payload)
	if err != nil {
		return err
	}
	return &exitError{exitFailed, errors.New("rejected: " + m.(*protocol.Reject).Text)}
}

// send writes bytes. A peer that ended the stream has said why, which print
// finds: the error of the write is not the news.
func (n *netcat) send(b []byte) { _, _ = n.stream.Write(b) }

// script sends line after line.
func (n *netcat) script(r *bufio.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, ncLine)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimLeft(lines.Text(), " \t")
		verb, rest, _ := strings.Cut(line, " ")
		if verb == "" || strings.HasPrefix(verb, "#") {
			continue
		}
		if verb == "close" {
			return nil
		}
		if err := n.do(verb, rest); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	return lines.Err()
}

func (n *netcat) do(verb, rest string) error {
	switch verb {
	case "chunk":
		return n.chunk(rest)
	case "raw":
		b, err := hex.DecodeString(strings.Join(strings.Fields(rest), ""))
		if err != nil {
			return usagef("raw: %v", err)
		}
		n.send(b)
		return nil
	case "wait":
		return n.wait(strings.TrimSpace(rest))
	}
	kind, ok := protocol.ParseKind(verb)
	if !ok {
		return usagef("unknown verb %q; sbcast nc --help lists them", verb)
	}
	rest = strings.TrimSpace(rest)
	if rest != "" && !json.Valid([]byte(rest)) {
		return usagef("%s: not JSON: %s", verb, rest)
	}
	n.send(protocol.AppendFrame(nil, kind, 0, []byte(rest)))
	return nil
}

func (n *netcat) chunk(rest string) error {
	at, text, _ := strings.Cut(rest, " ")
	offset, err := strconv.ParseInt(at, 10, 64)
	if err != nil || offset < 0 {
		return usagef("chunk OFFSET TEXT: %q is not an offset", at)
	}
	data := []byte(text)
	if path, ok := strings.CutPrefix(text, "@"); ok {
		if data, err = os.ReadFile(path); err != nil {
			return err
		}
	}
	if len(data) > protocol.MaxChunk {
		return usagef("chunk of %d bytes, the limit is %d", len(data), protocol.MaxChunk)
	}
	c := protocol.NewChunk(len(data))
	defer c.Release()
	c.Seal(offset, len(data), protocol.CodecRaw, copy(c.Buffer(), data))
	n.send(c.Frame())
	return nil
}

// wait waits until a frame of kind has come, since the last wait for it.
func (n *netcat) wait(name string) error {
	kind, ok := protocol.ParseKind(name)
	if !ok {
		return usagef("wait: unknown kind %q", name)
	}
	timeout := time.NewTimer(ncWait)
	defer timeout.Stop()
	for {
		n.mu.Lock()
		came, news := n.seen[kind], n.news
		delete(n.seen, kind)
		n.mu.Unlock()
		if came {
			return nil
		}
		select {
		case <-news:
		case <-n.over:
			return &exitError{exitFailed, fmt.Errorf("the peer hung up before it sent %s", name)}
		case <-timeout.C:
			return &exitError{exitFailed, fmt.Errorf("no %s came in %v", name, ncWait)}
		}
	}
}

// hangUp ends this direction and waits for the peer to end its own.
func (n *netcat) hangUp() error {
	n.stream.CloseWrite()
	select {
	case <-n.over:
	case <-time.After(ncWait):
		return &exitError{exitFailed, fmt.Errorf("the peer did not hang up in %v", ncWait)}
	}
	if n.err == nil && !n.answered {
		return &exitError{exitFailed, errors.New("the peer hung up without an answer")}
	}
	return nil
}
