package protocol

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestAcksAreToldBySixteenthsOfTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, takeNothing(), offer(-1))
		const n = testWindow / 4
		h.chunk(0, make([]byte, n))
		h.chunk(n, make([]byte, n))
		synctest.Wait()
		ack := func(offset int64) {
			h.sink.up.Ack(offset)
			synctest.Wait()
		}
		for offset := int64(1 << 10); offset <= n; offset += 1 << 10 {
			ack(offset)
		}
		for offset := int64(testWindow / 16); offset <= n; offset += testWindow / 16 {
			h.expectAck(offset)
		}
		assert.Zero(t, h.pending(), "more acks than that")

		ack(n + 1) // not worth a frame
		ack(n)     // going back
		ack(0)
		assert.Zero(t, h.pending())
		ack(2 * n) // nothing more is on its way: the sender may be waiting for this
		h.expectAck(2 * n)
	})
}

// A sink so slow that a sixteenth of the window takes it minutes has not stalled.
func TestAcksOfASlowSinkAreToldNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := accepted(t, takeNothing(), offer(-1))
		h.chunk(0, make([]byte, testWindow/4))
		synctest.Wait()
		for offset := int64(1); offset <= 5; offset++ {
			time.Sleep(ackEvery)
			h.sink.up.Ack(offset)
			h.expectAck(offset)
		}
		time.Sleep(ackEvery - time.Millisecond)
		h.sink.up.Ack(6)
		synctest.Wait()
		assert.Zero(t, h.pending(), "an ack too soon after the one before")
	})
}

func TestAckBeforeTheSinkHasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{answer: Accept{Offset: 100}}
		release := make(chan struct{})
		sink.onBegin = func(context.Context) error {
			sink.up.Ack(100) // what it resumes from, say
			<-release
			return nil
		}
		h := receive(t, sink, offer(-1), 1<<20)
		synctest.Wait()
		assert.Zero(t, h.pending(), "an ack before the accept ends the transfer at the sender")
		close(release)
	})
}
