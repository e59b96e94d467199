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
	err := in.each(func(f Frame) error {
		m, err := ParseMessage(f.Kind, f.Payload)
		if err != nil {
			return err
		}
		return m.(*Reject).asError()
	})
	assert.True(t, HasCode(err, CodeDenied), "%v", err)
}
