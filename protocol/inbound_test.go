package protocol

import (
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A peer that refuses at once may have hung up before anybody looks: what
// counts is what it said.
func TestFrameThatCameWithTheEndOfItsStream(t *testing.T) {
	in := newInbound()
	in.unread = rejectFrame(Errorf(CodeDenied, "no"))
	in.end(io.EOF)
	err := in.each(nil, func(f Frame) error {
		m, err := ParseMessage(f.Kind, f.Payload)
		if err != nil {
			return err
		}
		return m.(*Reject).asError()
	})
	assert.True(t, HasCode(err, CodeDenied), "%v", err)
}

// What was said before a stream ended is why it ended, also when the end comes
// while it is being listened to.
func TestLastWordThatCameEarlyIsHeard(t *testing.T) {
	in := newInbound()
	in.unread = AppendFrame(nil, KindPing, 0, nil)
	err := in.each(nil, func(Frame) error {
		in.end(io.EOF) // the peer's FIN
		return errLost
	})
	assert.Equal(t, errLost, err)
}
