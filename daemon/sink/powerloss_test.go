// The dir store and power loss: every step of a store's life, any subset of
// what was not synced.

package sink

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

var (
	powerSeed   = flag.Uint64("power.seed", 0, "seed of TestPowerLoss; 0: a random one, which is printed")
	powerStates = flag.Int("power.states", 1000, "how many states TestPowerLoss looks at in each scenario, at least")
)

// errPowerResumed says that a store claims to have what it has not.
var errPowerResumed = errors.New("resumes")

// powerContent is content that is its own for each seed.
func powerContent(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func powerDigest(b []byte) protocol.Digest {
	h := protocol.NewHasher(protocol.DigestXXH128)
	_, _ = h.Write(b)
	return h.Digest()
}

// powerPush is a push, which can be done again and again.
type powerPush struct {
	name    string
	content []byte
	offer   protocol.Offer
}

func newPowerPush(name string, content []byte, change ...func(*protocol.Offer)) *powerPush {
	p := &powerPush{name: name, content: content}
	p.offer = protocol.Offer{
		ID: "one", Name: protocol.Name(name), Size: int64(len(content)), Fingerprint: string(powerDigest(content)), Digest: protocol.DigestXXH128,
	}
	for _, c := range change {
		c(&p.offer)
	}
	return p
}

// chunk is what one Write has at most: it divides neither pages nor steps of
// the journal.
func (p *powerPush) chunk() int64 {
	if len(p.content) > journalStep {
		return 300_000
	}
	return 9_000
}

func powerForce(o *protocol.Offer) { o.Force = true }

func powerPreserve(o *protocol.Offer) {
	o.Preserve, o.Mode, o.MTime = true, 0o640, time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
}

// powerAttempt is one attempt of a push at the File interface.
type powerAttempt struct {
	file  File
	have  Have
	taken int64 // bytes that the file has taken
}

// powerPrefix takes what a store says it has, and compares.
type powerPrefix struct {
	want  []byte
	n     int64
	wrong bool
}

func (p *powerPrefix) Write(b []byte) (int, error) {
	p.wrong = p.wrong || !bytes.HasPrefix(p.want[min(p.n, int64(len(p.want))):], b)
	p.n += int64(len(b))
	return len(b), nil
}

// create begins an attempt. What the store says it has must be so.
func (p *powerPush) create(d *Dir) (*powerAttempt, error) {
	a := &powerAttempt{}
	offer, prefix := p.offer, &powerPrefix{want: p.content}
	var err error
	a.file, a.have, err = d.Create(strictContext, Request{Offer: &offer, Prefix: prefix, Tell: func(string) {}})
	if err != nil {
		return nil, err
	}
	a.taken = a.have.Offset
	if !a.have.Published && (prefix.wrong || prefix.n != a.have.Offset) {
		a.file.Discard(true)
		return nil, fmt.Errorf("%w from %d bytes that are not the content's", errPowerResumed, a.have.Offset)
	}
	return a, nil
}

// write stores content up to end.
func (p *powerPush) write(a *powerAttempt, end int64) error {
	for a.taken < end {
		n, err := a.file.Write(p.content[a.taken:min(end, a.taken+p.chunk())])
		if err != nil {
			return err
		}
		a.taken += int64(n)
	}
	return nil
}

// run does the push, whole. A failed one is discarded as the Leaf does it.
func (p *powerPush) run(d *Dir) (have Have, err error) {
	a, err := p.create(d)
	if err != nil {
		return have, err
	}
	if err = p.write(a, int64(len(p.content))); err == nil {
		err = a.file.Stage(strictContext, powerDigest(p.content))
	}
	if err == nil {
		_, err = a.file.Publish(strictContext)
	}
	if err != nil {
		a.file.Discard(true)
	}
	return a.have, err
}

// powerTruth is what may be found under the name of the target.
type powerTruth struct {
	absent   bool
	anything bool     // what was there is not durable, by no fault of ours
	contents [][]byte // any of these, whole
}

func (w powerTruth) allows(disk *strictFS, name string) bool {
	return w.anything || w.absent && disk.holds(name, nil) ||
		slices.ContainsFunc(w.contents, func(c []byte) bool { return disk.holds(name, c) })
}

// powerLife is a life of a store on a disk whose every moment is kept.
type powerLife struct {
	*testing.T
	disk  *strictFS
	dir   *Dir
	fsync Fsync
}

func newPowerLife(t *testing.T, fsync Fsync) *powerLife {
	l := &powerLife{T: t, disk: newStrictFS(), fsync: fsync}
	l.disk.lent = true
	return l
}

// open is the start of a reader.
func (l *powerLife) open() {
	d, err := newDir("/power", l.disk, strictSame, DirOptions{Fsync: l.fsync})
	require.NoError(l, err)
	l.dir = d
}

// expect says what may be found from here on.
func (l *powerLife) expect(w powerTruth) {
	l.disk.watch = true
	l.disk.mark(w)
}

// begin starts an attempt and writes up to end.
func (l *powerLife) begin(p *powerPush, end int) *powerAttempt {
	a, err := p.create(l.dir)
	require.NoError(l, err)
	require.NoError(l, p.write(a, int64(end)))
	return a
}

// publish ends it; from then on the file is there for good.
func (l *powerLife) publish(p *powerPush, a *powerAttempt) {
	require.NoError(l, p.write(a, int64(len(p.content))))
	require.NoError(l, a.file.Stage(strictContext, powerDigest(p.content)))
	_, err := a.file.Publish(strictContext)
	require.NoError(l, err)
	l.expect(powerTruth{contents: [][]byte{p.content}})
}

// push does all of it, where content is wanted.
func (l *powerLife) push(p *powerPush) {
	a := l.begin(p, 0)
	l.publish(p, a)
}

// powerNew is the life in which p is pushed, whose name is free.
func powerNew(p *powerPush) func(l *powerLife) *powerPush {
	return func(l *powerLife) *powerPush {
		l.expect(powerTruth{absent: true, contents: [][]byte{p.content}})
		l.open()
		l.push(p)
		return p
	}
}

// powerScenarios are lives. Each ends with what the user does when the power
// is back: the same push again.
var powerScenarios = []struct {
	name    string
	resumes bool // there are states that a push goes on from
	run     func(l *powerLife) *powerPush
}{
	{"new", true, powerNew(newPowerPush("file", powerContent(1, 24_001)))},
	{"empty", false, powerNew(newPowerPush("file", []byte{}))},
	{"small", false, powerNew(newPowerPush("a/file", powerContent(40, 12_000)))},
	{"small, staged and given up", false, func(l *powerLife) *powerPush {
		p := newPowerPush("a/file", powerContent(41, 12_000))
		l.expect(powerTruth{absent: true})
		l.open()
		a := l.begin(p, 12_000)
		require.NoError(l, a.file.Stage(strictContext, powerDigest(p.content)))
		a.file.Discard(true)
		return p
	}},
	{"small, over an old file by force", false, func(l *powerLife) *powerPush {
		old := powerContent(42, 12_000)
		l.disk.put(l, "file", old, true)
		p := newPowerPush("file", powerContent(43, 12_000), powerForce)
		l.expect(powerTruth{contents: [][]byte{old, p.content}})
		l.open()
		l.push(p)
		return p
	}},
	{"small, unchanged", false, func(l *powerLife) *powerPush {
		p := newPowerPush("a/file", powerContent(44, 12_000))
		l.disk.put(l, p.name, p.content, true)
		l.expect(powerTruth{contents: [][]byte{p.content}})
		l.open()
		l.push(p)
		p.offer.Force = true
		l.push(p)
		return p
	}},
	{"of unknown size", false, powerNew(newPowerPush("file", powerContent(2, 24_000), func(o *protocol.Offer) { o.Size, o.Fingerprint = -1, "" }))},
	{"in a new directory", true, powerNew(newPowerPush("a/b/file", powerContent(3, 24_000)))},
	{"over an old file by force", true, func(l *powerLife) *powerPush {
		old := powerContent(4, 30_000)
		l.disk.put(l, "file", old, true)
		p := newPowerPush("file", powerContent(5, 24_000), powerForce)
		l.expect(powerTruth{contents: [][]byte{old, p.content}})
		l.open()
		l.push(p)
		return p
	}},
	{"over a file published before", true, func(l *powerLife) *powerPush {
		old := newPowerPush("file", powerContent(6, 21_000), powerPreserve)
		l.open()
		l.push(old)
		p := newPowerPush("file", powerContent(7, 21_000), powerForce, powerPreserve, func(o *protocol.Offer) { o.MTime = o.MTime.Add(time.Second) })
		l.expect(powerTruth{contents: [][]byte{old.content, p.content}})
		l.push(p)
		return p
	}},
	{"over a file of the same size and time", true, func(l *powerLife) *powerPush {
		old := newPowerPush("file", powerContent(8, 21_000), powerPreserve)
		l.open()
		l.push(old)
		p := newPowerPush("file", powerContent(9, 21_000), powerForce, powerPreserve)
		l.expect(powerTruth{contents: [][]byte{old.content, p.content}})
		l.push(p)
		return p
	}},
	{"resumed", true, func(l *powerLife) *powerPush {
		p := newPowerPush("file", powerContent(10, 1_100_000), powerPreserve)
		l.expect(powerTruth{absent: true, contents: [][]byte{p.content}})
		l.open()
		a := l.begin(p, 1_060_000)
		a.file.Discard(true)
		l.open()
		a = l.begin(p, 1_080_000)
		require.EqualValues(l, 1_060_000, a.have.Offset)
		a.file.Discard(true)
		a = l.begin(p, 0)
		l.publish(p, a)
		return p
	}},
	{"aborted and forgotten", false, func(l *powerLife) *powerPush {
		p := newPowerPush("file", powerContent(11, 24_000))
		l.expect(powerTruth{absent: true})
		l.open()
		l.begin(p, 20_000).file.Discard(false)
		a := l.begin(p, 24_000)
		require.NoError(l, a.file.Stage(strictContext, powerDigest(p.content)))
		a.file.Discard(false)
		return p
	}},
	{"aborted and kept", true, func(l *powerLife) *powerPush {
		p := newPowerPush("a/file", powerContent(12, 24_000))
		l.expect(powerTruth{absent: true})
		l.open()
		l.begin(p, 20_000).file.Discard(true)
		a := l.begin(p, 24_000)
		require.NoError(l, a.file.Stage(strictContext, powerDigest(p.content)))
		a.file.Discard(true)
		return p
	}},
	{"of another source in the middle", true, func(l *powerLife) *powerPush {
		first := newPowerPush("file", powerContent(13, 24_000))
		p := newPowerPush("file", powerContent(14, 24_000))
		l.expect(powerTruth{absent: true, contents: [][]byte{p.content}})
		l.open()
		l.begin(first, 20_000).file.Discard(true)
		l.push(p)
		return p
	}},
	{"unchanged by its content", false, func(l *powerLife) *powerPush {
		p := newPowerPush("a/file", powerContent(15, 24_000))
		l.disk.put(l, p.name, p.content, true)
		l.expect(powerTruth{contents: [][]byte{p.content}})
		l.open()
		l.push(p)
		l.push(p)
		return p
	}},
	{"unchanged by content that was not durable", false, func(l *powerLife) *powerPush {
		p := newPowerPush("a/file", powerContent(16, 24_000))
		l.disk.put(l, p.name, p.content, false)
		l.expect(powerTruth{anything: true})
		l.open()
		l.push(p)
		p.offer.Force = true // over what the power loss left of it
		return p
	}},
	{"unchanged by its manifest", false, func(l *powerLife) *powerPush {
		p := newPowerPush("a/file", powerContent(17, 20_000))
		l.open()
		l.push(p)
		l.open()
		l.push(p)
		return p
	}},
	{"after its sync failed", true, func(l *powerLife) *powerPush {
		p := newPowerPush("file", powerContent(18, 24_000))
		l.expect(powerTruth{absent: true, contents: [][]byte{p.content}})
		l.open()
		l.disk.fail = strictFailNth("sync", 0, strictEIO)
		_, err := p.run(l.dir)
		require.ErrorIs(l, err, strictEIO)
		l.push(p)
		return p
	}},
	{"after its directory's sync failed", true, func(l *powerLife) *powerPush {
		p := newPowerPush("a/file", powerContent(19, 24_000))
		l.expect(powerTruth{absent: true, contents: [][]byte{p.content}})
		l.open()
		l.disk.fail = strictFailNth("syncdir", 0, strictEIO)
		_, err := p.run(l.dir)
		require.ErrorIs(l, err, strictEIO)
		l.push(p)
		return p
	}},
}

// TestPowerLoss cuts the power after every operation of each life and lets the
// disk keep any subset of what was not synced. The name holds nothing, the old
// file or the new one; what was published is there; and the same push again
// heals everything.
func TestPowerLoss(t *testing.T) {
	seed := *powerSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (-power.seed repeats it)", seed)
	for i, s := range powerScenarios {
		for _, fsync := range []Fsync{FsyncAlways, FsyncCommit} {
			t.Run(strings.ReplaceAll(s.name, " ", "_")+"_"+string(fsync), func(t *testing.T) {
				t.Parallel()
				l := newPowerLife(t, fsync)
				powerCut(t, l, s.run(l), s.resumes, rand.New(rand.NewPCG(seed, uint64(i))), fmt.Sprintf("seed %d", seed))
			})
		}
	}
}

// powerCut cuts the power at each moment of a life.
func powerCut(t *testing.T, l *powerLife, push *powerPush, resumes bool, rng *rand.Rand, seed string) {
	moments := l.disk.moments
	each := *powerStates/len(moments) + 1
	if testing.Short() {
		each = 4
	}
	var states, resumed, unchanged int
	for m, moment := range moments {
		for n := range each {
			kept, zero := strictFate(strictNothing), strictChance(rng, 0.3)
			switch n {
			case 0:
			case 1:
				kept = strictAll
			default:
				kept = strictChance(rng, []float64{0.1, 0.5, 0.9, 0.99}[rng.IntN(4)])
			}
			have, err := powerCheck(moment, moment.crash(kept, zero), push)
			if err != nil {
				last := "the start"
				if ops := moment.ops; len(ops) > 0 {
					last = ops[len(ops)-1].String()
				}
				require.NoError(t, err, "%s, moment %d of %d, after %s, state %d", seed, m, len(moments), last, n)
			}
			states++
			switch {
			case have.Published:
				unchanged++
			case have.Offset > 0:
				resumed++
			}
		}
	}
	t.Logf("%d moments, %d states: %d resumed, %d known as published", len(moments), states, resumed, unchanged)
	if resumes {
		require.NotZero(t, resumed, "no state was resumed from")
	}
}

// TestProcessDeath is the same for a reader that never syncs: the processes end
// after every operation, and the disk has all that was done.
func TestProcessDeath(t *testing.T) {
	for _, s := range powerScenarios {
		t.Run(strings.ReplaceAll(s.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			if strings.Contains(s.name, "sync_failed") || strings.Contains(s.name, "sync failed") {
				t.Skip("nothing is synced")
			}
			l := newPowerLife(t, FsyncNever)
			push := s.run(l)
			for m, moment := range l.disk.moments {
				_, err := powerCheck(moment, moment.crash(strictAll, strictNothing), push)
				require.NoError(t, err, "moment %d of %d", m, len(l.disk.moments))
			}
			require.Zero(t, l.disk.kinds("sync")+l.disk.kinds("syncdir"), "something was synced")
		})
	}
}

// powerCheck looks at what a crash left, and does the push again there.
func powerCheck(moment, disk *strictFS, push *powerPush) (have Have, err error) {
	truth, _ := moment.note.(powerTruth)
	check := func() error {
		if moment.note == nil || truth.allows(disk, push.name) {
			return nil
		}
		return fmt.Errorf("the name holds %d bytes that are neither the old file nor the new one", len(disk.content(push.name)))
	}
	if err := check(); err != nil {
		return have, err
	}
	whole := disk.holds(push.name, push.content)
	disk.limit = 10_000
	d, err := newDir("/power", disk, strictSame, DirOptions{})
	if err != nil {
		return have, fmt.Errorf("opening the store again: %w", err)
	}
	if err := check(); err != nil {
		return have, fmt.Errorf("after opening the store again: %w", err)
	}
	have, err = push.run(d)
	if err != nil {
		return have, fmt.Errorf("pushing again: %w", err)
	}
	if have.Published && !whole {
		return have, fmt.Errorf("taken for published, but the name holds other content")
	}
	if err := powerHealed(disk, push); err != nil {
		return have, err
	}
	if err := powerLeft(disk, push); err != nil {
		return have, err
	}
	// And that is durable.
	if err := powerHealed(disk.crash(strictNothing, strictNothing), push); err != nil {
		return have, fmt.Errorf("after the next power loss: %w", err)
	}
	return have, nil
}

// powerHealed reports what is wrong with the file after a push that succeeded.
func powerHealed(disk *strictFS, push *powerPush) error {
	if !disk.holds(push.name, push.content) {
		return fmt.Errorf("the name holds %d bytes that are not the %d pushed", len(disk.content(push.name)), len(push.content))
	}
	if push.offer.Preserve {
		info, err := disk.Lstat(push.name)
		if err != nil {
			return err
		}
		if info.Mode() != fs.FileMode(push.offer.Mode) || !info.ModTime().Equal(push.offer.MTime) {
			return fmt.Errorf("it has mode %v and time %v", info.Mode(), info.ModTime())
		}
	}
	return nil
}

// powerLeft reports what a push that succeeded has left besides its file.
func powerLeft(disk *strictFS, push *powerPush) error {
	if disk.open != 0 {
		return fmt.Errorf("%d files are still open", disk.open)
	}
	for _, name := range disk.list() {
		ours := name == push.name || strings.HasPrefix(push.name, name+string(filepath.Separator))
		notes := strings.HasPrefix(name, stateDir) && strings.HasSuffix(name, manifestExt)
		// A journal whose removal was lost is removed at the next start.
		notes = notes || name == journalPath(push.name)
		if !ours && !notes {
			return fmt.Errorf("%q is left over", name)
		}
	}
	return nil
}
