//go:build unix

// The directory: names that lead elsewhere, targets that are no files, disks
// that are full.

package sink_test

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// forced returns the same offer without and with force.
func forced(name string, size int64) []*protocol.Offer {
	plain, force := offer(name, size), offer(name, size)
	force.Force = true
	return []*protocol.Offer{plain, force}
}

func TestDirNeverFollowsALinkOutside(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "data")
	write(t, filepath.Join(outside, "sub", "secret"), "data")
	for _, c := range []struct{ name, link, to string }{
		{"link/new", "link", outside},
		{"link/secret", "link", outside},
		{"link/sub/new", "link", outside},
		{"link/deep/er/new", "link", outside},
		{"file", "file", filepath.Join(outside, "secret")},
		{"dangling", "dangling", filepath.Join(outside, "new")},
		{"up/new", "up", ".."},
		{"a/up/new", "a/up", "../.."},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, path := openDir(t)
			link := filepath.Join(path, c.link)
			require.NoError(t, os.MkdirAll(filepath.Dir(link), 0o777))
			require.NoError(t, os.Symlink(c.to, link))
			before := entries(t, filepath.Dir(path))
			for _, o := range forced(c.name, 4) {
				_, err := put(t, d, o, "data")
				require.Error(t, err)
			}
			assert.Equal(t, []string{"secret", "sub/", "sub/secret"}, entries(t, outside))
			assertContent(t, filepath.Join(outside, "secret"), "data")
			assert.Equal(t, before, entries(t, filepath.Dir(path)))
		})
	}
}

// Whatever a name is, even one that no offer may have: the file is beneath the
// root or nowhere.
func TestDirKeepsEveryNameInside(t *testing.T) {
	table, err := os.Open("../../testdata/names.tsv")
	require.NoError(t, err)
	defer table.Close()
	above := t.TempDir()
	root := filepath.Join(above, "files")
	write(t, filepath.Join(above, "secret"), "data")
	require.NoError(t, os.Mkdir(root, 0o777))
	require.NoError(t, os.Symlink(above, filepath.Join(root, "above")))
	d, err := sink.OpenDir(root, sink.DirOptions{Fsync: sink.FsyncNever})
	require.NoError(t, err)
	defer d.Close()
	inside, err := os.OpenRoot(root) // some names are too long for a path
	require.NoError(t, err)
	defer inside.Close()
	count, stored := 0, 0
	for lines := bufio.NewScanner(table); lines.Scan(); {
		quoted, verdict, ok := strings.Cut(lines.Text(), "\t")
		if !ok {
			continue
		}
		name, err := strconv.Unquote(quoted)
		require.NoError(t, err)
		for _, n := range []string{name, "above/" + name} {
			count++
			_, err = put(t, d, offer(n, 4), "data")
			if n == name && verdict == "good" && runtime.GOOS == "linux" {
				assert.NoError(t, err, "%q", n)
				content, err := inside.ReadFile(n)
				require.NoError(t, err)
				assert.Equal(t, "data", string(content), "%q", n)
				stored++
			}
			if n != name {
				assert.Error(t, err, "%q", n)
			}
		}
	}
	require.Greater(t, count, 400)
	require.Greater(t, stored, 80)
	found, err := os.ReadDir(above)
	require.NoError(t, err)
	require.Len(t, found, 2, "nothing came beside files and secret")
	assertContent(t, filepath.Join(above, "secret"), "data")
}

// Somebody swaps a directory for a link to elsewhere and back, all the time.
func TestDirUnderSwappedLinks(t *testing.T) {
	outside := t.TempDir()
	path := t.TempDir()
	d, err := sink.OpenDir(path, sink.DirOptions{Fsync: sink.FsyncNever})
	require.NoError(t, err)
	defer d.Close()
	sub, link := filepath.Join(path, "sub"), filepath.Join(path, "link")
	require.NoError(t, os.Mkdir(sub, 0o777))
	require.NoError(t, os.Symlink(outside, link))
	done := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		aside := filepath.Join(path, "aside")
		for {
			select {
			case <-done:
				return
			default:
				_ = os.RemoveAll(aside) // where a push has made the directory again meanwhile
				_ = os.Rename(sub, aside)
				if os.Rename(link, sub) != nil {
					continue
				}
				time.Sleep(100 * time.Microsecond) // or the link would hardly ever be met
				_ = os.Rename(sub, link)
				_ = os.Rename(aside, sub)
			}
		}
	})
	published, refused := 0, 0
	for begun := time.Now(); (published < 20 || refused < 20) && time.Since(begun) < 20*time.Second; {
		o := offer("sub/f", 4)
		o.Force = refused%2 == 0
		if _, err := put(t, d, o, "data"); err == nil {
			published++
		} else {
			refused++
		}
	}
	close(done)
	swapper.Wait()
	assert.Empty(t, entries(t, outside))
	assert.GreaterOrEqual(t, published, 20)
	assert.GreaterOrEqual(t, refused, 20, "the link was hardly ever met")
}

