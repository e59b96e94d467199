// Videos: what a stand-in for YouTube gets, and what goes wrong on the way.

package sink_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/daemon/sink/youtubetest"
	"github.com/sbcast/sbcast/protocol"
)

const unit = youtubetest.Unit

var youtubeSeed = flag.Uint64("youtube.seed", 0, "seed of the test of random faults of YouTube; 0: a random one, which is printed")

// tube is a stand-in and a reader that uploads to it.
type tube struct {
	*youtubetest.Server
	t     *testing.T
	url   string
	state string
	opts  sink.YouTubeOptions
	last  io.Closer
}

func newTube(t *testing.T) *tube {
	t.Helper()
	s := youtubetest.New()
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	tb := &tube{Server: s, t: t, url: web.URL, state: t.TempDir()}
	tb.opts.Token = filepath.Join(t.TempDir(), "token.json")
	tb.opts.Piece = 4 * unit
	tb.opts.Patience = patience
	tb.login()
	return tb
}

// login stores a good token.
func (tb *tube) login() {
	access, refresh := tb.Grant()
	token := sink.YouTubeToken{
		ClientID: youtubetest.ClientID, ClientSecret: youtubetest.Secret(), TokenURL: tb.url + "/token",
		Access: access, Refresh: refresh, Expiry: time.Now().Add(time.Hour),
	}
	require.NoError(tb.t, token.Save(tb.opts.Token))
}

// open is a reader that has just been started.
func (tb *tube) open() sink.Store {
	tb.t.Helper()
	if tb.last != nil { // a process that ended
		require.NoError(tb.t, tb.last.Close())
	}
	store, err := sink.Open("youtube:?endpoint="+tb.url, sink.Options{YouTube: tb.opts, State: tb.state})
	require.NoError(tb.t, err)
	tb.last = store.(io.Closer)
	return store
}

