// The table of the status command on a terminal, drawn again in place.

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8/cwriter"

	"github.com/sbcast/sbcast/protocol"
)

// liveView draws each table over the one before.
type liveView struct {
	screen *cwriter.Writer
	table  *table
}

func newLiveView(out io.Writer, addr string) *liveView {
	return &liveView{screen: cwriter.New(out), table: newTable(addr)}
}

func (v *liveView) show(all []*protocol.Status, err error) error {
	now := time.Now()
	text := now.Format(time.TimeOnly) + "\n" + v.table.render(all, now)
	if err != nil {
		text += printable(err.Error()) + "\n"
	}
	width, height, sizeErr := v.screen.GetTermSize()
	if sizeErr != nil {
		width, height = 80, 24
	}
	lines := fitScreen(text, width, height-1)
	for _, line := range lines {
		fmt.Fprintln(v.screen, line) // to memory
	}
	if err := v.screen.Flush(len(lines)); err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	return nil
}

// fitScreen is text in at most height lines of at most width characters: a
// longer line would take two, and then the next table would not cover this one.
func fitScreen(text string, width, height int) []string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if height > 1 && len(lines) > height {
		more := len(lines) - height + 1
		lines = append(lines[:height-1:height-1], fmt.Sprintf("... and %d lines more", more))
	}
	for i, line := range lines {
		if r := []rune(line); width > 1 && len(r) >= width {
			lines[i] = string(r[:width-1])
		}
	}
	return lines
}
