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
	// begin is called for each file and returns what shows it.
	begin(src client.Source, host string) display
	// result is called once, last.
	result(s *summary, took time.Duration)
}

// display shows the push of one file.
type display interface {
	progress(p client.Progress)
	end(receipts []client.Receipt, err error)
}

func newReporter(c *cli.Context) reporter {
	out, errw := c.App.Writer, c.App.ErrWriter
	switch {
	case c.Bool("json"):
		return &jsonReporter{enc: json.NewEncoder(out)}
	case c.Bool("quiet"):
		return quietReporter{}
	case !c.Bool("verbose") && isTerminal(errw):
		return &barReporter{out: out, errw: errw}
	default:
		return &lineReporter{out: out, errw: errw, verbose: c.Bool("verbose")}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printReceipts prints a line for each reader.
func printReceipts(out io.Writer, receipts []client.Receipt) {
	for _, r := range receipts {
		switch r.Status {
		case protocol.LeafFailed:
			fmt.Fprintf(out, "%-9s  %s  %s\n", r.Status, r.Leaf, printable(r.Text))
		case protocol.LeafReady: // of a dry run
			fmt.Fprintf(out, "%-9s  %s  would take it\n", r.Status, r.Leaf)
		default:
			fmt.Fprintf(out, "%-9s  %s  %s  %s  %.2fs  %s\n", r.Status, r.Leaf,
				printable(r.Location), humanize.IBytes(uint64(r.Bytes)), r.Seconds, r.Digest)
		}
	}
}

type quietReporter struct{}

func (quietReporter) begin(client.Source, string) display { return quietDisplay{} }

func (quietReporter) result(*summary, time.Duration) {}

type quietDisplay struct{}

func (quietDisplay) progress(client.Progress) {}

func (quietDisplay) end([]client.Receipt, error) {}

// lineReporter prints a line now and then, for logs.
type lineReporter struct {
	out, errw io.Writer
	verbose   bool
}

// lineEvery is the time between two lines of progress.
const lineEvery = 5 * time.Second

type lineDisplay struct {
	*lineReporter
	last   time.Duration
	note   string
	states map[string]string
}

func (l *lineReporter) begin(client.Source, string) display {
	return &lineDisplay{lineReporter: l, states: map[string]string{}}
}

func (l *lineReporter) result(*summary, time.Duration) {}

func (d *lineDisplay) progress(p client.Progress) {
	if p.Note != d.note && p.Note != "" {
		fmt.Fprintf(d.errw, "%s: %s\n", p.Name, printable(p.Note))
	}
	d.note = p.Note
	for _, leaf := range p.Leaves {
		state := string(leaf.State)
		if leaf.Text != "" {
			state += ": " + printable(leaf.Text)
		}
		tell := d.verbose || leaf.State == protocol.LeafReceiving && leaf.Text != "" || leaf.State == protocol.LeafWaiting && leaf.Code != "" || leaf.State == protocol.LeafFailed
		if old := d.states[leaf.Name]; old != state && tell {
			fmt.Fprintf(d.errw, "%s: %s %s\n", p.Name, leaf.Name, state)
		}
		d.states[leaf.Name] = state
	}
	if p.Elapsed-d.last < lineEvery {
		return
	}
	d.last = p.Elapsed
	line := fmt.Sprintf("%s: %s", p.Name, humanize.IBytes(uint64(p.Acked)))
	if p.Size > 0 {
		line += fmt.Sprintf(" of %s (%d%%)", humanize.IBytes(uint64(p.Size)), 100*p.Acked/p.Size)
	}
	fmt.Fprintf(d.errw, "%s in %v\n", line, p.Elapsed.Round(time.Second))
}

func (d *lineDisplay) end(receipts []client.Receipt, _ error) { printReceipts(d.out, receipts) }

// jsonReporter prints newline-delimited JSON: events while it goes, and exactly
// one object of type result last.
type jsonReporter struct {
	mu  sync.Mutex
	enc *json.Encoder
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

func (j *jsonReporter) begin(src client.Source, host string) display {
	size := int64(-1)
	if st, err := src.Stat(); err == nil {
		size = st.Size
	}
	j.emit(jsonStart{Type: "start", File: src.Name(), Size: size, Host: host})
	return &jsonDisplay{j, src.Name()}
}

type jsonDisplay struct {
	*jsonReporter
	file string
}

func (j *jsonDisplay) progress(p client.Progress) {
	j.emit(jsonProgress{Type: "progress", File: j.file, Size: p.Size, Bytes: p.Acked, Sent: p.Sent, Seconds: p.Elapsed.Seconds(), Note: p.Note, Readers: p.Leaves})
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