func film(size int) []byte {
	b := make([]byte, size)
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

func shot(content []byte) *protocol.Offer {
	o := offer("holiday.mp4", int64(len(content)))
	o.Fingerprint = "fingerprint of holiday.mp4"
	return o
}

// push does what a Leaf does, from the beginning to the receipt.
func (tb *tube) push(store sink.Store, o *protocol.Offer, content []byte) (sink.Published, sink.Have, error) {
	tb.t.Helper()
	f, have, err := store.Create(tb.t.Context(), request(o))
	if err != nil {
		return sink.Published{}, have, err
	}
	p, err := finish(tb.t, f, have, o.Digest, content)
	return p, have, err
}

func finish(t *testing.T, f sink.File, have sink.Have, alg protocol.DigestAlg, content []byte) (p sink.Published, err error) {
	t.Helper()
	if err = send(f, content[have.Offset:]); err == nil {
		err = f.Stage(t.Context(), digest(alg, content))
	}
	if err == nil {
		p, err = f.Publish(t.Context())
	}
	if err != nil {
		f.Discard(true)
	}
	return p, err
}

func send(f sink.File, content []byte) error {
	for len(content) > 0 {
		n, err := f.Write(content[:min(len(content), 100_000)])
		if err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

// awaitAsk waits until the service is asked what it has, as after a loss.
func (tb *tube) awaitAsk() {
	tb.t.Helper()
	require.Eventually(tb.t, func() bool {
		return strings.Contains(strings.Join(tb.Requests(), "\n"), "ask")
	}, patience, 5*time.Millisecond, "waited in vain for the fault")
}

// assertVideos checks what was uploaded.
func (tb *tube) assertVideos(contents ...[]byte) {
	tb.t.Helper()
	var want, got []string
	for _, c := range contents {
		sum := sha256.Sum256(c)
		want = append(want, hex.EncodeToString(sum[:]))
	}
	for _, v := range tb.Videos() {
		got = append(got, v.SHA256)
	}
	assert.Equal(tb.t, want, got)
	assert.Zero(tb.t, tb.Open(), "sessions are left open")
}

func TestYouTubeUploads(t *testing.T) {
	for _, size := range []int{1, unit - 1, unit, unit + 1, 2 * unit, 7*unit + 5, 16 * unit, 20*unit + 1} {
		for _, known := range []bool{true, false} {
			tb := newTube(t)
			content := film(size)
			o := shot(content)
			if !known {
				o.Size = -1
			}
			p, have, err := tb.push(tb.open(), o, content)
			require.NoError(t, err)
			assert.Equal(t, sink.Have{ByCRC: true}, have)
			tb.assertVideos(content)
			assert.Equal(t, "https://youtu.be/"+tb.Videos()[0].ID, p.Location)
			assert.Equal(t, "holiday.mp4", tb.Videos()[0].Title)
			assert.Equal(t, "private", tb.Videos()[0].Privacy)
		}
	}
}

func TestYouTubeMetadata(t *testing.T) {
	tb := newTube(t)
	tb.opts.Title, tb.opts.Description = "Our {name}", "{name}, sent by a machine"
	tb.opts.Privacy, tb.opts.Tags, tb.opts.Category = "unlisted", []string{"a", "b c"}, "22"
	_, _, err := tb.push(tb.open(), shot([]byte("x")), []byte("x"))
	require.NoError(t, err)
	v := tb.Videos()[0]
	v.ID, v.SHA256 = "", ""
	assert.Equal(t, youtubetest.Video{
		Title: "Our holiday.mp4", Description: "holiday.mp4, sent by a machine", Tags: []string{"a", "b c"}, CategoryID: "22",
		Privacy: "unlisted", Size: 1,
	}, v)
}

// Nothing is a video before the commit, and what is given up never is.
func TestYouTubeWholeOrAbsent(t *testing.T) {
	for _, keep := range []bool{false, true} {
		for _, size := range []int{1, unit, 9*unit + 1} {
			tb := newTube(t)
			content := film(size)
			f, _, err := tb.open().Create(t.Context(), request(shot(content)))
			require.NoError(t, err)
			require.NoError(t, send(f, content))
			require.NoError(t, f.Stage(t.Context(), digest(protocol.DigestXXH128, content)))
			assert.Empty(t, tb.Videos())
			assert.Equal(t, 1, tb.Open())
			f.Discard(keep)
			assert.Empty(t, tb.Videos())
			if !keep {
				assert.Zero(t, tb.Open(), "the session was not cancelled")
			}
		}
	}
}

// Who only asks whether a file would be taken spends none of the quota.
func TestYouTubeWithoutContentAsksNothing(t *testing.T) {
	tb := newTube(t)
	f, _, err := tb.open().Create(t.Context(), request(shot([]byte("x"))))
	require.NoError(t, err)
	f.Discard(false)
	assert.Empty(t, tb.Requests())
}

func TestYouTubeGoesOnAfterFaults(t *testing.T) {
	content := film(9*unit + 77)
	for name, faults := range map[string][]youtubetest.Fault{
		"start busy":               {{On: youtubetest.Start, Status: 503}, {On: youtubetest.Start, Status: 429, After: "1"}},
		"start lost":               {{On: youtubetest.Start, Lose: true}},
		"rate":                     {{On: youtubetest.Start, Status: 403, Reason: "rateLimitExceeded"}},
		"piece busy":               {{On: youtubetest.Piece, Status: 500}, {On: youtubetest.Ask, Status: 502}, {On: youtubetest.Piece, Status: 503}},
		"answer to a piece lost":   {{On: youtubetest.Piece, Lose: true}, {On: youtubetest.Ask, Lose: true}},
		"piece cut":                {{On: youtubetest.Piece}, {On: youtubetest.Piece, Cut: unit + 1}},
		"piece cut at its start":   {{On: youtubetest.Piece, Cut: 1}},
		"piece taken in part":      {{On: youtubetest.Piece}, {On: youtubetest.Piece, Short: unit}},
		"token expired":            {{On: youtubetest.Piece, Status: 401}},
		"token, at first not made": {{On: youtubetest.Piece, Status: 401}, {On: youtubetest.Token, Status: 503}},
		"last piece busy":          {{On: youtubetest.Piece}, {On: youtubetest.Piece}, {On: youtubetest.Piece}, {On: youtubetest.Piece}, {On: youtubetest.Piece, Status: 503}},
		"last answer lost":         {{On: youtubetest.Piece}, {On: youtubetest.Piece}, {On: youtubetest.Piece}, {On: youtubetest.Piece}, {On: youtubetest.Piece, Lose: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tb := newTube(t)
			tb.Fail(faults...)
			_, _, err := tb.push(tb.open(), shot(content), content)
			require.NoError(t, err)
			if strings.Contains(name, "start lost") { // nobody knows that one, it expires
				assert.Len(t, tb.Videos(), 1)
				return
			}
			tb.assertVideos(content)
			assert.Zero(t, tb.Pending(), "a fault did not come about: %q", tb.Requests())
		})
	}
}

func TestYouTubeFailures(t *testing.T) {
	for name, tt := range map[string]struct {
		fault youtubetest.Fault
		code  protocol.Code
		text  string
	}{
		"quota":       {youtubetest.Fault{On: youtubetest.Start, Status: 403, Reason: "quotaExceeded"}, protocol.CodeNoSpace, "daily quota of the Google project is used up"},
		"uploads":     {youtubetest.Fault{On: youtubetest.Start, Status: 400, Reason: "uploadLimitExceeded"}, protocol.CodeNoSpace, "may not upload more videos now"},
		"no channel":  {youtubetest.Fault{On: youtubetest.Start, Status: 401, Reason: "youtubeSignupRequired"}, protocol.CodeDenied, "no channel"},
		"forbidden":   {youtubetest.Fault{On: youtubetest.Start, Status: 403, Reason: "forbidden"}, protocol.CodeDenied, "403 forbidden"},
		"metadata":    {youtubetest.Fault{On: youtubetest.Start, Status: 400, Reason: "invalidTitle"}, protocol.CodeIO, "400 invalidTitle"},
		"no such API": {youtubetest.Fault{On: youtubetest.Start, Status: 404}, protocol.CodeIO, "no upload service"},
		"refused":     {youtubetest.Fault{On: youtubetest.Piece, Status: 400, Reason: "badRequest"}, protocol.CodeIO, "400 badRequest"},
		"expired":     {youtubetest.Fault{On: youtubetest.Piece, Forget: true}, protocol.CodeTruncated, "must begin again"},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTube(t)
			tb.Fail(tt.fault, tt.fault)
			content := film(3 * unit)
			_, _, err := tb.push(tb.open(), shot(content), content)
			assertCode(t, tt.code, err)
			require.ErrorContains(t, err, tt.text)
			assert.NotRegexp(t, "upload_id|access-|refresh-", err.Error(), "a secret")
			assert.Empty(t, tb.Videos())
		})
	}
}

func TestYouTubeGivesUpAfterPatience(t *testing.T) {
	tb := newTube(t)
	tb.opts.Patience = 300 * time.Millisecond
	for range 50 {
		tb.Fail(youtubetest.Fault{On: youtubetest.Piece, Status: 503})
	}
	content := film(3 * unit)
	_, _, err := tb.push(tb.open(), shot(content), content)
	assertCode(t, protocol.CodeBusy, err)
	require.ErrorContains(t, err, "503")
	assert.Equal(t, 1, tb.Open(), "the session is kept for another try")
}

func TestYouTubeTokens(t *testing.T) {
	content := film(3 * unit)
	t.Run("renewed, with another refresh token", func(t *testing.T) {
		tb := newTube(t)
		tb.Rotate()
		for _, id := range []string{"1", "2", "3"} { // each a reader that was started again, with what the last one stored
			tb.Expire(false)
			o := shot(content)
			o.Force, o.ID = true, id
			_, _, err := tb.push(tb.open(), o, content)
			require.NoError(t, err)
		}
		assert.Len(t, tb.Videos(), 3)
		if runtime.GOOS != "windows" {
			info, err := os.Stat(tb.opts.Token)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		}
	})
	t.Run("withdrawn", func(t *testing.T) {
		tb := newTube(t)
		tb.Expire(true)
		_, _, err := tb.push(tb.open(), shot(content), content)
		assertCode(t, protocol.CodeDenied, err)
		require.ErrorContains(t, err, `"invalid_grant": it was withdrawn or has expired, run sbcast youtube login again`)
	})
	t.Run("bad files", func(t *testing.T) {
		tb := newTube(t)
		open := func() error {
			_, err := sink.Open("youtube:", sink.Options{YouTube: tb.opts})
			return err
		}
		require.NoError(t, open())
		if runtime.GOOS != "windows" {
			require.NoError(t, os.Chmod(tb.opts.Token, 0o640))
			require.ErrorContains(t, open(), "chmod 600")
			require.NoError(t, os.Chmod(tb.opts.Token, 0o600))
		}
		require.NoError(t, os.WriteFile(tb.opts.Token, []byte("{}"), 0o600))
		require.ErrorContains(t, open(), "holds no token")
		require.NoError(t, os.Remove(tb.opts.Token))
		require.ErrorContains(t, open(), "run sbcast youtube login")
	})
}

// The same push again finds the video; --force makes another.
func TestYouTubeAgain(t *testing.T) {
	tb := newTube(t)
	content := film(2 * unit)
	first, _, err := tb.push(tb.open(), shot(content), content)
	require.NoError(t, err)
	store := tb.open()
	p, have, err := tb.push(store, shot(content), content)
	require.NoError(t, err)
	assert.Equal(t, sink.Have{Offset: 2 * unit, Published: true, Digest: digest(protocol.DigestXXH128, content)}, have)
	assert.Equal(t, sink.Published{Location: first.Location, Unchanged: true}, p)
	tb.assertVideos(content)

	o := shot(content)
	o.Force, o.ID = true, "0197-another"
	for _, again := range []bool{false, true} { // that its receipt was lost makes no third one
		p, _, err = tb.push(store, o, content)
		require.NoError(t, err)
		assert.Equal(t, again, p.Unchanged)
	}
	changed := film(unit)
	o = shot(changed)
	o.Fingerprint = "another"
	_, _, err = tb.push(store, o, changed)
	require.NoError(t, err)
	tb.assertVideos(content, content, changed)
}

// A reader that is started again goes on from what the service has, wherever it stopped.
func TestYouTubeResumes(t *testing.T) {
	content := film(14*unit + 3)
	for name, tt := range map[string]struct {
		stop  int // bytes that come before the end of the first reader
		stage bool
		fault youtubetest.Fault
		from  int64 // where the second goes on
		note  string
		alg   protocol.DigestAlg
	}{
		"before the first piece": {stop: unit, from: 0},
		"after some":             {stop: 8 * unit, from: 7 * unit},
		"in a piece":             {stop: 8 * unit, fault: youtubetest.Fault{On: youtubetest.Piece, Cut: 3*unit + 5}, from: 6 * unit},
		"staged":                 {stop: len(content), stage: true, from: 14 * unit},
		"no digest":              {stop: 8 * unit, from: 7 * unit, alg: protocol.DigestNone},
		"digest that cannot":     {stop: 8 * unit, from: 0, alg: protocol.DigestSHA256, note: "checked by sha256"},
		"session expired":        {stop: 8 * unit, from: 0, fault: youtubetest.Fault{On: youtubetest.Ask, Forget: true}, note: "has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTube(t)
			o := shot(content)
			if tt.alg != "" {
				o.Digest = tt.alg
			}
			ctx, cancel := context.WithCancel(t.Context())
			f, _, err := tb.open().Create(ctx, request(o))
			require.NoError(t, err)
			switch tt.fault.On {
			case youtubetest.Piece:
				require.NoError(t, send(f, content[:4*unit])) // two pieces: 1 and 2 units
				tb.Fail(tt.fault)
				for range 1000 { // for as long as it tries, which the end of its life ends
					tb.Fail(youtubetest.Fault{On: youtubetest.Ask, Status: 503})
				}
				stopped := make(chan error, 1)
				go func() { stopped <- send(f, content[4*unit:tt.stop]) }()
				tb.awaitAsk()
				cancel()
				require.Error(t, receive(t, stopped, "the end of Write"))
				tb.Heal()
			default:
				require.NoError(t, send(f, content[:tt.stop]))
				tb.Fail(tt.fault)
			}
			if tt.stage {
				require.NoError(t, f.Stage(t.Context(), digest(o.Digest, content)))
			}
			cancel()
			f.Discard(true)

			p, have, err := tb.push(tb.open(), o, content)
			require.NoError(t, err)
			assert.Equal(t, tt.from, have.Offset)
			assert.True(t, have.ByCRC)
			assert.Contains(t, have.Note, tt.note)
			assertCRC(t, have, content)
			assert.False(t, p.Unchanged)
			assert.Len(t, tb.Videos(), 1)
			sum := sha256.Sum256(content)
			assert.Equal(t, hex.EncodeToString(sum[:]), tb.Videos()[0].SHA256)
		})
	}
}

