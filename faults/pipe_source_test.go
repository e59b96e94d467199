package faults_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
)

// TestPipeResumes is content that can be read once, over connections that are
// cut again and again: it goes on within what the client still has.
func TestPipeResumes(t *testing.T) {
	for _, hop := range []string{"client to broadcaster", "broadcaster to reader"} {
		t.Run(hop, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(*seed, 4))
			for i := range 3 {
				content := random(*seed+uint64(i), 3*mib+rng.IntN(mib))
				var cuts []time.Duration
				for range 1 + rng.IntN(4) {
					cuts = append(cuts, time.Duration(rng.Int64N(int64(3*time.Second))))
				}
				synctest.Test(t, func(t *testing.T) {
					r := newRun(t, paced(mib), paced(2*mib))
					defer r.shut()
					victim := r.broadcaster
					if hop != "client to broadcaster" {
						victim = r.readers[1]
					}
					gone := make(chan struct{})
					go func() {
						defer close(gone)
						for _, pause := range cuts {
							time.Sleep(pause)
							victim.cut()
						}
					}()
					r.push(t, client.Stream(bytes.NewReader(content), "f"), client.Options{})
					<-gone
					require.NoError(t, r.err, "cuts %v", cuts)
					for i := range r.stores {
						r.published(t, i, content)
					}
				})
			}
		})
	}
}

// TestPipeResumesInEveryWindow cuts once, here and there.
func TestPipeResumesInEveryWindow(t *testing.T) {
	content := random(*seed, 2*mib)
	for at := int64(64 * kib); at < int64(len(content)); at += 192 * kib {
		synctest.Test(t, func(t *testing.T) {
			r := newRun(t, newStore(good), newStore(good))
			defer r.shut()
			cut := false
			src := &watched{r: bytes.NewReader(content), at: at, then: func() {
				if !cut {
					cut = true
					r.broadcaster.cut()
				}
			}}
			r.push(t, client.Stream(src, "f"), client.Options{})
			require.NoError(t, r.err)
			assert.True(t, cut)
			for i := range r.stores {
				r.published(t, i, content)
			}
		})
	}
}

// watched calls then once at bytes have been read.
type watched struct {
	r    io.Reader
	n    int64
	at   int64
	then func()
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if w.n += int64(n); w.n >= w.at {
		w.then()
	}
	return n, err
}

// TestPipeLost is a reader that has lost what it had, more than the client
// keeps: that is an error that says from where to where, not a file with a
// hole and not an endless retry.
func TestPipeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := random(5, 8*mib)
		s := paced(mib)
		s.loses = s.forget
		r := newRun(t, newStore(good), s)
		defer r.shut()
		go func() {
			time.Sleep(5 * time.Second)
			r.readers[1].cut()
		}()
		r.push(t, client.Stream(bytes.NewReader(content), "f"), client.Options{})
		var input *client.InputError
		require.True(t, errors.As(r.err, &input), "%v", r.err)
		m := regexp.MustCompile(`from byte (\d+) on, of which only what follows byte (\d+) is kept`).FindStringSubmatch(r.err.Error())
		require.Len(t, m, 3, r.err.Error())
		assert.Equal(t, "0", m[1])
		kept, err := strconv.ParseInt(m[2], 10, 64)
		require.NoError(t, err)
		assert.True(t, kept >= 3*mib && kept <= 6*mib, "kept from %d", kept)
		assert.LessOrEqual(t, r.took, 7*time.Second)
		r.absent(t, 0, 1)
	})
	t.Run("within the window", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			content := random(6, mib-64*kib)
			s := paced(mib)
			s.loses = s.forget
			r := newRun(t, newStore(good), s)
			defer r.shut()
			go func() {
				time.Sleep(time.Second / 2)
				r.readers[1].cut()
			}()
			r.push(t, client.Stream(bytes.NewReader(content), "f"), client.Options{})
			require.NoError(t, r.err)
			r.published(t, 0, content)
			r.published(t, 1, content)
		})
	})
}

// TestPipeParked is a reader that is too slow for the others while a pipe is
// pushed, which cannot be read a second time for it: the others publish, and
// the push says what became of the slow one.
func TestPipeParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := random(7, 16*mib)
		r := newRun(t, newStore(good), paced(mib), newStore(good))
		defer r.shut()
		r.push(t, client.Stream(bytes.NewReader(content), "f"), client.Options{Require: policy(t, "any")})
		for _, i := range []int{0, 2} {
			assert.LessOrEqual(t, r.published(t, i, content), 12*time.Second)
		}
		r.absent(t, 1)
		assert.Equal(t, 3, exitCode(r.err), "the policy is met: %v", r.err)
		assert.NotEmpty(t, r.receipts[1].Text, fmt.Sprint(r.receipts[1]))
	})
}
