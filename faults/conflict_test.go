package faults_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// TestConflict is two pushes of one name at once, to two readers with
// directories: one wins whole, and the other is told.
func TestConflict(t *testing.T) {
	for _, same := range []bool{false, true} {
		name := "different content"
		if same {
			name = "same content"
		}
		t.Run(name, func(t *testing.T) {
			rounds := 12
			if *runs > 0 {
				rounds = *runs
			}
			rng := rand.New(rand.NewPCG(*seed, 5))
			counts := map[string]int{}
			for round := range rounds {
				size := 64*kib + rng.IntN(256*kib)
				data := [2][]byte{random(*seed+uint64(2*round), size), random(*seed+uint64(2*round+1), size-rng.IntN(2)*kib)}
				if same {
					data[1] = data[0]
				}
				var waits [2]time.Duration
				if rng.IntN(2) == 0 {
					waits[rng.IntN(2)] = time.Duration(rng.Int64N(int64(3 * time.Millisecond)))
				}
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					outcome := compete(t, dir, data, waits, same)
					counts[outcome]++
				})
			}
			t.Log(counts)
		})
	}
}

// compete pushes both at once and says who won.
func compete(t *testing.T, dir string, data [2][]byte, waits [2]time.Duration, same bool) string {
	var hops []*daemon.Hop
	var dirs []string
	for i := range 2 {
		d := filepath.Join(dir, fmt.Sprintf("r%d", i+1))
		store, err := sink.OpenDir(d, sink.DirOptions{})
		require.NoError(t, err)
		leaf := sink.NewLeaf(store)
		n := newNode(fmt.Sprintf("r%d", i+1), 256*kib, func(protocol.Stream) protocol.Sink { return leaf })
		defer func() { n.shut(); leaf.Close() }()
		hops, dirs = append(hops, daemon.NewHop(n.name, n)), append(dirs, d)
	}
	fanout, err := daemon.NewFanout(hops, daemon.FanoutOptions{})
	require.NoError(t, err)
	defer fanout.Close()
	b := newNode("broadcaster", 256*kib, func(protocol.Stream) protocol.Sink { return fanout })
	defer b.shut()

	var errs [2]error
	var receipts [2][]client.Receipt
	var both sync.WaitGroup
	for i := range data {
		both.Go(func() {
			time.Sleep(waits[i])
			receipts[i], errs[i] = client.NewOver("broadcaster", b).Push(t.Context(), memory{"f", data[i]}, client.Options{ChunkSize: 32 * kib})
		})
	}
	both.Wait()

	var winner []byte
	outcome := "nobody"
	for i, err := range errs {
		if err == nil {
			winner, outcome = data[i], "one"
			continue
		}
		code := protocol.AsError(err).Code
		assert.True(t, code == protocol.CodeConflict || code == protocol.CodeExists, "push %d: %v (%s)", i, err, code)
		outcome += " " + string(code)
	}
	if errs[0] == nil && errs[1] == nil {
		outcome = "both"
	}
	assert.NotNil(t, winner, "neither push went through: %v; %v", errs[0], errs[1])
	if same {
		assert.NoError(t, errs[0])
		assert.NoError(t, errs[1])
	} else {
		assert.False(t, errs[0] == nil && errs[1] == nil, "both pushes of different content went through: %+v", receipts)
	}
	for _, d := range dirs {
		names := visible(t, d)
		if winner == nil {
			assert.Empty(t, names, "%s", d)
			continue
		}
		if assert.Equal(t, []string{"f"}, names) {
			got, err := os.ReadFile(filepath.Join(d, "f"))
			require.NoError(t, err)
			assert.True(t, bytes.Equal(winner, got), "%s has not what the winner pushed", d)
		}
	}
	return outcome
}
