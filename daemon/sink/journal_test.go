// Damaged journals and manifests.

package sink

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

// faultJournal is a journal, its records, and where each of its lines ends.
func faultJournal(records int) (text []byte, h header, entries []entry, ends []int) {
	h = header{Name: "a/file", Part: partPath("a/file"), Source: "source", Size: 1 << 30, Begun: time.Unix(1_700_000_000, 5).UTC()}
	text = appendLine(nil, h)
	ends = append(ends, len(text))
	sum := protocol.NewHasher(protocol.DigestXXH128)
	for i := range records {
		_, _ = sum.Write([]byte{byte(i)})
		e := entry{record: record{Offset: int64(i+1)*journalStep + int64(i), Sum: sum.Digest()}}
		text = appendLine(text, e.record)
		e.end = int64(len(text))
		entries, ends = append(entries, e), append(ends, len(text))
	}
	return text, h, entries, ends
}

func TestJournalRoundTrip(t *testing.T) {
	text, h, entries, ends := faultJournal(8)
	gotH, got, headerEnd, ok := readJournal(bytes.NewReader(text))
	require.True(t, ok)
	require.Equal(t, h, gotH)
	require.Equal(t, entries, got)
	require.EqualValues(t, ends[0], headerEnd)
}

// The longest name that is allowed, all of it characters that JSON escapes,
// fits into the line of a journal.
func TestJournalOfTheLongestName(t *testing.T) {
	part := strings.Repeat("<", 255)
	name := part + strings.Repeat("/"+part, 15)
	_, err := protocol.ParseName(name)
	require.NoError(t, err)
	h := header{Name: name, Part: partPath(name), Source: strings.Repeat("<", 128)}
	got, _, _, ok := readJournal(bytes.NewReader(appendLine(nil, h)))
	require.True(t, ok)
	require.Equal(t, h, got)
}

// A journal that was cut off anywhere has the records before the cut.
func TestJournalEveryPrefix(t *testing.T) {
	text, h, entries, ends := faultJournal(5)
	for n := range len(text) + 1 {
		gotH, got, headerEnd, ok := readJournal(bytes.NewReader(text[:n]))
		if n < ends[0] {
			require.False(t, ok, "prefix of %d", n)
			require.Empty(t, got)
			continue
		}
		require.True(t, ok, "prefix of %d", n)
		require.Equal(t, h, gotH)
		require.EqualValues(t, ends[0], headerEnd)
		whole := 0
		for whole < len(entries) && ends[whole+1] <= n {
			whole++
		}
		require.Len(t, got, whole, "prefix of %d", n)
		require.Equal(t, entries[:whole], append([]entry{}, got...))
	}
}

// A flipped bit ends the journal before its line, unless the line means the
// same with it (a hex digit in upper case).
func TestJournalEveryBitFlip(t *testing.T) {
	text, h, entries, ends := faultJournal(5)
	for bit := range len(text) * 8 {
		damaged := bytes.Clone(text)
		damaged[bit/8] ^= 1 << (bit % 8)
		gotH, got, _, ok := readJournal(bytes.NewReader(damaged))
		line, start := 0, 0
		for ends[line] <= bit/8 {
			start = ends[line]
			line++
		}
		same := bit/8 < start+8 && bytes.EqualFold(damaged, text)
		if line == 0 && !same {
			require.False(t, ok, "bit %d", bit)
			require.Equal(t, header{}, gotH)
			continue
		}
		require.True(t, ok, "bit %d", bit)
		require.Equal(t, h, gotH)
		good := max(line-1, 0)
		if len(got) > good { // it had better be the whole truth
			require.True(t, same, "bit %d of line %d was not noticed", bit, line)
			good = len(entries)
		}
		require.Equal(t, entries[:good], append([]entry{}, got...), "bit %d", bit)
	}
}

// A journal that was damaged never makes a store claim content that the part
// does not have.
func TestJournalFlippedBitsAtTheStore(t *testing.T) {
	p := newPowerPush("file", powerContent(30, 20_000))
	disk := newStrictFS()
	d, err := newDir("/fault", disk, strictSame, DirOptions{})
	require.NoError(t, err)
	for _, end := range []int64{5_000, 9_000, 15_000} {
		a, err := p.create(d)
		require.NoError(t, err)
		require.NoError(t, p.write(a, end))
		a.file.Discard(true)
	}
	text := disk.content(journalPath("file"))
	for bit := 0; bit < len(text)*8; bit += 3 {
		again := disk.crash(strictAll, strictNothing)
		damaged := bytes.Clone(text)
		damaged[bit/8] ^= 1 << (bit % 8)
		again.put(t, journalPath("file"), damaged, false)
		d, err := newDir("/fault", again, strictSame, DirOptions{})
		require.NoError(t, err)
		a, err := p.create(d)
		require.NoError(t, err, "bit %d", bit)
		require.Contains(t, []int64{0, 5_000, 9_000, 15_000}, a.have.Offset)
		a.file.Discard(true)
		_, err = p.run(d)
		require.NoError(t, err, "bit %d", bit)
		require.True(t, again.holds("file", p.content), "bit %d", bit)
	}
}

// Of a damaged manifest nothing is believed.
func TestManifestEveryPrefixAndBitFlip(t *testing.T) {
	p := newPowerPush("file", powerContent(31, 30_000))
	disk := newStrictFS()
	d, err := newDir("/fault", disk, strictSame, DirOptions{})
	require.NoError(t, err)
	_, err = p.run(d)
	require.NoError(t, err)
	info, err := disk.Lstat("file")
	require.NoError(t, err)
	want, ok := d.readManifest("file", info)
	require.True(t, ok)
	require.Equal(t, powerDigest(p.content), want.Digest)

	text := disk.content(manifestPath("file"))
	check := func(damaged []byte, what string, at int) {
		disk.put(t, manifestPath("file"), damaged, false)
		if got, ok := d.readManifest("file", info); ok {
			require.Equal(t, want, got, "%s %d", what, at)
			require.Len(t, damaged, len(text))
		}
		d.cleanManifest(manifestPath("file"))
	}
	for n := range len(text) {
		check(text[:n], "prefix of", n)
	}
	for bit := range len(text) * 8 {
		damaged := bytes.Clone(text)
		damaged[bit/8] ^= 1 << (bit % 8)
		check(damaged, "bit", bit)
	}
}

func FuzzReadJournal(f *testing.F) {
	text, _, _, ends := faultJournal(3)
	f.Add(text)
	f.Add(text[:ends[1]+20])
	f.Add(append(bytes.Clone(text), text[ends[0]:]...)) // records that go back
	f.Add([]byte{})
	f.Add([]byte("00000000 {}\n"))
	f.Add(append(bytes.Clone(text[:ends[0]]), appendLine(nil, record{Offset: -1})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, entries, headerEnd, ok := readJournal(bytes.NewReader(b))
		if !ok {
			if len(entries) > 0 || headerEnd != 0 || h != (header{}) {
				t.Fatal("not ok, but there is something")
			}
			return
		}
		if h.Name == "" || h.Part == "" || headerEnd <= 0 || headerEnd > int64(len(b)) {
			t.Fatalf("header %+v, end %d of %d", h, headerEnd, len(b))
		}
		offset, end := int64(0), headerEnd
		for i, e := range entries {
			if e.Offset <= offset || e.end <= end || e.end > int64(len(b)) || b[e.end-1] != '\n' {
				t.Fatalf("record %d: %+v after offset %d, end %d of %d", i, e, offset, end, len(b))
			}
			offset, end = e.Offset, e.end
		}
	})
}
