package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// drain takes all that p has, in pieces of at most n bytes.
func drain(t *testing.T, p *pipe, n int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var all []byte
	for {
		there, err := p.await(ctx, nil, nil)
		if err != nil {
			return all, err
		}
		b := make([]byte, min(n, there))
		p.take(b)
		all = append(all, b...)
	}
}

// Whatever the pieces are that come and that are taken, the bytes are the same.
func TestPipeBytes(t *testing.T) {
	content := make([]byte, 3*pipeBuffer+12345)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	broken := errors.New("broken")
	for name, r := range map[string]io.Reader{
		"whole":    bytes.NewReader(content),
		"halves":   iotest.HalfReader(bytes.NewReader(content)),
		"data err": iotest.DataErrReader(bytes.NewReader(content)),
	} {
		for _, n := range []int{999, 64 << 10, 1 << 20} {
			p := newPipe(r)
			got, err := drain(t, p, n)
			require.ErrorIs(t, err, io.EOF, name)
			assert.True(t, bytes.Equal(content, got), name)
			p.stop()
			r = bytes.NewReader(content)
		}
	}
	p := newPipe(io.MultiReader(bytes.NewReader(content), iotest.ErrReader(broken)))
	got, err := drain(t, p, 5000)
	require.ErrorIs(t, err, broken)
	assert.Len(t, got, len(content), "what came before the error is content")
	p.stop()
}

// Nobody takes anything: no more is read than the buffer holds.
func TestPipeIsBounded(t *testing.T) {
	read := make(chan int, 100)
	p := newPipe(readerFunc(func(b []byte) (int, error) {
		read <- len(b)
		return len(b), nil
	}))
	assert.Equal(t, pipeBuffer, <-read)
	there, err := p.await(t.Context(), nil, nil)
	require.NoError(t, err)
	assert.Equal(t, pipeBuffer, there)
	assert.Empty(t, read)
	p.take(make([]byte, 1000))
	assert.Equal(t, 1000, <-read, "and then as much as there is room for")
	p.stop()
}

type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