func TestDirFollowsALinkInside(t *testing.T) {
	d, path := openDir(t)
	require.NoError(t, os.Mkdir(filepath.Join(path, "real"), 0o777))
	require.NoError(t, os.Symlink("real", filepath.Join(path, "link")))
	_, err := put(t, d, offer("link/f", 4), "data")
	require.NoError(t, err)
	assert.Equal(t, []string{"f"}, entries(t, filepath.Join(path, "real")))
}

// A link that is put in the place of a directory while a push is under way
// must not carry the file off.
func TestDirLinkThatCameMeanwhile(t *testing.T) {
	outside := t.TempDir()
	d, path := openDir(t)
	f, _, err := d.Create(t.Context(), request(offer("sub/f", 4)))
	require.NoError(t, err)
	require.NoError(t, fill(t, f, "data"))
	require.NoError(t, os.Rename(filepath.Join(path, "sub"), filepath.Join(path, "moved")))
	require.NoError(t, os.Symlink(outside, filepath.Join(path, "sub")))
	_, err = f.Publish(t.Context())
	require.Error(t, err)
	f.Discard(false)
	assert.Empty(t, entries(t, outside))
	assert.NoFileExists(t, filepath.Join(path, "moved", "f"))
}

func TestDirTargetIsNoFile(t *testing.T) {
	for kind, make := range map[string]func(path string) error{
		"directory": func(p string) error { return os.Mkdir(p, 0o777) },
		"fifo":      func(p string) error { return syscall.Mkfifo(p, 0o666) },
		"link":      func(p string) error { return os.Symlink("elsewhere", p) },
		"socket": func(p string) error {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			return syscall.Bind(fd, &syscall.SockaddrUnix{Name: p})
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Chdir(t.TempDir()) // a socket's path must be short
			d := openDirAt(t, ".")
			require.NoError(t, make("target"))
			before, err := os.Lstat("target")
			require.NoError(t, err)
			for _, o := range append(forced("target", 4), forced("target", -1)...) {
				within(t, "the refusal", func() {
					_, _, err = d.Create(t.Context(), request(o))
				})
				assertCode(t, protocol.CodeExists, err)
			}
			after, err := os.Lstat("target")
			require.NoError(t, err)
			assert.Equal(t, before.Mode(), after.Mode())
			assert.Len(t, entries(t, "."), 1)
		})
	}
}

// The target is replaced, not written: who else has the old file keeps it.
func TestDirForceLeavesOtherLinksAlone(t *testing.T) {
	d, path := openDir(t)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	write(t, elsewhere, "old")
	if err := os.Link(elsewhere, filepath.Join(path, "f")); err != nil {
		t.Skip("no hard links here: ", err)
	}
	o := forced("f", 3)[1]
	_, err := put(t, d, o, "new")
	require.NoError(t, err)
	assertContent(t, filepath.Join(path, "f"), "new")
	assertContent(t, elsewhere, "old")
}

func TestDirFileWhereADirectoryIsNeeded(t *testing.T) {
	d, path := openDir(t)
	write(t, filepath.Join(path, "f"), "a file")
	for _, o := range forced("f/below", 4) {
		_, _, err := d.Create(t.Context(), request(o))
		assertCode(t, protocol.CodeIO, err)
	}
	assert.Equal(t, []string{"f"}, entries(t, path))
}

func TestDirFullDiskIsAnAnswerToTheOffer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("room is claimed on Linux only")
	}
	d, path := openDir(t)
	for range 2 { // the name is free again
		_, _, err := d.Create(t.Context(), request(offer("f", 1<<60)))
		assertCode(t, protocol.CodeNoSpace, err)
		assert.Empty(t, entries(t, path))
	}
	_, err := put(t, d, offer("f", 4), "data")
	require.NoError(t, err)
}

func TestDirWithoutPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	d, path := openDir(t)
	require.NoError(t, os.Chmod(path, 0o555))
	t.Cleanup(func() { _ = os.Chmod(path, 0o777) })
	for range 2 {
		_, _, err := d.Create(t.Context(), request(offer("f", 4)))
		assertCode(t, protocol.CodeDenied, err)
	}
	require.NoError(t, os.Chmod(path, 0o777))
	_, err := put(t, d, offer("f", 4), "data")
	require.NoError(t, err)
}

func TestOpenDirMakesItAndRefusesAFile(t *testing.T) {
	base := t.TempDir()
	d := openDirAt(t, filepath.Join(base, "new", "store"))
	assert.Equal(t, "dir:"+filepath.Join(base, "new", "store"), d.String())
	assert.Equal(t, []string{"new/", "new/store/"}, entries(t, base))

	write(t, filepath.Join(base, "file"), "")
	_, err := sink.OpenDir(filepath.Join(base, "file"), sink.DirOptions{})
	require.ErrorContains(t, err, "sink dir:")
}
