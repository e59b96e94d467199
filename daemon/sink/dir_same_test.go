// The directory: a target that is there already.

package sink_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

func TestDirIdenticalIsUnchanged(t *testing.T) {
	long := strings.Repeat("same ", 100000)
	for _, c := range []struct {
		name    string
		size    int64
		content string
	}{
		{"empty", 0, ""},
		{"short", 4, "data"},
		{"long", int64(len(long)), long},
		{"unknown size", -1, long},
		{"unknown size and empty", -1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, path := openDir(t)
			target := filepath.Join(path, "f")
			write(t, target, c.content)
			mtime := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
			require.NoError(t, os.Chtimes(target, mtime, mtime))
			before, err := os.Stat(target)
			require.NoError(t, err)

			f, _, err := d.Create(t.Context(), request(offer("f", c.size)))
			require.NoError(t, err)
			assert.Equal(t, []string{"f"}, entries(t, path), "nothing is written to compare")
			require.NoError(t, fill(t, f, c.content))
			p, err := f.Publish(t.Context())
			require.NoError(t, err)
			assert.True(t, p.Unchanged)
			assert.Equal(t, target, p.Location)

			after, err := os.Stat(target)
			require.NoError(t, err)
			assert.True(t, os.SameFile(before, after))
			assert.True(t, after.ModTime().Equal(mtime), "mtime is %v", after.ModTime())
		})
	}
}

func TestDirDifferentIsRefused(t *testing.T) {
	const existing = "0123456789"
	for _, c := range []struct {
		name  string
		size  int64
		write string // "": refused before any content
		text  string
	}{
		{"longer by its size", 11, "", "it has 10 bytes, the new one 11"},
		{"shorter by its size", 9, "", "it has 10 bytes, the new one 9"},
		{"first byte", 10, "x123456789", "between byte 0 and 5"},
		{"last byte", 10, "012345678x", "between byte 5 and 10"},
		{"longer", -1, "0123456789+more", "between byte 7 and 15"},
		{"shorter", -1, "012345", "it goes on after byte 6"},
		{"empty", -1, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, path := openDir(t)
			write(t, filepath.Join(path, "f"), existing)
			_, err := put(t, d, offer("f", c.size), c.write)
			assertCode(t, protocol.CodeExists, err)
			assert.ErrorContains(t, err, c.text)
			assert.ErrorContains(t, err, "--force", "what to do about it")
			assert.Equal(t, []string{"f"}, entries(t, path))
			assertContent(t, filepath.Join(path, "f"), existing)

			p, err := put(t, d, offer("f", 10), existing)
			require.NoError(t, err, "the name is free again")
			assert.True(t, p.Unchanged)
		})
	}
}

// The comparison has to find one bit anywhere, however the content is cut.
func TestDirComparesEveryByte(t *testing.T) {
	content := bytes.Repeat([]byte("abcdefg"), 300)
	d, path := openDir(t)
	write(t, filepath.Join(path, "f"), string(content))
	for at := 0; at < len(content); at += 97 {
		changed := bytes.Clone(content)
		changed[at] ^= 1
		f, _, err := d.Create(t.Context(), request(offer("f", int64(len(content)))))
		require.NoError(t, err)
		for rest := changed; err == nil && len(rest) > 0; {
			n := min(len(rest), 1+at%200)
			_, err = f.Write(rest[:n])
			rest = rest[n:]
		}
		f.Discard(false)
		assertCode(t, protocol.CodeExists, err)
	}
	assertContent(t, filepath.Join(path, "f"), string(content))
}

func TestDirComparingTakesTheNameToo(t *testing.T) {
	d, path := openDir(t)
	write(t, filepath.Join(path, "f"), "data")
	f, _, err := d.Create(t.Context(), request(offer("f", 4)))
	require.NoError(t, err)
	force := offer("f", 3)
	force.Force = true
	_, _, err = d.Create(t.Context(), request(force))
	assertCode(t, protocol.CodeConflict, err)
	f.Discard(false)
	_, err = put(t, d, force, "new")
	require.NoError(t, err)
	assertContent(t, filepath.Join(path, "f"), "new")
}