// The answer to the last piece is lost, and so is the reader.
func TestYouTubeCommitIsFoundAgain(t *testing.T) {
	for _, alg := range []protocol.DigestAlg{protocol.DigestXXH128, protocol.DigestSHA256} {
		t.Run(string(alg), func(t *testing.T) { testCommitIsFoundAgain(t, alg) })
	}
}

func testCommitIsFoundAgain(t *testing.T, alg protocol.DigestAlg) {
	tb := newTube(t)
	content := film(5*unit + 3)
	o := shot(content)
	o.Digest = alg
	f, _, err := tb.open().Create(t.Context(), request(o))
	require.NoError(t, err)
	require.NoError(t, send(f, content))
	require.NoError(t, f.Stage(t.Context(), digest(alg, content)))
	tb.Fail(youtubetest.Fault{On: youtubetest.Piece, Lose: true})
	for range 1000 {
		tb.Fail(youtubetest.Fault{On: youtubetest.Ask, Status: 503})
	}
	ctx, cancel := context.WithCancel(t.Context())
	published := make(chan error, 1)
	go func() {
		_, err := f.Publish(ctx)
		published <- err
	}()
	tb.awaitAsk()
	cancel()
	require.Error(t, receive(t, published, "the end of Publish"))
	f.Discard(true)
	tb.Heal()

	p, have, err := tb.push(tb.open(), o, content)
	require.NoError(t, err)
	assert.True(t, have.Published)
	assert.Equal(t, digest(alg, content), have.Digest)
	assert.Equal(t, sink.Published{Location: "https://youtu.be/" + tb.Videos()[0].ID, Unchanged: true}, p)
	tb.assertVideos(content)
}

