package daemon_test

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// What comes from the same process is served as what comes over a connection.
func TestLocal(t *testing.T) {
	st := newStore(t)
	leaf := sink.NewLeaf(st)
	defer leaf.Close()
	s := daemon.NewServer(leaf, daemon.Options{})
	c := client.NewOver("here", s.Local("a test"))
	content := random(3 << 20)
	receipts, err := c.Push(patient(t), client.SizedStream(&slowly{content}, "file", int64(len(content))), client.Options{})
	require.NoError(t, err)
	assert.Equal(t, protocol.LeafPublished, receipts[0].Status)
	assert.Equal(t, "here", receipts[0].Leaf)
	got, _ := st.file("file")
	assert.Equal(t, string(content), got)
	all, err := c.Status(patient(t), 0)
	require.NoError(t, err)
	assert.Len(t, all, 1)

	// A stream that says nothing does not hold the end up, and after it there are none.
	idle, err := s.Local("a test").Open(patient(t))
	require.NoError(t, err)
	require.NoError(t, s.Shutdown(patient(t)))
	_, err = idle.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = s.Local("a test").Open(context.Background())
	assertCode(t, protocol.CodeShutdown, err)
}

// slowly gives a few bytes at a time, as a form that is parsed does.
type slowly struct{ rest []byte }

func (s *slowly) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 4000)], s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
