// Tapes: what one end of a session said, recorded, spoilt and played again.

package faults_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"net"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Sizes of the two framings, and smux's command for content (docs/protocol.md).
const (
	frameHeader, frameCheck = 8, 4
	muxHeader, muxContent   = 8, 2
)

// cue is a message that whoever plays the other part of a session waits for.
// What else is said, acks and progress, is not the same in each run.
var cue = regexp.MustCompile(`"attempt":|"max_chunk":|"size":\d+,"digest"|"state":"ready"|"status":|\x0a\x00\x00\x00\{\}`)

// line is a Hello, or one of smux's frames.
type line struct {
	raw   []byte
	cues  int // of the other end that came before it
	bytes int // so did so many bytes
}

// tape is one end's part of a session.
type tape []line

// recorder passes connections on to a daemon, and records the first.
type recorder struct {
	*proxy
	mu    sync.Mutex
	heard [2][]byte // down and up
	marks [2][]int  // by byte: how much the other end had said
}

// recording is what a client (up) and a daemon say to each other while push runs.
func recording(t *testing.T, to string, push func(addr string)) (up, down tape) {
	t.Helper()
	r := &recorder{proxy: &proxy{ln: listen(t), to: to, conns: map[net.Conn]bool{}}}
	r.tap = func(b []byte, up bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		way := 0
		if up {
			way = 1
		}
		r.heard[way] = append(r.heard[way], b...)
		for range b {
			r.marks[way] = append(r.marks[way], len(r.heard[1-way]))
		}
	}
	r.work.Go(r.serve)
	push(r.addr())
	r.close()
	return r.cut(t, 1), r.cut(t, 0)
}

// cut makes the lines of what went one way.
func (r *recorder) cut(t *testing.T, way int) (all tape) {
	t.Helper()
	said, other := r.heard[way], r.heard[1-way]
	for at := 0; at < len(said); {
		n := muxHeader
		if at == 0 {
			n = frameHeader + int(binary.BigEndian.Uint32(said)) + frameCheck
		} else {
			require.GreaterOrEqual(t, len(said), at+n)
			n += int(binary.LittleEndian.Uint16(said[at+2:]))
		}
		require.GreaterOrEqual(t, len(said), at+n, "a whole session was recorded")
		before := r.marks[way][at+n-1]
		all = append(all, line{raw: said[at : at+n], cues: len(cue.FindAll(other[:before], -1)), bytes: before})
		at += n
	}
	return all
}

// clone is a copy with old replaced by its like in all of it.
func (t tape) clone(old, its []byte) tape {
	all := make(tape, len(t))
	for i, l := range t {
		l.raw = bytes.Clone(l.raw)
		if len(old) > 0 {
			l.raw = bytes.ReplaceAll(l.raw, old, its)
			l.mend()
		}
		all[i] = l
	}
	return all
}

// frames are the whole frames in a line, and at the front what is before them.
func (l line) frames() (all [][]byte) {
	rest := l.raw
	if len(rest) > muxHeader && rest[0] == 2 && rest[1] == muxContent {
		rest = rest[muxHeader:]
	}
	for len(rest) >= frameHeader+frameCheck {
		n := int64(binary.BigEndian.Uint32(rest)) + frameHeader + frameCheck
		if n > int64(len(rest)) {
			break
		}
		all = append(all, rest[:n])
		rest = rest[n:]
	}
	return all
}

// mend gives frames the checks they should have: what is changed on purpose is to
// get past them.
func (l line) mend() {
	for _, f := range l.frames() {
		end := len(f) - frameCheck
		binary.BigEndian.PutUint32(f[end:], crc32.Checksum(f[:end], crc32.MakeTable(crc32.Castagnoli)))
	}
}

var number = regexp.MustCompile(`\d+`)

// odd are values that limits are made for.
var odd = []uint64{0, 1, 2, 7, 255, 256, 4095, 65535, 65536, 1 << 20, 4<<20 + 1, 1<<31 - 1, 1 << 31, math.MaxUint32, 1 << 40, math.MaxInt64, math.MaxUint64}