// Content that is shorter now, and ends just where the service is, leaves
// nothing to send at the commit: that would be no video, and said to be one.
func TestYouTubeEndsWhereItGoesOn(t *testing.T) {
	tb := newTube(t)
	o := shot(nil)
	o.Size = -1
	f, _, err := tb.open().Create(t.Context(), request(o))
	require.NoError(t, err)
	require.NoError(t, send(f, film(8*unit)))
	f.Discard(true)
	content := film(7 * unit)
	_, have, err := tb.push(tb.open(), o, content)
	assert.EqualValues(t, len(content), have.Offset)
	assertCode(t, protocol.CodeTruncated, err)
	_, _, err = tb.push(tb.open(), o, content)
	require.NoError(t, err)
	tb.assertVideos(content)
}

// A record that says more than the service has, or something else, costs a
// start from the beginning, and never a wrong byte.
func TestYouTubeRecordThatDoesNotFit(t *testing.T) {
	tb := newTube(t)
	content := film(9 * unit)
	f, _, err := tb.open().Create(t.Context(), request(shot(content)))
	require.NoError(t, err)
	require.NoError(t, send(f, content[:4*unit]))
	old := map[string][]byte{}
	require.NoError(t, filepath.WalkDir(tb.state, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			old[path], err = os.ReadFile(path)
		}
		return err
	}))
	require.NotEmpty(t, old)
	require.NoError(t, send(f, content[4*unit:]))
	f.Discard(true)
	for path, b := range old {
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
	_, have, err := tb.push(tb.open(), shot(content), content)
	require.NoError(t, err)
	assert.Zero(t, have.Offset)
	assert.Contains(t, have.Note, "starts again")
	tb.assertVideos(content)
}

