// The dir store's notes on disk: what a part file holds, what was published.

package sink

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strconv"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// A journal is a text file of lines: the CRC32C of the rest in hex, a space,
// a JSON object. The first line is a header, the others are records. A line
// that is cut off or damaged ends the journal. The last step before a file gets
// its name is to add the manifest, and the last step of all gives the journal
// the manifest's name: a small file costs two new files, and none is removed.

// header says what a part file is a part of.
type header struct {
	Name   string    `json:"name"`
	Part   string    `json:"part"`   // where it is, beneath the root
	Source string    `json:"source"` // equal for equal content: see sourceKey
	Size   int64     `json:"size"`
	Begun  time.Time `json:"begun"`
}

// record says that the first Offset bytes of a part have digest Sum. Records
// are not synced: they are believed only when the part is read back and
// agrees.
type record struct {
	Offset int64           `json:"offset"`
	Sum    protocol.Digest `json:"sum"`
}

// journalStep is how much content comes between two records, and so the most
// that is sent again, beyond the window, after a reader was killed.
const journalStep = 1 << 20

// manifest says what was published under a name, and how to know that it is
// still there.
type manifest struct {
	Name   string          `json:"name"`
	Source string          `json:"source"`
	Digest protocol.Digest `json:"digest,omitempty"`
	Size   int64           `json:"size"`
	MTime  time.Time       `json:"mtime"` // of the file on disk
	When   time.Time       `json:"when"`

	Unsynced bool `json:"unsynced,omitempty"` // published with FsyncNever
}

// is reports whether target is still what m speaks of.
func (m *manifest) is(target fs.FileInfo) bool {
	return m.Size == target.Size() && m.MTime.Equal(target.ModTime())
}

// sourceKey identifies the content of an offer from one push to the next. The
// content of a pipe is known by its transfer alone.
func sourceKey(o *protocol.Offer) string {
	if o.Fingerprint == "" {
		return "transfer " + o.ID
	}
	return o.Fingerprint
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendLine appends v as a line.
func appendLine(b []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("sink: " + err.Error()) // plain structs
	}
	return fmt.Appendf(b, "%08x %s\n", crc32.Checksum(text, castagnoli), text)
}

// parseLine decodes a line, without its newline, and reports whether it is whole.
func parseLine(line []byte, v any) bool {
	sum, text, ok := bytes.Cut(line, []byte{' '})
	want, err := strconv.ParseUint(string(sum), 16, 32)
	return ok && err == nil && len(sum) == 8 && uint32(want) == crc32.Checksum(text, castagnoli) &&
		json.Unmarshal(text, v) == nil
}

// maxLine bounds a line: a name of 4096 bytes, escaped, and then some.
const maxLine = 64 << 10

// entry is a record and where its line ends in the journal.
type entry struct {
	record
	end int64
}

// readJournal reads what is good of a journal. ok is false when not even the
// header is.
func readJournal(r io.Reader) (h header, entries []entry, headerEnd int64, ok bool) {
	br := bufio.NewReaderSize(r, maxLine)
	var pos int64
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return h, entries, headerEnd, ok
		}
		pos += int64(len(line))
		line = line[:len(line)-1]
		if !ok {
			if !parseLine(line, &h) || h.Name == "" || h.Part == "" {
				return header{}, nil, 0, false
			}
			ok, headerEnd = true, pos
			continue
		}
		var e entry
		last := int64(0)
		if n := len(entries); n > 0 {
			last = entries[n-1].Offset
		}
		if !parseLine(line, &e.record) || e.Offset <= last {
			return h, entries, headerEnd, ok
		}
		e.end = pos
		entries = append(entries, e)
	}
}
