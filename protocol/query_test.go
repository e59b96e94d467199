package protocol

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAskStatus(t *testing.T) {
	own := &Status{Agent: "sbcast 1.0", Sessions: 1}
	below := &Status{Node: "eu-1", Sink: "dir:/srv"}
	tests := []struct {
		name string
		do   func(p *rawPeer)
		want []*Status
		err  error
	}{
		{"a tree", func(p *rawPeer) { p.send(own); p.send(below); p.CloseWrite() }, []*Status{own, below}, nil},
		{"nothing", func(p *rawPeer) { p.CloseWrite() }, nil, io.EOF},
		{"part of it", func(p *rawPeer) { p.send(own); p.write(pongFrame[:3]); p.CloseWrite() }, []*Status{own}, io.ErrUnexpectedEOF},
		{"connection lost", func(p *rawPeer) { p.send(own); p.breakWith(errLost) }, []*Status{own}, errLost},
		{"refused", func(p *rawPeer) { p.send(&Reject{Code: CodeBusy, Text: "later"}) }, nil, &Error{Code: CodeBusy}},
		{"another frame", func(p *rawPeer) { p.send(own); p.send(&Ready{}) }, []*Status{own}, &Error{Code: CodeProtocol}},
		{"a chunk", func(p *rawPeer) { p.chunk(0, []byte("x")) }, nil, &Error{Code: CodeProtocol}},
		{"a bad status", func(p *rawPeer) { p.write(AppendFrame(nil, KindStatus, 0, []byte("[]"))) }, nil, &Error{Code: CodeProtocol}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := memPipe(1 << 20)
				p := newRawPeer(t, far)
				tt.do(p)
				got, err := AskStatus(t.Context(), near, 3)
				assert.ErrorIs(t, err, tt.err)
				assert.Equal(t, tt.want, got)
				assert.Equal(t, &Query{Hops: 3}, expect[*Query](p))
				_, err = p.next()
				assert.Equal(t, io.EOF, err, "the asker leaves its side open")
			})
		})
	}
}

func TestAskStatusEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := memPipe(1 << 20)
		newRawPeer(t, far).send(&Status{Node: "one"})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLost)
		defer cancel()
		got, err := AskStatus(ctx, near, 0)
		assert.Equal(t, errLost, err)
		assert.Len(t, got, 1, "what came is lost")
	})
}

func TestAskStatusRefusesTooDeepAQuestion(t *testing.T) {
	near, _ := memPipe(1 << 20)
	_, err := AskStatus(t.Context(), near, maxHops+1)
	assert.True(t, HasCode(err, CodeLoop), "%v", err)
}

func TestWriteReject(t *testing.T) {
	near, far := memPipe(1 << 20)
	WriteReject(near, fmt.Errorf("stream 5: %w", errLost))
	m := expect[*Reject](newRawPeer(t, far))
	assert.Equal(t, CodeInternal, m.Code)
	require.Equal(t, "stream 5: connection lost", m.Text)
}
