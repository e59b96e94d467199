// Progress on a terminal: a row for each reader.

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

type barReporter struct {
	out, errw io.Writer
	host      string
}

func (b *barReporter) begin(src client.Source) display {
	fmt.Fprintf(b.errw, "%s to %s\n", src.Name(), b.host)
	return &barDisplay{
		barReporter: b,
		bars:        mpb.New(mpb.WithOutput(b.errw), mpb.WithWidth(40), mpb.WithRefreshRate(150*time.Millisecond)),
		rows:        map[string]*row{},
	}
}

func (b *barReporter) result(*summary, time.Duration) {}

type barDisplay struct {
	*barReporter
	bars *mpb.Progress
	rows map[string]*row
	note string
}

// row is a reader's bar and what stands beside it.
type row struct {
	bar  *mpb.Bar
	leaf chan protocol.Leaf // capacity 1: the latest, for the decorator
	last protocol.Leaf
}

func (r *row) set(l protocol.Leaf) {
	select {
	case <-r.leaf:
	default:
	}
	r.leaf <- l
}

// text is what the reader does, in words. It is called by the bar's goroutine.
func (r *row) text(s decor.Statistics) string {
	select {
	case r.last = <-r.leaf:
	default:
	}
	switch {
	case r.last.State == protocol.LeafReceiving || r.last.State == "":
		return ""
	case r.last.Text != "":
		return printable(fmt.Sprintf("%s: %s", r.last.State, r.last.Text))
	default:
		return string(r.last.State)
	}
}

func (d *barDisplay) progress(p client.Progress) {
	if p.Note != d.note && p.Note != "" {
		fmt.Fprintf(d.bars, "%s\n", printable(p.Note)) // above the rows
	}
	d.note = p.Note
	seen := map[string]bool{}
	for _, l := range p.Leaves {
		seen[l.Name] = true
		r := d.rows[l.Name]
		if r == nil {
			r = d.add(l.Name, p.Size)
		}
		r.set(l)
		r.bar.SetCurrent(l.Offset)
	}
	for name, r := range d.rows {
		if !seen[name] {
			r.bar.Abort(true)
			delete(d.rows, name)
		}
	}
}

func (d *barDisplay) add(name string, size int64) *row {
	r := &row{leaf: make(chan protocol.Leaf, 1)}
	r.bar = d.bars.AddBar(max(size, 0),
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(
			decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace),
			decor.AverageSpeed(decor.SizeB1024(0), " % .1f", decor.WCSyncSpace),
			decor.Any(r.text, decor.WC{W: 1, C: decor.DindentRight | decor.DextraSpace}),
		),
	)
	d.rows[name] = r
	return r
}

func (d *barDisplay) end(receipts []client.Receipt, _ error) {
	for _, r := range receipts {
		row := d.rows[r.Leaf]
		if row == nil {
			continue
		}
		row.set(protocol.Leaf{State: r.Status, Text: r.Text})
		if r.Status == protocol.LeafFailed {
			row.bar.Abort(false)
		} else {
			row.bar.SetTotal(max(r.Bytes, 1), true)
		}
	}
	for _, r := range d.rows {
		r.bar.Abort(false) // no-op on those that are complete
	}
	d.bars.Wait()
	printReceipts(d.out, "", receipts)
}
