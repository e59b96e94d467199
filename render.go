// What push shows: results on standard output, progress on standard error.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

// reporter shows a push command.
type reporter interface {
	// begin is called for each file, in order, and returns what shows it.
	begin(src client.Source) display
	// result is called once, last.
	result(s *summary, took time.Duration)
}

// display shows the push of one file. Several files go at once: the calls for
// one of them come one after the other, and so do all calls of end, in order.
type display interface {
	progress(p client.Progress)
	end(receipts []client.Receipt, err error)
}

// newReporter returns what the flags ask for, of a push of sources to host.
func newReporter(c *cli.Context, sources []client.Source, host string) reporter {
	out, errw := c.App.Writer, c.App.ErrWriter
	bars := !c.Bool("verbose") && isTerminal(errw)
	switch {
	case c.Bool("json"):
		return &jsonReporter{enc: json.NewEncoder(out), host: host, several: len(sources) > 1}
	case c.Bool("quiet"):
		return quietReporter{}
	case bars && len(sources) > 1:
		return newTotalReporter(out, errw, newTally(sources), host)
	case bars:
		return &barReporter{out: out, errw: errw, host: host}
	default:
		return &lineReporter{out: out, errw: errw, verbose: c.Bool("verbose"), tally: newTally(sources)}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printReceipts prints a line for each reader. File is named where the line
// does not, "" when there is only one.
func printReceipts(out io.Writer, file string, receipts []client.Receipt) {
	file = fileText(file)
	for _, r := range receipts {
		switch r.Status {
		case protocol.LeafFailed:
			fmt.Fprintf(out, "%-9s  %s  %s%s\n", r.Status, r.Leaf, file, printable(r.Text))
		case protocol.LeafReady: // of a dry run
			fmt.Fprintf(out, "%-9s  %s  %swould take it\n", r.Status, r.Leaf, file)
		default:
			fmt.Fprintf(out, "%-9s  %s  %s  %s  %.2fs  %s\n", r.Status, r.Leaf,
				printable(r.Location), humanize.IBytes(uint64(r.Bytes)), r.Seconds, r.Digest)
		}
	}
}

// fileText is what begins a line about one of several files.
func fileText(file string) string {
	if file == "" {
		return ""
	}
	return printable(file) + ": "
}

type quietReporter struct{}

func (quietReporter) begin(client.Source) display { return quietDisplay{} }

func (quietReporter) result(*summary, time.Duration) {}

type quietDisplay struct{}

func (quietDisplay) progress(client.Progress) {}

func (quietDisplay) end([]client.Receipt, error) {}

// lineReporter prints a line now and then, for logs.
type lineReporter struct {
	out, errw io.Writer
	verbose   bool
	tally     *tally
}

// lineEvery is the time between two lines of progress.
const lineEvery = 5 * time.Second

type lineDisplay struct {
	*lineReporter
	share
	file   string // "" when there is only one
	states map[string]string
	spent  protocol.Spent
}

func (l *lineReporter) begin(src client.Source) display {
	d := &lineDisplay{lineReporter: l, share: share{tally: l.tally}, states: map[string]string{}}
	if l.tally.files > 1 {
		d.file = src.Name()
	}
	return d
}

func (l *lineReporter) result(*summary, time.Duration) {}

func (d *lineDisplay) progress(p client.Progress) {
	if d.news(p) {
		fmt.Fprintf(d.errw, "%s: %s\n", p.Name, printable(p.Note))
	}
	for _, leaf := range p.Leaves {
		state := string(leaf.State)
		if leaf.Text != "" {
			state += ": " + printable(leaf.Text)
		}
		tell := d.verbose || leaf.State == protocol.LeafReceiving && leaf.Text != "" || leaf.State == protocol.LeafWaiting && leaf.Code != "" ||
			leaf.State == protocol.LeafFailed && d.file == "" // of many files the receipts say it, once and in order
		if old := d.states[leaf.Name]; old != state && tell {
			fmt.Fprintf(d.errw, "%s: %s %s\n", p.Name, leaf.Name, state)
		}
		d.states[leaf.Name] = state
	}
	d.moved(p)
	d.spent = p.Spent
	if line, due := d.share.line(p.Name); due {
		fmt.Fprintln(d.errw, line)
	}
}

func (d *lineDisplay) end(receipts []client.Receipt, err error) {
	d.ended(receipts, err)
	if d.verbose {
		fmt.Fprintf(d.errw, "%swaited %.1fs for the source, %.1fs for the connection, %.1fs for the readers\n",
			fileText(d.file), d.spent.Content, d.spent.Link, d.spent.Credit+d.spent.Sync+d.spent.Publish)
	}
	printReceipts(d.out, d.file, receipts)
	if err != nil && len(receipts) == 0 && d.file != "" {
		fmt.Fprintf(d.errw, "%s\n", printable(err.Error()))
	}
}

// jsonReporter prints newline-delimited JSON: events while it goes, and exactly
// one object of type result last.
type jsonReporter struct {
	host    string
	several bool // files
	mu      sync.Mutex
	enc     *json.Encoder
}

// jsonReader is a reader in the events and the result.
type jsonReader struct {
	File        string  `json:"file,omitempty"` // where there are several
	Reader      string  `json:"reader"`
	Status      string  `json:"status"`
	Bytes       int64   `json:"bytes"`
	Digest      string  `json:"digest"`
	Location    string  `json:"location"`
	ResumedFrom int64   `json:"resumed_from"`
	Seconds     float64 `json:"seconds"`
	Error       string  `json:"error"`
	Code        string  `json:"code,omitempty"`
}

func newJSONReader(file string, r client.Receipt) jsonReader {
	return jsonReader{
		File: file, Reader: r.Leaf, Status: string(r.Status), Bytes: r.Bytes, Digest: string(r.Digest), Location: r.Location,
		ResumedFrom: r.ResumedFrom, Seconds: r.Seconds, Error: r.Text, Code: string(r.Code),
	}
}

type jsonStart struct {
	Type string `json:"type"`
	File string `json:"file"`
	Size int64  `json:"size"`
	Host string `json:"host"`
}

type jsonProgress struct {
	Type    string          `json:"type"`
	File    string          `json:"file"`
	Size    int64           `json:"size"`
	Bytes   int64           `json:"bytes"`
	Sent    int64           `json:"sent"` // over all attempts
	Seconds float64         `json:"seconds"`
	Note    string          `json:"note,omitempty"`
	Spent   protocol.Spent  `json:"spent,omitzero"` // seconds in each stage
	Readers []protocol.Leaf `json:"readers"`
}

type jsonEvent struct {
	Type string `json:"type"`
	jsonReader
}

type jsonResult struct {
	Type    string       `json:"type"`
	Status  string       `json:"status"`
	Files   int          `json:"files"`
	Bytes   int64        `json:"bytes"`
	Seconds float64      `json:"seconds"`
	Readers []jsonReader `json:"readers"`
	Error   string       `json:"error,omitempty"`
	Exit    int          `json:"exit"`
}

func (j *jsonReporter) emit(v any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_ = j.enc.Encode(v) // whoever closed the pipe does not want it
}

func (j *jsonReporter) begin(src client.Source) display {
	size := int64(-1)
	if st, err := src.Stat(); err == nil {
		size = st.Size
	}
	j.emit(jsonStart{Type: "start", File: src.Name(), Size: size, Host: j.host})
	return &jsonDisplay{j, src.Name()}
}

type jsonDisplay struct {
	*jsonReporter
	file string
}

// quickly is how long one of several files may take without an event of its
// progress: that of 10,000 small files would be 50,000 lines.
const quickly = 200 * time.Millisecond

func (j *jsonDisplay) progress(p client.Progress) {
	if j.several && p.Elapsed < quickly {
		return
	}
	j.emit(jsonProgress{Type: "progress", File: j.file, Size: p.Size, Bytes: p.Acked, Sent: p.Sent, Seconds: p.Elapsed.Seconds(), Note: p.Note, Spent: p.Spent.Round(), Readers: p.Leaves})
}

func (j *jsonDisplay) end(receipts []client.Receipt, _ error) {
	for _, r := range receipts {
		j.emit(jsonEvent{"reader", newJSONReader(j.file, r)})
	}
}

func (j *jsonReporter) result(s *summary, took time.Duration) {
	res := jsonResult{Type: "result", Status: s.status(), Files: s.files, Bytes: s.bytes, Seconds: took.Seconds(), Readers: []jsonReader{}}
	for _, r := range s.receipts {
		file := ""
		if s.files > 1 {
			file = r.file
		}
		res.Readers = append(res.Readers, newJSONReader(file, r.Receipt))
	}
	if s.err != nil {
		res.Error, res.Exit = s.err.Error(), exitCode(s.err)
	}
	j.emit(res)
}

// status is one word for the whole: published, unchanged, partial or failed.
func (s *summary) status() string {
	switch exitCode(s.err) {
	case 0:
	case exitPartial:
		return "partial"
	default:
		return "failed"
	}
	for _, r := range s.receipts {
		if r.Status != protocol.LeafUnchanged {
			return string(r.Status)
		}
	}
	return string(protocol.LeafUnchanged)
}
