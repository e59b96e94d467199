// Push, when its context ends or nobody listens any more.

package client_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

var errEnough = fmt.Errorf("the user has had enough: %w", protocol.ErrForget)

// pushed is how a Push ended.
type pushed struct {
	receipts []client.Receipt
	err      error
}

// start pushes in the background. Cancel ends the context with errEnough.
func start(t *testing.T, c *client.Client, src client.Source, opts client.Options) (result <-chan pushed, cancel func()) {
	t.Helper()
	ctx, stop := context.WithCancelCause(t.Context())
	t.Cleanup(func() { stop(nil) })
	done := make(chan pushed, 1)
	go func() {
		receipts, err := c.Push(ctx, src, opts)
		done <- pushed{receipts, err}
	}()
	return done, func() { stop(errEnough) }
}

// A push that is cancelled before the commit leaves nothing behind.
func TestCancelIsForgotten(t *testing.T) {
	for _, when := range []string{"mid-way", "while staging"} {
		t.Run(when, func(t *testing.T) {
			stores := []*store{newStore(t), newStore(t)}
			g := newGate(t)
			var src client.Source = &source{"f", -1, endless{}}
			if when == "mid-way" {
				stores[1].onWrite = g.hook
			} else {
				stores[1].onStage = g.hook
				src = bytesSource("f", random(1000))
			}
			n := broadcaster(t, stores...)
			result, cancel := start(t, newClient(t, n.addr), src, client.Options{})
			receive(t, g.reached, "the reader to be "+when)
			cancel()
			p := receive(t, result, "Push to return")
			require.ErrorIs(t, p.err, errEnough)
			assert.Equal(t, map[string]protocol.LeafState{"r1": protocol.LeafFailed, "r2": protocol.LeafFailed}, states(p.receipts))
			err := receive(t, n.ended, "the end at the broadcaster")
			require.ErrorIs(t, err, protocol.ErrForget)
			assert.ErrorContains(t, err, "had enough", "the readers are told why")
			for _, s := range stores {
				s.assertNothing(t)
			}
		})
	}
}

func TestCancelOfAnOffer(t *testing.T) {
	sink := newSilent()
	n := serve(t, sink, daemon.Options{})
	result, cancel := start(t, newClient(t, n.addr), bytesSource("f", nil), client.Options{})
	receive(t, sink.begun, "the offer")
	cancel()
	require.ErrorIs(t, receive(t, result, "Push to return").err, errEnough)
	require.ErrorIs(t, receive(t, n.ended, "the end at the reader"), protocol.ErrForget)
}

func TestCancelBeforeAnything(t *testing.T) {
	n := reader(t, newStore(t))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	_, err := newClient(t, n.addr).Push(ctx, bytesSource("f", nil), client.Options{})
	require.Error(t, err)
	assert.Empty(t, n.ended)
}

// A pipe may stay silent for ever: that must not keep Push from returning.
func TestCancelWhileTheSourceIsSilent(t *testing.T) {
	s, g := newStore(t), newGate(t)
	s.onWrite = g.hook
	g.open()
	n := broadcaster(t, s)
	in, out := io.Pipe()
	defer out.Close()
	result, cancel := start(t, newClient(t, n.addr), client.Stream(in, "f"), client.Options{})
	_, err := out.Write([]byte("some, and then nothing more"))
	require.NoError(t, err)
	receive(t, g.reached, "the content to arrive")
	cancel()
	require.ErrorIs(t, receive(t, result, "Push to return").err, errEnough)
	require.ErrorIs(t, receive(t, n.ended, "the end at the broadcaster"), protocol.ErrForget)
	s.assertNothing(t)
}

// Nobody is left to read for: the user is told at once, not at the next byte.
func TestReaderFailsWhileTheSourceIsSilent(t *testing.T) {
	s := newStore(t)
	s.onWrite = fails(errFull)
	n := broadcaster(t, s)
	in, out := io.Pipe()
	defer out.Close()
	result, cancel := start(t, newClient(t, n.addr), client.Stream(in, "f"), client.Options{})
	defer cancel()
	_, err := out.Write([]byte("some, and then nothing more"))
	require.NoError(t, err)
	assertCode(t, protocol.CodeNoSpace, receive(t, n.ended, "the end at the broadcaster"))
	assertCode(t, protocol.CodeNoSpace, receive(t, result, "Push to return").err)
}

// After the commit the readers do publish. A receipt must not deny it.
func TestCancelAfterTheCommit(t *testing.T) {
	for _, how := range []string{"cancelled", "connection lost"} {
		t.Run(how, func(t *testing.T) {
			stores := []*store{newStore(t), newStore(t)}
			g := newGate(t)
			stores[1].onPublish = g.hook
			n := broadcaster(t, stores...)
			c := newClient(t, n.addr)
			content := random(1000)
			result, cancel := start(t, c, bytesSource("f", content), client.Options{Timeout: time.Second})
			receive(t, g.reached, "the reader to publish")
			if how == "cancelled" {
				cancel()
			} else {
				require.NoError(t, c.Close())
			}
			p := receive(t, result, "Push to return")
			g.open()
			require.Error(t, p.err)
			require.NoError(t, receive(t, n.ended, "the end at the broadcaster"))
			for _, s := range stores {
				s.assertFile(t, "f", content)
			}
			assert.Len(t, p.receipts, 2, "a receipt for each reader that is known")
			for _, r := range p.receipts {
				assert.NotEqual(t, protocol.CodePolicy, r.Code, "%s: %s", r.Leaf, r.Text)
				assert.NotContains(t, r.Text, "not published", "%s", r.Leaf)
			}
		})
	}
}

func TestDaemonLostMidWay(t *testing.T) {
	s, g := newStore(t), newGate(t)
	s.onWrite = g.hook
	n := reader(t, s)
	c := newClient(t, n.addr)
	result, _ := start(t, c, &source{"f", -1, endless{}}, client.Options{Timeout: time.Second})
	receive(t, g.reached, "the reader to write")
	require.NoError(t, c.Close())
	p := receive(t, result, "Push to return")
	require.Error(t, p.err)
	assert.Equal(t, map[string]protocol.LeafState{n.addr: protocol.LeafFailed}, states(p.receipts))
	assertCode(t, protocol.CodeTruncated, receive(t, n.ended, "the end at the reader"))
	s.assertNothing(t)
}
