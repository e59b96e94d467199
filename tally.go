// What several files come to, and how a terminal shows it.

package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

// tally counts what all files of a push have come to.
type tally struct {
	files int
	size  int64 // content of all files, -1 when unknown
	begun time.Time

	mu     sync.Mutex
	done   int
	failed int   // of those done
	acked  int64 // content
	note   string
	line   time.Time // when there was one last
}

func newTally(sources []client.Source) *tally {
	t := &tally{files: len(sources), begun: time.Now(), line: time.Now()}
	for _, src := range sources {
		st, err := src.Stat()
		if err != nil || st.Size < 0 {
			t.size = -1
			break
		}
		t.size += st.Size
	}
	return t
}

// share is what one file adds to a tally.
type share struct {
	*tally
	acked int64
	note  string
}

// moved adds progress.
func (s *share) moved(p client.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.acked += p.Acked - s.acked
	s.acked = p.Acked
}

// news reports whether a file's note is to be told: when a daemon goes away,
// all files that are under way say the same.
func (s *share) news(p client.Progress) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := p.Note != s.note
	s.note = p.Note
	if !changed || p.Note == "" || s.tally.note == p.Note && s.files > 1 {
		return false
	}
	s.tally.note = p.Note
	return true
}

// ended adds the outcome.
func (s *share) ended(receipts []client.Receipt, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
	if err != nil {
		s.failed++
	}
	var most int64 // what did not have to be sent was not acknowledged
	for _, r := range receipts {
		if r.Status != protocol.LeafFailed {
			most = max(most, r.Bytes)
		}
	}
	s.tally.acked += max(most-s.acked, 0)
	s.acked = max(most, s.acked)
}

// line is how far the push is, when a line about that is due. Name is the
// file's, should there be only one.
func (s *share) line(name string) (text string, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.tally.line) < lineEvery {
		return "", false
	}
	s.tally.line = time.Now()
	text = name + ": "
	if s.files > 1 {
		text = fmt.Sprintf("%d of %d files: ", s.done, s.files)
		if s.failed > 0 {
			text = fmt.Sprintf("%d of %d files, %d failed: ", s.done, s.files, s.failed)
		}
	}
	text += humanize.IBytes(uint64(s.tally.acked))
	if s.size > 0 {
		text += fmt.Sprintf(" of %s (%d%%)", humanize.IBytes(uint64(s.size)), 100*s.tally.acked/s.size)
	}
	return fmt.Sprintf("%s in %v", text, time.Since(s.begun).Round(time.Second)), true
}

// totalReporter shows several files on a terminal, as one row.
type totalReporter struct {
	out, errw io.Writer
	tally     *tally
	bars      *mpb.Progress
	bar       *mpb.Bar
	list      []fileReceipt
	errors    []error // of files without receipts
}

func newTotalReporter(out, errw io.Writer, t *tally, host string) *totalReporter {
	fmt.Fprintf(errw, "%d files to %s\n", t.files, host)
	r := &totalReporter{out: out, errw: errw, tally: t}
	r.bars = mpb.New(mpb.WithOutput(errw), mpb.WithWidth(40), mpb.WithRefreshRate(150*time.Millisecond))
	r.bar = r.bars.AddBar(int64(t.files),
		mpb.PrependDecorators(decor.CountersNoUnit("%d / %d files", decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(r.text, decor.WC{W: 1, C: decor.DindentRight | decor.DextraSpace})),
	)
	return r
}

// text stands behind the bar. It is called by the bar's goroutine.
func (r *totalReporter) text(decor.Statistics) string {
	t := r.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	took := max(time.Since(t.begun).Seconds(), 0.001)
	text := fmt.Sprintf("%s  %s/s  %.0f files/s", humanize.IBytes(uint64(max(t.acked, 0))), humanize.IBytes(uint64(float64(max(t.acked, 0))/took)), float64(t.done)/took)
	if t.failed > 0 {
		text += fmt.Sprintf("  %d failed", t.failed)
	}
	return text
}

func (r *totalReporter) begin(src client.Source) display {
	return &totalDisplay{r, share{tally: r.tally}, src.Name()}
}

type totalDisplay struct {
	*totalReporter
	share
	file string
}

func (d *totalDisplay) progress(p client.Progress) {
	if d.news(p) {
		fmt.Fprintf(d.bars, "%s: %s\n", p.Name, printable(p.Note)) // above the row
	}
	d.moved(p)
}

func (d *totalDisplay) end(receipts []client.Receipt, err error) {
	d.ended(receipts, err)
	for _, r := range receipts {
		d.list = append(d.list, fileReceipt{d.file, r})
	}
	if err != nil && len(receipts) == 0 {
		d.errors = append(d.errors, err)
	}
	d.bar.Increment()
}

// listMost is how many files are listed one by one where people read.
const listMost = 20

// result prints the receipts: all of them, or to a terminal, when there are
// many, those of readers that failed and a line for each of the others.
func (r *totalReporter) result(*summary, time.Duration) {
	r.bar.Abort(false) // no-op when it is complete
	r.bars.Wait()
	for _, err := range r.errors {
		fmt.Fprintf(r.errw, "%s\n", printable(err.Error()))
	}
	whole := r.tally.files <= listMost || !isTerminal(r.out)
	type total struct {
		files int
		bytes int64
	}
	totals := map[string]*total{}
	var order []string
	for _, receipt := range r.list {
		if whole || receipt.Status == protocol.LeafFailed {
			printReceipts(r.out, receipt.file, []client.Receipt{receipt.Receipt})
			continue
		}
		key := fmt.Sprintf("%-9s  %s", receipt.Status, receipt.Leaf)
		if totals[key] == nil {
			totals[key] = &total{}
			order = append(order, key)
		}
		totals[key].files++
		totals[key].bytes += receipt.Bytes
	}
	for _, key := range order {
		fmt.Fprintf(r.out, "%s  %d files  %s\n", key, totals[key].files, humanize.IBytes(uint64(totals[key].bytes)))
	}
}
