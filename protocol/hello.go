// Hello: what both ends say on the bare connection, before anything else.

package protocol

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

// The client speaks first, and goes on without waiting for the answer: what
// it has to say is on its way a round trip earlier, and waits in the server's
// socket until its Hello has been judged. It costs a server nothing: what it
// parses before that is Hello, as ever.

// sayHello is the first half of Hello for a client, the second for a server.
func sayHello(conn net.Conn, cfg SessionConfig) error {
	h := &Hello{Versions: []int{Version}, Agent: cfg.Agent, MaxStreams: cfg.MaxStreams}
	if cfg.Identity != nil {
		h.Token = cfg.Token
	}
	return writeHello(conn, h)
}

// hearHello is the other half. A server tells a client that it refuses why.
func hearHello(conn net.Conn, client bool) (*Hello, error) {
	peer, err := readHello(conn)
	if errors.Is(err, errSpeaksTLS) && !client { // so that it finds that we do not
		refuse(conn, err)
	}
	if err != nil {
		return nil, err
	}
	if !slices.Contains(peer.Versions, Version) {
		err := Errorf(CodeVersion, "the peer (%s) speaks versions %v of the protocol, this end %d: upgrade one of them", peer.Agent, peer.Versions, Version)
		if !client {
			refuse(conn, err)
		}
		return nil, err
	}
	return peer, nil
}

// refuse tells a client why it is not let in.
func refuse(conn net.Conn, err error) {
	e := AsError(err)
	_ = writeMessage(conn, &Reject{Code: e.Code, Text: e.Text})
	drain(conn)
}

var errSpeaksTLS = Errorf(CodeUnauthorised, "the peer speaks TLS, and this end has no certificate")

// mostEarly is more than an honest client sends before it has heard Hello: an
// offer, a small file and what smux adds.
const mostEarly = 256 << 10

// drain reads what a refused client has sent ahead, without looking at it: to
// close a connection with unread bytes resets it, and a reset can overtake the
// Reject, which then nobody reads.
func drain(conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	conn.SetReadDeadline(time.Now().Add(lastWords))
	_, _ = io.CopyN(io.Discard, conn, mostEarly)
}

// greet runs f, a half of Hello, within HelloTimeout and ctx. It closes the
// connection when f fails.
func greet(ctx context.Context, conn net.Conn, deadline func(time.Time) error, f func() error) error {
	_ = deadline(time.Now().Add(HelloTimeout))
	stop := context.AfterFunc(ctx, func() { _ = deadline(time.Unix(1, 0)) })
	defer stop()
	err := f()
	if !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		_ = deadline(time.Time{})
		return nil
	}
	conn.Close()
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return Errorf(CodeDead, "no hello from %s in %v: is it an sbcast daemon?", conn.RemoteAddr(), HelloTimeout)
	}
	return Errorf(AsError(err).Code, "hello with %s: %w", conn.RemoteAddr(), err)
}

// writeHello ends the JSON in blank lines: an HTTP server that was dialled by
// mistake takes them for the end of a bad request, and answers at once.
func writeHello(w io.Writer, h *Hello) error {
	frame, err := AppendMessage(nil, h)
	if err != nil {
		return err
	}
	payload := append(frame[headerSize:len(frame)-checkSize], "\r\n\r\n"...)
	_, err = w.Write(AppendFrame(nil, KindHello, 0, payload))
	return err
}

func writeMessage(w io.Writer, m Message) error {
	frame, err := AppendMessage(nil, m)
	if err != nil {
		return err
	}
	_, err = w.Write(frame)
	return err
}

// readHello reads the first frame of a connection, from a peer that may be
// anybody: it takes nothing but a short Hello or Reject.
func readHello(conn net.Conn) (*Hello, error) {
	fr := NewFrameReader(conn)
	fr.parser.greeting = true
	f, err := fr.Next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, Errorf(CodeUnreachable, "the peer closed the connection")
		}
		return nil, err
	}
	m, err := ParseMessage(f.Kind, f.Payload)
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *Hello:
		return m, nil
	case *Reject:
		return nil, m.asError()
	default:
		return nil, Errorf(CodeProtocol, "%s where a hello was expected", f.Kind)
	}
}
