// What a daemon tells of itself.

package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

func TestWhatHoldsAHopUp(t *testing.T) {
	for name, c := range map[string]struct {
		of   account
		what string
		held float64
	}{
		"a store that is busy all the time": {account{spent: protocol.Spent{Credit: 10}, busy: 9}, "sink", 9},
		"a full window on its way":          {account{spent: protocol.Spent{Credit: 10}, busy: 1}, "link", 9},
		"a socket that takes nothing":       {account{spent: protocol.Spent{Link: 10, Credit: 1}, busy: 1}, "link", 10},
		"a window that is too small":        {account{spent: protocol.Spent{Link: 1, Credit: 10}, short: true}, "window", 11},
		"a disk that syncs":                 {account{spent: protocol.Spent{Link: 1, Credit: 1, Sync: 10}, busy: 1}, "sync", 10},
		"a command that ends late":          {account{spent: protocol.Spent{Publish: 10}}, "publish", 10},
		"a store while content came":        {account{spent: protocol.Spent{Content: 10}, busy: 9}, "sink", 0},
	} {
		t.Run(name, func(t *testing.T) {
			what, held, _ := c.of.held()
			assert.Equal(t, c.what, what)
			assert.InDelta(t, c.held, held, 1e-9)
		})
	}
}

// A Status that does not fit into a frame says less, and what is left out
// first are the readers that keep up.
func TestStatusFitsIntoAFrame(t *testing.T) {
	st := &protocol.Status{Running: 100}
	for i := range 100 {
		tr := protocol.TransferStatus{ID: fmt.Sprint(i), Name: strings.Repeat("n", 1000)}
		for j := range 20 {
			tr.Readers = append(tr.Readers, protocol.HopStatus{Reader: fmt.Sprintf("r%d", j), State: protocol.LeafReceiving, Lag: int64(j)})
		}
		st.Transfers = append(st.Transfers, tr)
	}
	frame, err := appendStatus(st)
	require.NoError(t, err)
	assert.Len(t, st.Transfers[0].Readers, 20, "what was given is as it was")
	m, err := protocol.ParseMessage(protocol.KindStatus, frame[8:len(frame)-4])
	require.NoError(t, err)
	got := m.(*protocol.Status)
	assert.Equal(t, 100, got.Running)
	assert.NotEmpty(t, got.Transfers)

	st.Transfers = st.Transfers[:10]
	for i := range st.Transfers {
		st.Transfers[i].Name = "f"
		for j := range 300 {
			st.Transfers[i].Readers = append(st.Transfers[i].Readers, protocol.HopStatus{Reader: fmt.Sprintf("s%d", j), State: protocol.LeafReceiving})
		}
	}
	frame, err = appendStatus(st)
	require.NoError(t, err)
	m, err = protocol.ParseMessage(protocol.KindStatus, frame[8:len(frame)-4])
	require.NoError(t, err)
	got = m.(*protocol.Status)
	require.Len(t, got.Transfers, 10)
	assert.Equal(t, "r19", got.Transfers[0].Readers[0].Reader)
	assert.Less(t, len(got.Transfers[0].Readers), 320)
}

// A flood of refused peers is a line a second, and all of it is counted.
func TestRefusalsDoNotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := NewServer(nil, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		for range 1000 {
			s.refuse(s.opts.Log, "connection", protocol.Errorf(protocol.CodeProtocol, "no"))
		}
		assert.Equal(t, 1, strings.Count(log.String(), "\n"))
		time.Sleep(warnEvery)
		s.refuse(s.opts.Log, "stream", protocol.Errorf("made-up", "no"))
		assert.Equal(t, 2, strings.Count(log.String(), "\n"))
		assert.Contains(t, log.String(), `msg="stream refused" code=made-up error=no not_logged=999`)
		time.Sleep(warnEvery)
		s.refuse(s.opts.Log, "stream", errors.New("odd"))
		assert.NotContains(t, strings.Split(log.String(), "\n")[2], "not_logged")
		assert.Equal(t, map[refusal]int{{"connection", "protocol"}: 1000, {"stream", "other"}: 1, {"stream", "internal"}: 1}, s.refused.counts)
	})
}
