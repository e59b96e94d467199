//go:build unix

package client_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
)

// A source that has become a FIFO since it was named is not waited for.
func TestFileThatBecameAFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	src, err := client.File(path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	_, err = src.Open(t.Context())
	assert.ErrorContains(t, err, "not a regular file any more")
	_, err = src.Fingerprint()
	assert.ErrorContains(t, err, "not a regular file any more")
}
