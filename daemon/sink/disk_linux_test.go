package sink

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// In memory, room is looked for and not claimed.
func TestAllocateOnTmpfs(t *testing.T) {
	f, err := os.CreateTemp("/dev/shm", "sbcast-test-")
	if err != nil {
		t.Skip("no tmpfs here: ", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	fd := int(f.Fd())
	var fs unix.Statfs_t
	require.NoError(t, unix.Fstatfs(fd, &fs))
	if fs.Type != unix.TMPFS_MAGIC || fs.Blocks == 0 || fs.Bavail == 0 {
		t.Skip("no tmpfs with a limit and room")
	}

	require.NoError(t, allocate(f, 1<<12))
	var has unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &has))
	require.Zero(t, has.Blocks)

	err = allocate(f, 1<<60)
	require.ErrorIs(t, err, unix.ENOSPC)
	require.ErrorContains(t, err, "bytes are free")
}

func TestRoomInMemory(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/part")
	require.NoError(t, err)
	defer f.Close()
	_, err = f.Write(make([]byte, 1<<20))
	require.NoError(t, err)
	require.NoError(t, f.Sync()) // until then a disk may not count blocks
	fd := int(f.Fd())
	var has unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &has))
	own := has.Blocks * 512

	fs := &unix.Statfs_t{Bsize: 4096, Blocks: 10, Bavail: 2}
	require.NoError(t, roomInMemory(fd, fs, 1))
	require.NoError(t, roomInMemory(fd, fs, own+2*4096), "what it has is its own")
	require.ErrorIs(t, roomInMemory(fd, fs, own+2*4096+1), unix.ENOSPC)
	fs.Blocks = 0
	require.NoError(t, roomInMemory(fd, fs, 1<<60), "no limit")
}
