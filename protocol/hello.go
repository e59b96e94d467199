// Hello: what both ends say on the bare connection, before anything else.

package protocol

import (
	"errors"
	"io"
	"net"
	"slices"
)

// hello exchanges Hello on the bare connection: the client speaks first.
func hello(conn net.Conn, cfg SessionConfig, client bool) (*Hello, error) {
	own := &Hello{Versions: []int{Version}, Agent: cfg.Agent, MaxStreams: cfg.MaxStreams}
	if client {
		if err := writeHello(conn, own); err != nil {
			return nil, err
		}
	}
	peer, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(peer.Versions, Version) {
		err := Errorf(CodeVersion, "the peer (%s) speaks versions %v of the protocol, this end %d: upgrade one of them", peer.Agent, peer.Versions, Version)
		if !client {
			_ = writeMessage(conn, &Reject{Code: err.Code, Text: err.Text})
		}
		return nil, err
	}
	if !client {
		if err := writeHello(conn, own); err != nil {
			return nil, err
		}
	}
	return peer, nil
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
