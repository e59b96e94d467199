//go:build unix

package sink

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

// A file that has become a FIFO since it was looked at holds nobody up.
func TestOpenDoesNotWaitForAFIFO(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o666))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	for _, open := range []func(string) (diskFile, error){rootDisk{root}.Read, rootDisk{root}.Open} {
		_, err := open("fifo")
		assert.True(t, protocol.HasCode(err, protocol.CodeExists), "%v", err)
	}
}
