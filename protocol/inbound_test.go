package protocol

import (
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
)

// What was said before a stream ended is why it ended, also when the end comes
// while it is being listened to.
func TestLastWordThatCameEarlyIsHeard(t *testing.T) {
	in := newInbound()
	in.unread = AppendFrame(nil, KindPing, 0, nil)
	err := in.each(func(Frame) error {
		in.end(io.EOF) // the peer's FIN
		return errLost
	})
	assert.Equal(t, errLost, err)
}
