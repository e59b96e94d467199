// Small files, which go with their offer.

package client_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

// sentAhead pushes src and returns what comes on the stream before any answer:
// n frames, of which the test knows that they must come.
func sentAhead(t *testing.T, src client.Source, opts client.Options, n int) (kinds []protocol.Kind) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	got := make(chan []protocol.Kind, 1)
	go func() {
		var kinds []protocol.Kind
		defer func() { got <- kinds }()
		conn, err := ln.Accept()
		if !assert.NoError(t, err) {
			return
		}
		sess, err := protocol.AcceptSession(t.Context(), conn, protocol.SessionConfig{})
		if !assert.NoError(t, err) {
			return
		}
		defer sess.Close()
		stream, err := sess.Accept()
		if !assert.NoError(t, err) {
			return
		}
		frames := protocol.NewFrameReader(stream)
		for range n {
			f, err := frames.Next()
			if !assert.NoError(t, err) {
				return
			}
			if f.Chunk != nil {
				f.Chunk.Release()
			}
			kinds = append(kinds, f.Kind)
		}
		protocol.WriteReject(stream, protocol.Errorf(protocol.CodeDenied, "not here"))
		for { // what else had been sent
			f, err := frames.Next()
			if err != nil {
				return
			}
			kinds = append(kinds, f.Kind)
		}
	}()
	opts.Host = ln.Addr().String()
	_, err = client.Push(patient(t), src, opts)
	assertCode(t, protocol.CodeDenied, err)
	return receive(t, got, "the frames")
}

func TestSmallFileGoesWithItsOffer(t *testing.T) {
	offer, chunk, finish := protocol.KindOffer, protocol.KindChunk, protocol.KindFinish
	for _, tt := range []struct {
		name string
		size int
		opts client.Options
		want []protocol.Kind
	}{
		{"empty", 0, client.Options{}, []protocol.Kind{offer, finish}},
		{"one byte", 1, client.Options{}, []protocol.Kind{offer, chunk, finish}},
		{"largest", protocol.MaxEarly, client.Options{}, []protocol.Kind{offer, chunk, finish}},
		{"too large", protocol.MaxEarly + 1, client.Options{}, []protocol.Kind{offer}},
		{"small chunks", 10, client.Options{ChunkSize: 9}, []protocol.Kind{offer}},
		{"dry run", 10, client.Options{DryRun: true}, []protocol.Kind{offer}},
		{"limited", 10, client.Options{BWLimit: 1 << 20}, []protocol.Kind{offer}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, sentAhead(t, bytesSource("f", random(tt.size)), tt.opts, len(tt.want)))
		})
	}
}

// They have it all, and are not to keep it.
func TestSmallFileIsForgottenWhenTooFewTakeIt(t *testing.T) {
	stores := []*store{newStore(t), newStore(t)}
	c := newClient(t, broadcaster(t, stores...).addr)
	_, err := c.Push(patient(t), bytesSource("f", random(100)), client.Options{Require: policy(t, "3")})
	assert.ErrorContains(t, err, "there are only 2 readers")
	for _, s := range stores {
		require.Eventually(t, func() bool { return len(s.files(t)) == 0 }, patience, 10*time.Millisecond)
	}
}

func TestSmallFileIsPushedAgain(t *testing.T) {
	s := newStore(t)
	c := newClient(t, broadcaster(t, s).addr)
	content := random(100)
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	src, err := client.File(path)
	require.NoError(t, err)
	for _, want := range []protocol.LeafState{protocol.LeafPublished, protocol.LeafUnchanged} {
		receipts, err := c.Push(patient(t), src, client.Options{})
		require.NoError(t, err)
		assert.Equal(t, want, receipts[0].Status)
		s.assertFile(t, "f", content)
	}
}