// Whatever goes wrong, and whenever the reader is started again: in the end
// there is one video, of the very bytes.
func TestYouTubeRandomFaults(t *testing.T) {
	seed := *youtubeSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for round := range 12 {
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d (-youtube.seed repeats it)", seed)
			r := rand.New(rand.NewPCG(seed, uint64(round)))
			tb := newTube(t)
			content := film(1 + r.IntN(12*unit))
			o := shot(content)
			if r.IntN(2) == 0 {
				o.Size = -1
			}
			steps := []string{youtubetest.Start, youtubetest.Piece, youtubetest.Piece, youtubetest.Piece, youtubetest.Ask}
			for range r.IntN(6) {
				f := youtubetest.Fault{On: steps[r.IntN(len(steps))]}
				switch r.IntN(5) {
				case 0:
					f.Status = []int{500, 503, 429}[r.IntN(3)]
				case 1:
					f.Lose = true
				case 2:
					f.Cut = 1 + r.Int64N(4*unit)
				case 3:
					f.Short = unit * (1 + r.Int64N(3))
				default: // all is well for once
				}
				tb.Fail(f)
			}
			for range r.IntN(4) { // readers that are killed before the commit
				f, have, err := tb.open().Create(t.Context(), request(o))
				require.NoError(t, err)
				assertCRC(t, have, content)
				require.NoError(t, send(f, content[have.Offset:have.Offset+r.Int64N(int64(len(content))-have.Offset+1)]))
				f.Discard(true)
			}
			_, have, err := tb.push(tb.open(), o, content)
			require.NoError(t, err)
			assertCRC(t, have, content)
			require.Len(t, tb.Videos(), 1, "%q", tb.Requests())
			sum := sha256.Sum256(content)
			assert.Equal(t, hex.EncodeToString(sum[:]), tb.Videos()[0].SHA256)
		})
	}
}