// spoil changes t in one way, and says which. Others are what it can take lines from.
func (t tape) spoil(rng *rand.Rand, others tape) (tape, string) {
	i := rng.IntN(len(t))
	l := &t[i]
	if len(l.raw) == 0 { // cut off by an earlier change
		l.raw = []byte{0}
	}
	switch way := rng.IntN(9); way {
	case 0:
		at := rng.IntN(len(l.raw))
		l.raw[at] ^= 1 << rng.IntN(8)
		return t, fmt.Sprintf("bit flip in line %d at %d", i, at)
	case 1:
		at := rng.IntN(len(l.raw))
		l.raw = l.raw[:at]
		return t[:i+1], fmt.Sprintf("cut in line %d at %d", i, at)
	case 2:
		again := append(t[:i+1:i+1], t[i:]...)
		return again, fmt.Sprintf("line %d twice", i)
	case 3:
		j := rng.IntN(len(t))
		t[i], t[j] = t[j], t[i]
		return t, fmt.Sprintf("lines %d and %d swapped", i, j)
	case 4:
		j := rng.IntN(len(others))
		with := append(append(t[:i:i], others[j]), t[i:]...)
		return with, fmt.Sprintf("line %d of another session before line %d", j, i)
	case 5: // a number of a message, or of a chunk's header
		frames := l.frames()
		if len(frames) == 0 {
			break
		}
		f := frames[rng.IntN(len(frames))]
		payload := f[frameHeader : len(f)-frameCheck]
		v := odd[rng.IntN(len(odd))]
		if found := number.FindAllIndex(payload[:min(len(payload), 4096)], -1); len(payload) > 0 && payload[0] == '{' && len(found) > 0 {
			at := found[rng.IntN(len(found))]
			text := fmt.Sprintf("%0*d", at[1]-at[0], v)
			if rng.IntN(4) == 0 {
				text = "-" + text
			}
			l.splice(f, at[0], at[1], text)
			return t, fmt.Sprintf("a number in line %d is %s", i, text)
		}
		if len(payload) >= 8 {
			at := rng.IntN(min(len(payload), 16) - 3)
			binary.BigEndian.PutUint32(payload[at:], uint32(v))
			l.mend()
			return t, fmt.Sprintf("%d in line %d at %d", uint32(v), i, at)
		}
	case 6: // a length or kind of a frame
		frames := l.frames()
		if len(frames) == 0 {
			break
		}
		f := frames[rng.IntN(len(frames))]
		if rng.IntN(2) == 0 {
			f[4] = byte(rng.IntN(20))
			l.mend()
			return t, fmt.Sprintf("a frame of line %d has kind %d", i, f[4])
		}
		v := uint32(odd[rng.IntN(len(odd))])
		binary.BigEndian.PutUint32(f, v)
		return t, fmt.Sprintf("a frame of line %d says %d bytes", i, v)
	case 7: // smux's header
		if i == 0 || len(l.raw) < muxHeader {
			break
		}
		at := rng.IntN(muxHeader)
		l.raw[at] = byte(rng.IntN(10))
		return t, fmt.Sprintf("smux header of line %d has %d at %d", i, l.raw[at], at)
	case 8: // a frame that smux knows and nobody asked for
		h := []byte{2, byte(rng.IntN(6)), 0, 0, byte(rng.IntN(8)), 0, 0, 0}
		if rng.IntN(3) == 0 {
			h[2] = 8
			h = append(h, make([]byte, 8)...)
		}
		with := append(append(t[:i+1:i+1], line{raw: h, cues: l.cues, bytes: l.bytes}), t[i+1:]...)
		return with, fmt.Sprintf("smux frame %v behind line %d", h, i)
	}
	l.raw = append(l.raw, 0)
	return t, fmt.Sprintf("one byte more in line %d", i)
}

// splice puts text in place of a part of the payload of f, which is a part of
// l, and makes all lengths and checks right again.
func (l *line) splice(f []byte, from, to int, text string) {
	begin := bytes.Index(l.raw, f)
	at := begin + frameHeader
	l.raw = append(append(bytes.Clone(l.raw[:at+from]), text...), l.raw[at+to:]...)
	more := len(text) - (to - from)
	binary.BigEndian.PutUint32(l.raw[begin:], uint32(len(f)-frameHeader-frameCheck+more))
	if begin == muxHeader || begin > muxHeader {
		binary.LittleEndian.PutUint16(l.raw[2:], uint16(len(l.raw)-muxHeader))
	}
	l.mend()
}

// cueWait is how long a line waits for what came before it when it was
// recorded: with a tape that is spoilt, that may never come.
const cueWait = 150 * time.Millisecond

// play says what is on the tape, and hears the other end out. Exact waits for
// as many bytes as had come, not only for cues.
func (t tape) play(conn net.Conn, exact bool) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var mu sync.Mutex
	var heard []byte
	news, gone := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(gone)
		b := make([]byte, 32*kib)
		for {
			n, err := conn.Read(b)
			mu.Lock()
			heard = append(heard, b[:n]...)
			mu.Unlock()
			select {
			case news <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() { conn.Close(); <-gone }()
	missed := false
	for _, l := range t {
		late := time.NewTimer(cueWait)
		for waiting := !missed; waiting; {
			mu.Lock()
			waiting = len(cue.FindAll(heard, -1)) < l.cues || exact && len(heard) < l.bytes
			mu.Unlock()
			if !waiting {
				break
			}
			select {
			case <-news:
			case <-gone:
				return
			case <-late.C:
				missed, waiting = true, false // the rest comes in one go
			}
		}
		late.Stop()
		if _, err := conn.Write(l.raw); err != nil {
			break
		}
	}
	select { // what is left to hear, such as the answer to the last line
	case <-gone:
	case <-time.After(cueWait):
	}
}
