// The table of the status command.

package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sbcast/sbcast/protocol"
)

// table makes text of what daemons answer. It remembers the round before, and
// tells the rate since then; the first time it is that since a push began.
type table struct {
	addr   string // of the daemon that is asked
	before map[string]progressMark
}

// progressMark is how far something was when it was last seen.
type progressMark struct {
	offset int64
	at     time.Time
}

func newTable(addr string) *table { return &table{addr: addr} }

// render is the table, in lines.
func (t *table) render(all []*protocol.Status, now time.Time) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	seen := map[string]progressMark{}
	rate := func(key string, offset int64, average float64) string {
		seen[key] = progressMark{offset, now}
		if last, ok := t.before[key]; ok {
			average = protocol.Rate(offset-last.offset, now.Sub(last.at))
		}
		return humanize.IBytes(uint64(average)) + "/s"
	}
	for _, st := range all {
		node := st.Node
		if node == "" {
			node = t.addr
		}
		if st.Error != "" {
			fmt.Fprintf(w, "%s\tunreachable\t%s\n", printable(node), printable(st.Error))
			continue
		}
		running := max(st.Running, len(st.Transfers))
		fmt.Fprintf(w, "%s\t%s\t%s\tup %s\t%d transfers\n", printable(node), short(printable(st.Sink)), printable(st.Agent),
			time.Duration(st.Uptime)*time.Second, running)
		if st.MemoryMax > 0 {
			fmt.Fprintf(w, "  memory\t%s of %s\t\t\t\n", bytesText(st.Memory), bytesText(st.MemoryMax))
		}
		for i := range st.Transfers {
			tr := &st.Transfers[i]
			key := st.Node + "\x00" + tr.ID
			size := "?"
			if tr.Size >= 0 {
				size = bytesText(tr.Size)
			}
			fmt.Fprintf(w, "  %s\t%s\t%s of %s\t%s\t%.0fs\t%s\n", printable(tr.Name), printable(tr.Phase), bytesText(tr.Offset), size,
				rate(key, tr.Offset, tr.Rate), tr.Seconds, heldText(tr))
			for _, h := range tr.Readers {
				fmt.Fprintf(w, "    %s\t%s\t%s\t%s\t%s behind\t%s\n", printable(h.Reader), h.State, bytesText(h.Offset),
					rate(key+"\x00"+h.Reader, h.Offset, h.Rate), bytesText(h.Lag), hopText(h))
			}
		}
		if more := running - len(st.Transfers); more > 0 {
			fmt.Fprintf(w, "  and %d more\t\t\t\t\n", more)
		}
	}
	t.before = seen
	_ = w.Flush() // to memory
	lines := strings.SplitAfter(b.String(), "\n")
	for i, line := range lines {
		if body, ok := strings.CutSuffix(line, "\n"); ok {
			lines[i] = strings.TrimRight(body, " ") + "\n"
		}
	}
	return strings.Join(lines, "")
}

// heldText says what holds a transfer up.
func heldText(tr *protocol.TransferStatus) string {
	if tr.Bottleneck == "" {
		return ""
	}
	return fmt.Sprintf("held up by %s, %.1fs", printable(tr.Bottleneck), tr.Held)
}

// hopText says where a reader's time went, and what is said of it.
func hopText(h protocol.HopStatus) string {
	var parts []string
	if h.Bottleneck != "" {
		parts = append(parts, printable(h.Bottleneck)+":")
	}
	h.Spent.Each(func(stage string, seconds float64) {
		if seconds >= 0.1 {
			parts = append(parts, fmt.Sprintf("%s %.1fs", stage, seconds))
		}
	})
	if h.Busy >= 0.1 {
		parts = append(parts, fmt.Sprintf("(storing %.1fs)", h.Busy))
	}
	if h.Text != "" {
		parts = append(parts, printable(h.Text))
	}
	return strings.Join(parts, " ")
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// tableView prints a table for each round, one below the other.
type tableView struct {
	out   io.Writer
	table *table
	again bool // there are more rounds: each begins with the time
}

func (v *tableView) show(all []*protocol.Status, err error) error {
	text := v.table.render(all, time.Now())
	if v.again {
		text = time.Now().Format(time.RFC3339) + "\n" + text
		if err != nil {
			text += printable(err.Error()) + "\n"
		}
		text += "\n"
	}
	if _, err := io.WriteString(v.out, text); err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	return nil
}

// sinkWidth is how much of a sink a table shows: a command can be long.
const sinkWidth = 48

// short is s, or the beginning and end of it.
func short(s string) string {
	if r := []rune(s); len(r) > sinkWidth {
		return string(r[:sinkWidth/2]) + "…" + string(r[len(r)-sinkWidth/2+1:])
	}
	return s
}
