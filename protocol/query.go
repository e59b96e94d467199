// Queries: the other exchange a stream can carry.

package protocol

import (
	"context"
	"errors"
	"io"
)

// AskStatus asks the daemon at the other end of a fresh stream what it is
// doing, and through it the daemons below. The first Status is its own. Hops
// bounds how deep to ask; 0 means the default.
func AskStatus(ctx context.Context, stream Stream, hops int) ([]*Status, error) {
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	if err := writeMessage(stream, &Query{Hops: hops}); err != nil {
		return nil, err
	}
	if err := stream.CloseWrite(); err != nil {
		return nil, err
	}
	var all []*Status
	held := 0
	frames := NewFrameReader(stream)
	frames.LimitChunks(0)
	err := frames.Each(func(f Frame) error {
		if f.Kind == 0 {
			return nil
		}
		if f.Kind != KindStatus && f.Kind != KindReject {
			return Errorf(CodeProtocol, "%s in answer to a query", f.Kind)
		}
		m, err := ParseMessage(f.Kind, f.Payload)
		if err != nil {
			return err
		}
		if r, ok := m.(*Reject); ok {
			return r.asError()
		}
		if held += len(f.Payload); len(all) == maxPaged || held > maxHeld {
			return Errorf(CodeProtocol, "more than %d daemons or %d bytes in answer to a query", maxPaged, maxHeld)
		}
		all = append(all, m.(*Status))
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return all, context.Cause(ctx)
	case errors.Is(err, io.EOF) && len(all) > 0:
		return all, nil
	default:
		return all, err
	}
}

// WriteReject tells the peer of a stream why it ends, where no Receiver does.
func WriteReject(stream Stream, err error) {
	_, _ = stream.Write(rejectFrame(err)) // the stream ends either way
}
