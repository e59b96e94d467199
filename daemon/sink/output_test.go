// Standard output.

package sink_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

func TestOutputPassesContentOn(t *testing.T) {
	var out bytes.Buffer
	store, err := sink.Open("-", sink.Options{Output: &out})
	require.NoError(t, err)
	p, err := put(t, store, offer("f", 5), "first")
	require.NoError(t, err)
	assert.Equal(t, sink.Published{Location: "-"}, p)
	_, err = put(t, store, offer("f", 7), " second")
	require.NoError(t, err)
	assert.Equal(t, "first second", out.String())
}

func TestOutputTakesOneFileAtATime(t *testing.T) {
	for _, end := range []string{"publish", "discard"} {
		var out bytes.Buffer
		store, err := sink.Open("-", sink.Options{Output: &out})
		require.NoError(t, err)
		f, _, err := store.Create(t.Context(), request(offer("f", 5)))
		require.NoError(t, err)
		_, _, err = store.Create(t.Context(), request(offer("g", 5)))
		assertCode(t, protocol.CodeBusy, err)
		require.NoError(t, fill(t, f, "first"))
		if end == "publish" {
			_, err = f.Publish(t.Context())
			require.NoError(t, err)
		} else {
			f.Discard(false)
		}
		_, err = put(t, store, offer("g", 4), "next")
		require.NoError(t, err)
		assert.Equal(t, "firstnext", out.String())
	}
}

func TestOutputFails(t *testing.T) {
	r, w := io.Pipe()
	require.NoError(t, r.CloseWithError(errBroken))
	store, err := sink.Open("-", sink.Options{Output: w})
	require.NoError(t, err)
	_, err = put(t, store, offer("f", 4), "data")
	require.ErrorIs(t, err, errBroken)
	_, _, err = store.Create(t.Context(), request(offer("f", 4)))
	require.NoError(t, err, "it is free again")
}

// A pipe that nobody reads must not keep a transfer, and with it the daemon,
// from ending.
func TestOutputWriteEndsWithItsContext(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close() // lets the write go in the end
	store, err := sink.Open("-", sink.Options{Output: w})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	f, _, err := store.Create(ctx, request(offer("f", 8)))
	require.NoError(t, err)
	written := make(chan error, 1)
	go func() {
		_, err := f.Write([]byte("the data"))
		written <- err
	}()
	_, err = io.ReadFull(r, make([]byte, 4)) // the write is under way
	require.NoError(t, err)
	cancel()
	require.Error(t, receive(t, written, "the Write under way to return"))
	f.Discard(false)
}