// assertCRC checks what a resumed file says of the content that it has.
func assertCRC(t *testing.T, have sink.Have, content []byte) {
	t.Helper()
	h := protocol.NewHasher(protocol.DigestNone)
	h.AddCRC(0)
	_, _ = h.Write(content[:have.Offset])
	assert.Equal(t, *h.CRC(), have.CRC)
}

func TestYouTubeRefuses(t *testing.T) {
	tb := newTube(t)
	store := tb.open()
	_, _, err := store.Create(t.Context(), request(shot(nil)))
	assertCode(t, protocol.CodeUnsupported, err)
	require.ErrorContains(t, err, "is empty")
	_, _, err = tb.push(store, offer("pipe", -1), nil)
	assertCode(t, protocol.CodeUnsupported, err)
	_, _, err = store.Create(t.Context(), request(offer(strings.Repeat("x", 101), 1)))
	assertCode(t, protocol.CodeName, err)
	require.ErrorContains(t, err, "101 characters")
	_, _, err = store.Create(t.Context(), request(offer("a<b", 1)))
	assertCode(t, protocol.CodeName, err)

	var files []sink.File
	for _, name := range []string{"1", "2", "3", "4"} {
		f, _, err := store.Create(t.Context(), request(offer(name, 1)))
		require.NoError(t, err)
		files = append(files, f)
	}
	_, _, err = store.Create(t.Context(), request(offer("1", 1)))
	assertCode(t, protocol.CodeConflict, err)
	_, _, err = store.Create(t.Context(), request(offer("5", 1)))
	assertCode(t, protocol.CodeBusy, err)
	for _, f := range files {
		f.Discard(false)
	}
	_, _, err = tb.push(store, offer("5", 1), []byte("x"))
	require.NoError(t, err)
}

func TestYouTubeBadOptions(t *testing.T) {
	tb := newTube(t)
	for spec, text := range map[string]string{
		"youtube:channel":                             "want youtube:",
		"youtube:?title=x":                            "--youtube-title",
		"youtube:?endpoint=http://example.org":        "want https, or this machine",
		"youtube:?endpoint=nowhere":                   "not the URL",
		"youtube:?endpoint=https://user:pw@localhost": "not the URL",
	} {
		_, err := sink.Open(spec, sink.Options{YouTube: tb.opts})
		require.ErrorContains(t, err, text, spec)
	}
	bad := tb.opts
	bad.Privacy = "secret"
	_, err := sink.Open("youtube:", sink.Options{YouTube: bad})
	require.ErrorContains(t, err, "private, unlisted or public")
	bad = tb.opts
	bad.Piece = unit + 1
	_, err = sink.Open("youtube:", sink.Options{YouTube: bad})
	require.ErrorContains(t, err, "multiple of 256K")
}

// Pieces go as the documentation wants them: in order, in whole units, and the last alone with the end.
func TestYouTubePieces(t *testing.T) {
	tb := newTube(t)
	content := film(10*unit + 1)
	_, _, err := tb.push(tb.open(), shot(content), content)
	require.NoError(t, err)
	var pieces []string
	for _, r := range tb.Requests() {
		if text, ok := strings.CutPrefix(r, "piece bytes "); ok {
			pieces = append(pieces, text)
		}
	}
	assert.Equal(t, []string{"0-262143/2621441", "262144-786431/2621441", "786432-1835007/2621441", "1835008-2621439/2621441", "2621440-2621440/2621441"}, pieces)
	assert.Equal(t, "start", tb.Requests()[0])
}
